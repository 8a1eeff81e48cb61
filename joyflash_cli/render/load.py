"""The parts of a checkpoint in memory: modules with their weights, on a device, in a dtype."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyflash_cli.codec.config import TinyCodecConfig, WanCodecConfig
from joyflash_cli.description import SAME_EXPORT
from joyflash_cli.encoders.protocol import FrontEndConfig, Wav2Vec2FrontEnd
from joyflash_cli.errors import ConfigError
from joyflash_cli.render.placement import FAST_CODEC, Placement, fast_decoder_dtype
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    import torch

    from joyflash_cli.codec.protocol import Codec
    from joyflash_cli.encoders.protocol import AudioEncoder, StreamingEncoder
    from joyflash_cli.model.transformer import CausalTransformer


@dataclass(frozen=True)
class LoadedParts:
    """The parts of a checkpoint, with weights, ready to run.

    Attributes:
        transformer: In the run's dtype.
        codec: In float32.
        front_end: Sound to feature rows, in float32.
    """

    transformer: "CausalTransformer"
    codec: "Codec"
    front_end: "StreamingEncoder"


def load_parts(files: CheckpointFiles, placement: Placement) -> LoadedParts:
    """The parts of a checkpoint where they belong, made to compute as chosen.

    Raises:
        CheckpointError: When weights and description do not agree.
        ConfigError: When the description describes no such modules.
    """
    return LoadedParts(
        transformer=load_transformer(files, placement),
        codec=load_codec(files, placement),
        front_end=load_front_end(files, placement.device),
    )


def load_transformer(files: CheckpointFiles, placement: Placement) -> "CausalTransformer":
    """The transformer alone; see ``load_parts``."""
    import torch

    from joyflash_cli.model.transformer import CausalTransformer
    from joyflash_cli.weights.tensors import load_state_dict

    # On meta nothing is allocated or drawn at random before the weights arrive.
    with torch.device("meta"):
        transformer = CausalTransformer(files.description.transformer)
    load_state_dict(transformer, files.shards("transformer"), dtype=placement.dtype)
    transformer = transformer.to(placement.transformer_load_device).eval().requires_grad_(False)
    place_transformer(transformer, placement)
    return transformer


def load_codec(files: CheckpointFiles, placement: Placement) -> "Codec":
    """The codec alone; see ``load_parts``."""
    from joyflash_cli.conditioning.frames import num_image_channels

    description, device = files.description, placement.codec_device
    codec: Codec
    if placement.options.fast_decode and description.fast_codec_encodes:
        from joyflash_cli.codec.taehv import taehv_codec_from_state

        codec = taehv_codec_from_state(**_fast_weights(files, placement))
    else:
        config = description.codec
        codec = _CODECS[type(config)](config, files.shards("codec"), device)
    taken = description.transformer.image_channels
    convention = description.conditioning.image_convention
    made = num_image_channels(codec.latent_channels, convention)
    if taken not in (0, made):
        raise ConfigError(
            f"checkpoint.json: the transformer takes {taken} image channels; "
            f"codec and conditioning give {made}",
            hint="check transformer.in_channels and conditioning.image_convention",
        )
    return place_codec(files, codec, placement)


def load_front_end(files: CheckpointFiles, device: "torch.device") -> "StreamingEncoder":
    """The audio encoder alone; see ``load_parts``."""
    config = files.description.front_end
    return _FRONT_ENDS[type(config)](config, files.shards("front_end"), device)


def _load_own(
    config: TinyCodecConfig | FrontEndConfig, paths: tuple[Path, ...], device: "torch.device"
) -> Any:
    """A module of this package, made only once it is known that the files fill it."""
    import torch

    from joyflash_cli.codec.tiny import TinyCodec
    from joyflash_cli.encoders.front_end import FrontEnd
    from joyflash_cli.weights.tensors import check_state_dict

    make: Any = {TinyCodecConfig: TinyCodec, FrontEndConfig: FrontEnd}[type(config)]
    with torch.device("meta"):
        check_state_dict(make(config), paths)  # then it is no larger than they are
    return _filled(make(config), paths, device)


def _load_wan_codec(
    config: WanCodecConfig, paths: tuple[Path, ...], device: "torch.device"
) -> "Codec":
    import torch

    from joyflash_cli.codec.tiling import TiledWanCodec
    from joyflash_cli.codec.wan import WanCodec, wan_vae_module

    with torch.device("meta"), _built_from("codec"):
        module = wan_vae_module(config.settings)
    # diffusers' own ``to`` warns about layers it would keep in float32; this VAE has none.
    kind = TiledWanCodec if config.tiled else WanCodec
    return kind(torch.nn.Module.to(_filled(module, paths, None), device))


def _load_wav2vec2(
    front_end: Wav2Vec2FrontEnd, paths: tuple[Path, ...], device: "torch.device"
) -> "AudioEncoder":
    import torch

    from joyflash_cli.encoders.wav2vec2 import Wav2Vec2Encoder, wav2vec2_module

    with torch.device("meta"), _built_from("front_end"):
        module = wav2vec2_module(front_end.config)
    return Wav2Vec2Encoder(_filled(module, paths, device), front_end.options)


@contextlib.contextmanager
def _built_from(part: str) -> Iterator[None]:
    """Within it another library builds a module; whatever it refuses is a wrong description."""
    try:
        yield
    except _WRONG as error:
        text = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"checkpoint.json: {part} describes no such module: {text or type(error).__name__}",
            hint=SAME_EXPORT,
        ) from error


def _filled(module: Any, paths: tuple[Path, ...], device: "torch.device | None") -> Any:
    """A module that computes in float32, with its weights."""
    import torch

    from joyflash_cli.weights.tensors import load_state_dict

    load_state_dict(module, paths, dtype=torch.float32)
    module = module.eval().requires_grad_(False)
    return module if device is None else module.to(device)


def place_transformer(transformer: "CausalTransformer", placement: Placement) -> None:
    """Quantize, move or offload, choose kernels, and pack for a CPU, in place."""
    from joyflash_cli.model.attention import use_backend
    from joyflash_cli.model.offloading import offload_linear_maps
    from joyflash_cli.model.packing import pack_linear_maps

    use_backend(transformer, placement.options.attention)  # type: ignore[arg-type]
    if placement.options.quantize != "none":
        from joyflash_cli.model.quantization import quantize_layers

        quantize_layers(transformer.layers, placement.options.quantize)
    if placement.offloads_layers:
        offload_linear_maps(transformer.layers, placement.device)
        for name, child in transformer.named_children():
            if name != "layers":
                child.to(placement.device)
        for parameter in transformer.parameters(recurse=False):
            parameter.data = parameter.data.to(placement.device)
        for name, buffer in transformer.named_buffers(recurse=False):
            transformer.register_buffer(name, buffer.to(placement.device))
    else:
        transformer.to(placement.device)
    if placement.packs_layers:
        pack_linear_maps(transformer.layers)
    if placement.options.compile:
        compile_layers(transformer)


def compile_layers(transformer: "CausalTransformer", backend: str = "inductor") -> None:
    """Compile every layer in place; they share one piece of compiled code.

    Sizes are left open, so that one graph serves all layers and passes; the first pass of a stream,
    which has no cache to attend yet, has another.
    """
    for layer in transformer.layers:
        layer.compile(backend=backend, dynamic=True)


def place_codec(files: CheckpointFiles, codec: "Codec", placement: Placement) -> "Codec":
    """The codec, reachable from the transformer's device.

    With its fast decoder where that is asked for; the embedded model's in bfloat16 where the
    transformer is and the processor has instructions for it.
    """
    from joyflash_cli.codec.protocol import PlacedCodec
    from joyflash_cli.codec.tiny import TinyCodec
    from joyflash_cli.render.device import has_bfloat16

    device = placement.codec_device
    is_half = placement.dtype_name == "bfloat16"
    if isinstance(codec, TinyCodec) and device.type == "cpu" and is_half and has_bfloat16(device):
        codec.halve()
    if placement.options.fast_decode and not files.description.fast_codec_encodes:
        from joyflash_cli.codec.taehv import FastDecodeCodec, taehv_from_state

        codec = FastDecodeCodec(codec, taehv_from_state(**_fast_weights(files, placement)))
    if placement.codec_device != placement.device:
        codec = PlacedCodec(codec, device=placement.codec_device, home=placement.device)
    return codec


def _fast_weights(files: CheckpointFiles, placement: Placement) -> dict[str, Any]:
    """The tiny decoder's weights, where and in which number format they are used."""
    from joyflash_cli.weights.tensors import read_tensors

    device = placement.codec_device
    dtype = fast_decoder_dtype(device)
    return {"state": read_tensors(files.shards(FAST_CODEC)), "dtype": dtype, "device": device}


_CODECS: dict[type, Any] = {TinyCodecConfig: _load_own, WanCodecConfig: _load_wan_codec}
_FRONT_ENDS: dict[type, Any] = {FrontEndConfig: _load_own, Wav2Vec2FrontEnd: _load_wav2vec2}

_WRONG = (
    TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError,
)  # fmt: skip
