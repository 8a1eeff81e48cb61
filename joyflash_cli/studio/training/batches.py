"""What a rollout starts from: picture, first latent and voices of encoded clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.conditioning.config import ImageConvention
from joyflash_cli.conditioning.frames import assemble_image_channels
from joyflash_cli.errors import DataError
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.stream import Stream
from joyflash_cli.studio.training.latents import LatentClips
from joyflash_cli.types import Conditioning

ReferencePlace = Literal["every-frame", "first-frame"]
"""Where the reference latent stands in the image channels: beside every latent frame
(OmniAvatar), or beside latent frame 0 only, so that a stream has nothing else to hold on to."""

IMAGE_CONVENTIONS: dict[ReferencePlace, ImageConvention] = {
    "every-frame": "avatar",
    "first-frame": "avatar-first-frame",
}
"""What ``checkpoint.json`` calls each place."""


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
        mouths: Tracks of each clip ``(B, T, 4, M)``, NaN where unknown; ``None`` without any.
    """

    source: ClipSource
    reference_latent: Tensor
    mouths: Tensor | None = None

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of a latent frame."""
        channels, height, width = self.reference_latent.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.reference_latent)

    def stream(
        self, network: CausalTransformer, profile: SamplerSettings, *, seed: int,
        streams: Sequence[int], dtype: torch.dtype | None = None,
    ) -> Stream:  # fmt: skip
        """The sampler's streams, not begun; noise follows seed and stream, ``dtype`` the cache."""
        device = self.reference_latent.device
        return Stream.start(
            network,
            profile,
            source=self.source,
            noise=SeededNoise(seed, self.latent_shape, streams=streams, device=device),
            latent_shape=self.latent_shape,
            reference_latent=self.reference_latent,
            batch_size=len(self),
            dtype=dtype,
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


def clip_conditioning(
    clips: LatentClips, chosen: np.ndarray | Tensor, audio: Tensor, *, start: int,
    place: ReferencePlace,
) -> Conditioning:  # fmt: skip
    """Conditioning of clips from latent frame ``start`` on, with this audio ``(B, T, A, D)``."""
    kinds = ("text", "negative_text", "image_tokens", "face")
    present = {kind: value for kind in kinds if (value := getattr(clips, kind)) is not None}
    image = assemble_image_channels(
        clips.references[chosen].float(), start, start + audio.shape[1],
        convention=IMAGE_CONVENTIONS[place],
    )  # fmt: skip
    fixed = {kind: value[chosen].float() for kind, value in present.items()}
    return Conditioning(image=image, audio=audio.float(), **fixed)


def draw_rollout_batch(
    clips: LatentClips,
    rng: np.random.Generator,
    *,
    size: int,
    num_blocks: int,
    profile: SamplerSettings,
    streams: Sequence[int] | None = None,
    place: ReferencePlace = "every-frame",
) -> RolloutBatch:
    """Random clips with enough sound for ``num_blocks`` blocks.

    A rollout needs no true video, so where it is longer than its clip another clip's voice goes
    on: the picture stays, the sentence changes.

    Args:
        clips: To choose from.
        rng: The same in every process.
        size: Of the batch over all processes.
        num_blocks: Length.
        profile: Length of a block.
        streams: Samples of the batch that are wanted; all by default. Only they are read.
        place: Where the reference stands.
    """
    pool, wanted = start_clips(clips), list(range(size) if streams is None else streams)
    num_frames = profile.block_start(num_blocks)
    chosen = rng.choice(pool, size)
    voices, length = [chosen], clips.audio.shape[1]
    while length < num_frames:
        # Latent 0 of a clip owns a single video frame: the voice goes on with its second latent.
        voices.append(rng.choice(pool, size))
        length += clips.audio.shape[1] - 1
    parts = [clips.audio[voice[wanted]][:, bool(i) :] for i, voice in enumerate(voices)]
    audio = torch.cat([part.float() for part in parts], dim=1)[:, :num_frames]
    return rollout_batch(clips, chosen[wanted], audio, num_blocks, place=place)


def rollout_batch(
    clips: LatentClips,
    chosen: np.ndarray,
    audio: Tensor,
    num_blocks: int,
    *,
    place: ReferencePlace = "every-frame",
) -> RolloutBatch:
    """The batch of these clips with this audio, ``(B, T, A, D)``."""
    conditioning = clip_conditioning(clips, chosen, audio, start=0, place=place)
    return RolloutBatch(
        source=ClipSource(conditioning, num_blocks),
        reference_latent=clips.latents[chosen][:, 0].float(),
        mouths=_mouths(clips, chosen, audio.shape[1]),
    )


def _mouths(clips: LatentClips, chosen: np.ndarray, num_frames: int) -> Tensor | None:
    """Tracks of clips; where another clip's voice goes on they are unknown."""
    if clips.mouths is None:
        return None
    own = clips.mouths[chosen][:, :num_frames]
    missing = num_frames - own.shape[1]
    return torch.cat([own, own.new_full((len(own), missing, *own.shape[2:]), torch.nan)], 1)
