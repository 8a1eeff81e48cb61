"""What a rollout starts from: picture, first latent and voices of encoded clips."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.errors import DataError
from joyflash_cli.sampler.profile import SamplerProfile
from joyflash_cli.training.latents import LatentClips
from joyflash_cli.types import Conditioning


@dataclass(frozen=True)
class ClipSource:
    """Conditioning of whole clips as a stream.

    Attributes:
        conditioning: Of latent frames 0 on; what has frames covers all of them.
        num_blocks: Length of the stream.
    """

    conditioning: Conditioning
    num_blocks: int

    def has_block(self, block_index: int) -> bool:
        """Whether the clips are long enough for this block."""
        return block_index < self.num_blocks

    def frames(self, start: int, stop: int) -> Conditioning:
        """Conditioning of latent frames ``start <= i < stop``."""
        image, audio = self.conditioning.image, self.conditioning.audio
        return self.conditioning.with_frames(
            image=None if image is None else image[:, start:stop],
            audio=None if audio is None else audio[:, start:stop],
        )


@dataclass(frozen=True)
class RolloutBatch:
    """Streams that start together.

    Attributes:
        source: Conditioning of all of them.
        reference_latent: ``(B, C, H, W)``, latent frame 0 where the profile replaces it.
        clips: Index of each stream's clip.
    """

    source: ClipSource
    reference_latent: Tensor
    clips: tuple[int, ...]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of a latent frame."""
        channels, height, width = self.reference_latent.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.clips)

    def of(self, streams: Sequence[int]) -> "RolloutBatch":
        """The batch of some of the streams."""
        chosen = list(streams)
        return self._mapped(lambda x: x[chosen], tuple(self.clips[i] for i in chosen))

    def to(self, device: torch.device | str) -> "RolloutBatch":
        """The batch on a device."""
        return self._mapped(lambda x: x.to(device), self.clips)

    def _mapped(self, change: Callable[[Tensor], Tensor], clips: tuple[int, ...]) -> "RolloutBatch":
        given = {
            kind.name: change(value)
            for kind in fields(Conditioning)
            if (value := getattr(self.source.conditioning, kind.name)) is not None
        }
        return RolloutBatch(
            ClipSource(Conditioning(**given), self.source.num_blocks),
            change(self.reference_latent),
            clips,
        )


def start_clips(clips: LatentClips) -> np.ndarray:
    """Indices of the clips that start at their reference.

    Raises:
        DataError: If there is none.
    """
    indices = np.nonzero(clips.is_start.numpy())[0]
    if not len(indices):
        raise DataError("No encoded clip starts at its reference", hint="run the stage 'latents'")
    return indices


def draw_rollout_batch(
    clips: LatentClips,
    rng: np.random.Generator,
    *,
    size: int,
    num_blocks: int,
    profile: SamplerProfile,
) -> RolloutBatch:
    """Random clips with enough sound for ``num_blocks`` blocks.

    A rollout needs no true video, so where it is longer than its clip another clip's voice goes
    on: the picture stays, the sentence changes.
    """
    pool = start_clips(clips)
    chosen = rng.choice(pool, size)
    audio = clips.audio[chosen].float()
    while audio.shape[1] < profile.block_start(num_blocks):
        # Latent 0 of a clip owns a single video frame: the voice goes on with its second latent.
        audio = torch.cat([audio, clips.audio[rng.choice(pool, size)][:, 1:].float()], dim=1)
    return rollout_batch(clips, chosen, audio[:, : profile.block_start(num_blocks)], num_blocks)


def rollout_batch(
    clips: LatentClips, chosen: np.ndarray, audio: Tensor, num_blocks: int
) -> RolloutBatch:
    """The batch of these clips with this audio, ``(B, T, A, D)``."""
    references = clips.references[chosen].float()
    image = references[:, None].expand(-1, audio.shape[1], -1, -1, -1)
    unknown = torch.ones_like(image[:, :, :1])
    unknown[:, 0] = 0
    conditioning = Conditioning(image=torch.cat([image, unknown], dim=2), audio=audio)
    return RolloutBatch(
        source=ClipSource(conditioning, num_blocks),
        reference_latent=clips.latents[chosen][:, 0].float(),
        clips=tuple(int(index) for index in chosen),
    )
