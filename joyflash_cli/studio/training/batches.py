"""What a rollout starts from: picture, first latent and voices of encoded clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.stream import Stream
from joyflash_cli.studio.training.latents import LatentClips, ReferencePlace
from joyflash_cli.types import Conditioning


@dataclass(frozen=True)
class RolloutBatch:
    """Clips as streams that start together; what a stream asks for its conditioning.

    Attributes:
        conditioning: Of latent frames 0 on; what has frames covers all of them.
        num_blocks: Length of the streams.
        reference_latent: ``(B, C, H, W)``, latent frame 0 where the profile replaces it.
        place: Where the reference stands in ``conditioning.image``.
        mouths: Tracks of each clip ``(B, T, 4, M)``, NaN where unknown; ``None`` without any.
    """

    conditioning: Conditioning
    num_blocks: int
    reference_latent: Tensor
    place: ReferencePlace = "every-frame"
    mouths: Tensor | None = None

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of a latent frame."""
        channels, height, width = self.reference_latent.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.reference_latent)

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

    def noise(self, seed: int, streams: Sequence[int]) -> SeededNoise:
        """Noise of these streams, which follows the seed and the stream's number alone."""
        device = self.reference_latent.device
        return SeededNoise(seed, self.latent_shape, streams=streams, device=device)

    def stream(
        self, network: CausalTransformer, profile: SamplerSettings, *, seed: int,
        streams: Sequence[int], dtype: torch.dtype | None = None,
    ) -> Stream:  # fmt: skip
        """The sampler's streams, not begun; ``dtype`` is the cache's."""
        return Stream.start(
            network,
            profile,
            source=self,
            noise=self.noise(seed, streams),
            latent_shape=self.latent_shape,
            reference_latent=self.reference_latent,
            batch_size=len(self),
            dtype=dtype,
        )


def draw_rollout_batch(
    clips: LatentClips,
    rng: np.random.Generator,
    *,
    size: int,
    num_blocks: int,
    profile: SamplerSettings,
    streams: Sequence[int],
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
        streams: Samples of the batch that are wanted; only they are read.
    """
    pool, wanted = clips.starts(), list(streams)
    num_frames = profile.block_start(num_blocks)
    chosen = rng.choice(pool, size)
    voices, length = [chosen], clips.audio.shape[1]
    while length < num_frames:
        # Latent 0 of a clip owns a single video frame: the voice goes on with its second latent.
        voices.append(rng.choice(pool, size))
        length += clips.audio.shape[1] - 1
    parts = [clips.audio[voice[wanted]][:, bool(i) :] for i, voice in enumerate(voices)]
    audio = torch.cat([part.float() for part in parts], dim=1)[:, :num_frames]
    return rollout_batch(clips, chosen[wanted], audio, num_blocks)


def rollout_batch(
    clips: LatentClips, chosen: np.ndarray, audio: Tensor, num_blocks: int
) -> RolloutBatch:
    """The batch of these clips with this audio ``(B, T, A, D)``.

    Where another clip's voice goes on, mouths are unknown.
    """
    mouths = None
    if clips.mouths is not None:
        own = clips.mouths[chosen][:, : audio.shape[1]]
        missing = own.new_full(
            (*own.shape[:1], audio.shape[1] - own.shape[1], *own.shape[2:]), torch.nan
        )
        mouths = torch.cat([own, missing], 1)
    return RolloutBatch(
        conditioning=clips.conditioning(chosen, audio, start=0),
        num_blocks=num_blocks,
        reference_latent=clips.latents[chosen][:, 0].float(),
        place=clips.place,
        mouths=mouths,
    )
