"""A stream in its steady state without weights or inputs: to measure what a pass takes."""

import itertools
from collections.abc import Iterator

import torch

from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.render.operations import empty_conditioning
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.segment_settings import AnySettings, SegmentSettings
from joyflash_cli.sampler.segments import SegmentStream
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.stream import Stream
from joyflash_cli.sampler.window import WindowBlock
from joyflash_cli.types import Conditioning


def random_transformer(
    config: TransformerConfig, dtype: torch.dtype, device: "torch.device | str" = "cpu"
) -> CausalTransformer:
    """A transformer that never existed in another number format than its own."""
    with torch.device("meta"):
        transformer = CausalTransformer(config).to(dtype)
    transformer = transformer.to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in transformer.named_parameters():
        if name.endswith("norm.weight"):
            parameter.fill_(1)
        else:
            parameter.normal_(std=0.02, generator=generator)
    return transformer


class SilentSource:
    """Conditioning of the right shapes for any frames: zeros, without an end.

    Args:
        config: Of the transformer.
        grid: Rows and columns of a latent frame.
        device: Where it is needed.
    """

    def __init__(
        self,
        config: TransformerConfig,
        grid: tuple[int, int],
        device: "torch.device | str" = "cpu",
    ) -> None:
        self._config, self._grid, self._device = config, grid, device

    def has_block(self, block_index: int) -> bool:
        """The stream never ends."""
        return True

    def frames(self, start: int, stop: int) -> Conditioning:
        """Conditioning of latent frames ``start <= i < stop``."""
        with torch.device(self._device):
            return empty_conditioning(self._config, stop - start, self._grid, dtype=torch.float32)


def steady_blocks(
    transformer: CausalTransformer,
    settings: AnySettings,
    grid: tuple[int, int],
    *,
    device: "torch.device | str" = "cpu",
) -> Iterator[None]:
    """Endless: the transformer's work alone, one item for each block or segment that is clean."""
    if not isinstance(settings, SegmentSettings):
        stream = steady_stream(transformer, settings, grid, device=device)
        yield from (None for block in stream.iterate() if block is not None)
        return
    config = transformer.config
    shape = (config.out_channels, *grid)
    known = torch.zeros(1, settings.segment_frames, *shape, device=device)
    segments = SegmentStream(
        transformer,
        settings,
        SilentSource(config, grid, device),
        SeededNoise(0, shape, device=device),
        None,
        known[:, 0],
        known,
    )
    for index in itertools.count():
        segments.denoised(index, known[:, : settings.overlap_frames])
        yield None


def steady_stream(
    transformer: CausalTransformer,
    settings: SamplerSettings,
    grid: tuple[int, int],
    *,
    device: "torch.device | str" = "cpu",
) -> Stream:
    """A stream with a full cache and a full window, whose first block is about to become clean."""
    config = transformer.config
    shape = (config.out_channels, *grid)
    noise = SeededNoise(0, shape, device=device)
    reference = None
    if settings.first_frame_rule != "none":
        reference = torch.zeros(1, *shape, device=device)
    stream = Stream.start(
        transformer,
        settings,
        source=SilentSource(config, grid, device),
        noise=noise,
        latent_shape=shape,
        reference_latent=reference,
    )
    block_tokens = settings.block_frames * config.tokens_per_frame(*grid)
    # Drawn on the CPU: the same on every device, and for any number of ranks.
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(1, block_tokens, config.num_heads, config.head_dim, generator=generator)
    ranks, heads = transformer.ranks, transformer.num_own_heads
    first = 0 if ranks is None else ranks.rank * heads
    keys = keys[:, :, first : first + heads].to(transformer.patch_embedding.weight)
    num_clean = -(-(settings.sink_frames + settings.context_frames) // settings.block_frames) + 1
    for index in range(num_clean):
        stream.cache.append(((keys, keys),) * config.num_layers, settings.block_start(index))
    del keys
    stride = settings.clean_level // settings.num_window_blocks
    stream.window = [
        WindowBlock(
            num_clean + place,
            noise.initial(num_clean + place, settings.block_frames),
            level=settings.clean_level - stride * place - 2,
        )
        for place in range(settings.num_window_blocks)
    ]
    stream.num_emitted = num_clean
    stream.next_block = num_clean + settings.num_window_blocks
    stream.clean_block = noise.initial(num_clean - 1, settings.block_frames)
    return stream
