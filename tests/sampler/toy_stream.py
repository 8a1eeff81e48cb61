"""A toy transformer and a toy stream, small enough for hundreds of blocks."""

import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from joyflash_cli.model.config import AudioAttentionConfig, TransformerConfig
from joyflash_cli.model.initialisation import initialise
from joyflash_cli.model.transformer import CausalTransformer, TransformerOutput
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.psb import noise_levels, scheduled_iterations
from joyflash_cli.sampler.settings import PAPER, SamplerSettings
from joyflash_cli.sampler.stream import PassResult, Stream
from joyflash_cli.sampler.window import WindowBlock
from joyflash_cli.types import Conditioning, LatentBlock

SHAPE = (4, 2, 4)
TOKENS = 2
CONFIG = TransformerConfig(
    dim=24, num_layers=2, num_heads=2, ffn_dim=32, freq_dim=16, in_channels=4, out_channels=4,
    audio_attention=AudioAttentionConfig(audio_dim=3, tokens_per_latent=2, projection_dim=12),
)  # fmt: skip

ROLLING = dataclasses.replace(PAPER, psb=False, sub_steps=(), mci=False)
"""The paper's window without its two additions."""


def toy_transformer(seed: int = 0) -> CausalTransformer:
    """Random weights everywhere, scaled so that streams stay bounded."""
    generator = torch.Generator().manual_seed(seed)
    model = initialise(CausalTransformer(CONFIG), generator).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


class ToySource:
    """Audio drawn per latent frame; remembers what was asked."""

    def __init__(self, num_blocks: int, *, streams: tuple[int, ...] = (0,)) -> None:
        self.num_blocks = num_blocks
        self.streams = streams
        self.asked: list[tuple[int, int]] = []

    def has_block(self, block_index: int) -> bool:
        return block_index < self.num_blocks

    def frames(self, start: int, stop: int) -> Conditioning:
        self.asked.append((start, stop))
        rows = [
            torch.stack([
                torch.randn(2, 3, generator=torch.Generator().manual_seed(1000 * stream + frame))
                for frame in range(start, stop)
            ])
            for stream in self.streams
        ]  # fmt: skip
        return Conditioning(audio=torch.stack(rows))


class FakeTransformer(CausalTransformer):
    """A model with a known answer: its clean prediction is ``answer(timesteps)``."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__(dataclasses.replace(CONFIG, prediction="clean"))
        self.answer = answer
        self.timesteps: list[Tensor] = []
        self.latents: list[Tensor] = []

    def forward(self, latents, timesteps, conditioning, *, positions, context, static, **_keep):
        self.timesteps.append(timesteps)
        self.latents.append(latents)
        clean = self.answer(timesteps)[..., None, None, None].expand_as(latents).clone()
        tokens = torch.zeros(latents.shape[0], latents.shape[1] * TOKENS, 2, 12)
        return TransformerOutput(clean, ((tokens, tokens),) * self.config.num_layers)


def toy_stream(settings: SamplerSettings, num_blocks: int, *, seed: int = 0, **changes) -> Stream:
    """A stream of ``num_blocks`` blocks; ``changes`` go to ``Stream.start``."""
    parts = {
        "transformer": toy_transformer(),
        "source": ToySource(num_blocks),
        "noise": SeededNoise(seed, SHAPE),
        "latent_shape": SHAPE,
        "reference_latent": torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(9)),
    } | changes
    return Stream.start(parts.pop("transformer"), settings, **parts)


def watched(stream: Stream) -> Iterator[tuple[list[WindowBlock], PassResult, LatentBlock | None]]:
    """The stream's iterations: the window before, what the joint pass gave, the clean block."""
    while True:
        stream.admit_block()
        if not stream.window:
            return
        window, result = list(stream.window), stream.window_pass()
        yield window, result, stream.finish_iteration(result)


def block_timesteps(block_index: int, profile: SamplerSettings) -> tuple[float, ...]:
    """Timesteps at which one block of an endless stream is denoised, noisiest first.

    Args:
        block_index: From 0.
        profile: The paper's gives 8 timesteps for block 0 and 4 from block 4 on.
    """
    levels = noise_levels(profile)
    timesteps = []
    for iteration in scheduled_iterations(block_index + profile.num_window_blocks + 1, profile):
        if block_index in iteration.levels:
            timesteps.append(levels[iteration.levels[block_index][0]].timestep)
    return tuple(timesteps)
