"""A toy network, codec and sound for segments, small enough for many of them."""

import torch
from torch import Tensor

from joyflash_cli.model.config import AudioProjectorConfig, TransformerConfig
from joyflash_cli.model.initialisation import initialise
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.segment_settings import SegmentSettings
from joyflash_cli.sampler.segments import SegmentStream
from joyflash_cli.types import Conditioning

CHANNELS, SIDE = 3, 2
CONFIG = TransformerConfig(
    dim=16, num_layers=1, num_heads=2, ffn_dim=16, freq_dim=8, in_channels=6, out_channels=3,
    audio_projector=AudioProjectorConfig(audio_dim=2, hidden_dim=4, num_tokens=2, output_dim=16),
)  # fmt: skip


class PlainCodec:
    """Latent 4f of a frame clip is frame 4f, seen from afar; remembers what it was given."""

    latent_channels, spatial_stride = CHANNELS, 8

    def __init__(self) -> None:
        self.encoded: list[Tensor] = []

    def encode(self, frames: Tensor, reference: Tensor) -> Tensor:
        self.encoded.append(frames)
        return frames[:, ::4, :, :: self.spatial_stride, :: self.spatial_stride]

    def start_decoding(self, reference: Tensor) -> None:
        return None

    def decode(self, latents: Tensor, state: None) -> tuple[Tensor, None]:
        large = latents.repeat_interleave(8, dim=-1).repeat_interleave(8, dim=-2)
        return large.repeat_interleave(4, dim=1)[:, 3:].tanh(), None


class ToySource:
    """Audio drawn per latent frame, and the reference's latents."""

    def __init__(self, num_blocks: int, latents: Tensor) -> None:
        self.num_blocks, self.latents = num_blocks, latents

    def has_block(self, block_index: int) -> bool:
        return block_index < self.num_blocks

    def frames(self, start: int, stop: int) -> Conditioning:
        rows = [
            torch.randn(8, 2, generator=torch.Generator().manual_seed(frame))
            for frame in range(start, stop)
        ]
        return Conditioning(image=self.latents, audio=torch.stack(rows)[None])


def toy_segments(settings: SegmentSettings, num_blocks: int = 2, *, seed: int = 0) -> SegmentStream:
    """A stream of random weights."""
    generator = torch.Generator().manual_seed(0)
    model = initialise(CausalTransformer(CONFIG), generator).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    codec = PlainCodec()
    reference = torch.rand(1, 3, 16, 16, generator=generator) * 2 - 1
    clip = reference[:, None].expand(-1, settings.segment_video_frames, -1, -1, -1)
    latents = codec.encode(clip, reference)
    codec.encoded.clear()
    source = ToySource(num_blocks, latents)
    noise = SeededNoise(seed, (CHANNELS, SIDE, SIDE))
    return SegmentStream(model, settings, source, noise, codec, reference, latents)
