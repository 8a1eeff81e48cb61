"""Multiplications and additions of a pass, counted from shapes alone, and what a device can do.

Networks stand on the meta device: nothing is allocated or computed. Operations are those of matrix
products and attention, a multiplication and an addition as two, as makers of devices count them.
"""

import functools
from dataclasses import replace
from typing import NamedTuple

import torch

from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer, Context
from joyflash_cli.render.memory import CLIP_TOKENS
from joyflash_cli.sampler.segment_settings import AnySettings, SegmentSettings
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.urcr import PassKind, attended_frames
from joyflash_cli.types import Conditioning

PEAK_TFLOPS = (
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("H800", 989.0),
    ("H200", 989.0),
    ("B200", 2250.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("L40S", 362.0),
    ("L4", 121.0),
    ("RTX 5090", 209.5),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
)
"""Dense operations per second in bfloat16 with sums in float32, as NVIDIA states them; the first
name that the device's own contains counts."""


class PassShape(NamedTuple):
    """Size of one forward pass, in latent frames.

    Attributes:
        frames: Own frames, the condition frame included.
        context: Frames whose keys and values are given.
    """

    frames: int
    context: int


def meta_transformer(config: TransformerConfig) -> CausalTransformer:
    """The network without numbers, in bfloat16."""
    with torch.device("meta"):
        return CausalTransformer(config).to(torch.bfloat16)


def meta_pass(
    network: CausalTransformer,
    shape: PassShape,
    latent_size: tuple[int, int],
    *,
    static: bool = False,
    count: bool = False,
) -> float:
    """Runs one pass on the meta device.

    Args:
        network: From ``meta_transformer``.
        shape: Of the pass.
        latent_size: Rows and columns of a latent frame.
        static: Whether keys and values of text, picture and face are there already.
        count: Whether operations are counted.

    Returns:
        The operations; 0 uncounted.
    """
    import contextlib

    from torch.utils.flop_counter import FlopCounterMode

    config, (height, width) = network.config, latent_size
    counter = FlopCounterMode(display=False) if count else None
    with torch.device("meta"):
        context = None
        if shape.context:
            tokens = shape.context * config.tokens_per_frame(height, width)
            one = torch.zeros(1, tokens, config.num_heads, config.head_dim, dtype=torch.bfloat16)
            layers = tuple((one, one) for _ in range(config.num_layers))
            context = Context(layers, torch.arange(shape.context))
        latents = torch.zeros(
            1, shape.frames, config.out_channels, height, width, dtype=torch.bfloat16
        )
        conditioning = empty_conditioning(config, shape.frames, latent_size)
        projected = network.project_static(conditioning) if static else None
        with counter or contextlib.nullcontext():
            network(
                latents,
                torch.zeros(1, shape.frames),
                conditioning,
                positions=torch.arange(shape.frames),
                context=context,
                static=projected,
            )
    return 0.0 if counter is None else float(counter.get_total_flops())


def empty_conditioning(
    config: TransformerConfig,
    frames: int,
    latent_size: tuple[int, int],
    *,
    dtype: torch.dtype = torch.bfloat16,
) -> Conditioning:
    """Zeros of every kind that the network takes, on the present device."""
    sizes: dict[str, tuple[int, ...]] = {}
    if config.image_channels:
        sizes["image"] = (1, frames, config.image_channels, *latent_size)
    if config.text_dim is not None:
        sizes["text"] = (1, config.text_len, config.text_dim)
    if config.image_token_dim is not None:
        sizes["image_tokens"] = (1, CLIP_TOKENS, config.image_token_dim)
    if config.audio_attention is not None:
        audio = config.audio_attention
        sizes["audio"] = (1, frames, audio.tokens_per_latent, audio.audio_dim)
    elif config.audio_projector is not None:
        projector = config.audio_projector
        sizes["audio"] = (1, frames, projector.rows_per_latent, projector.audio_dim)
    elif config.audio_pack is not None:
        pack = config.audio_pack
        sizes["audio"] = (1, frames, pack.rows_per_latent, pack.audio_dim)
    if config.face_attention is not None:
        sizes["face"] = (1, config.face_attention.face_dim)
    return Conditioning(**{kind: torch.zeros(size, dtype=dtype) for kind, size in sizes.items()})


def window_shape(settings: AnySettings) -> PassShape:
    """The joint pass over a full window behind a full cache, or over a segment."""
    if isinstance(settings, SegmentSettings):
        return PassShape(settings.segment_frames, 0)
    context = _attended(settings, "window", settings.window_frames)
    return PassShape(settings.window_frames + int(settings.mci), context)


def clean_shape(settings: SamplerSettings) -> PassShape:
    """The pass that makes a finished block's keys and values."""
    return PassShape(settings.block_frames, _attended(settings, "clean", settings.block_frames))


def _attended(settings: SamplerSettings, kind: PassKind, num_own: int) -> int:
    held = {"num_sink": settings.sink_frames, "num_context": settings.context_frames}
    return sum(attended_frames(settings, kind, num_own=num_own, **held))


def block_passes(settings: AnySettings) -> list[tuple[int, PassShape]]:
    """Of one block in the steady state: its share of window passes, and its clean pass."""
    passes = [(settings.passes_per_block, window_shape(settings))]
    if isinstance(settings, SamplerSettings) and settings.clean_kv != "last-pass":
        passes.append((1, clean_shape(settings)))
    return passes


def block_operations(
    config: TransformerConfig, settings: AnySettings, latent_size: tuple[int, int]
) -> float:
    """Of one block in the steady state."""
    return sum(
        number * pass_operations(config, shape, latent_size, static=True)
        for number, shape in block_passes(settings)
    )


@functools.lru_cache(maxsize=256)  # a rollout's passes are few, and asked for again and again
@torch.no_grad()
def pass_operations(
    config: TransformerConfig,
    shape: PassShape,
    latent_size: tuple[int, int],
    *,
    static: bool = False,
) -> float:
    """Of one forward pass; see ``meta_pass``."""

    def counted(num_layers: int) -> float:
        network = meta_transformer(replace(config, num_layers=num_layers))
        return meta_pass(network, shape, latent_size, static=static, count=True)

    if config.audio_pack is not None:  # its layers are not all alike
        return counted(config.num_layers)
    one, two = counted(1), counted(2)
    return one + (config.num_layers - 1) * (two - one)


def peak_operations(device_name: str, dtype: torch.dtype) -> tuple[float | None, str]:
    """Operations per second that a device can do at most, or why that is not known."""
    if dtype not in (torch.bfloat16, torch.float16):
        return None, f"no peak is listed for {str(dtype).removeprefix('torch.')}"
    for name, tflops in PEAK_TFLOPS:
        if name.lower() in device_name.lower():
            return tflops * 1e12, ""
    return None, f"no peak is listed for {device_name}"
