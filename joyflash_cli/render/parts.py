"""The parts of a checkpoint in memory: modules with their weights, on a device, in a dtype."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyflash_cli.config import from_dict
from joyflash_cli.errors import ConfigError
from joyflash_cli.render.devices import DTYPES, choose_device, choose_dtype
from joyflash_cli.render.foreign_sections import foreign_section
from joyflash_cli.render.request import read_sampler_profile
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    import torch

    from joyflash_cli.codec.protocol import Codec
    from joyflash_cli.conditioning.audio_windows import AudioWindowRule
    from joyflash_cli.conditioning.config import ConditioningConfig
    from joyflash_cli.conditioning.reference import ImageConvention
    from joyflash_cli.encoders.protocol import AudioEncoder, StreamingEncoder
    from joyflash_cli.model.config import TransformerConfig
    from joyflash_cli.model.transformer import CausalTransformer
    from joyflash_cli.sampler.settings import SamplerSettings

__all__ = ["DTYPES", "LoadedParts", "choose_device", "choose_dtype", "load_parts"]


@dataclass(frozen=True)
class LoadedParts:
    """The parts of a checkpoint, with weights, ready to run.

    Attributes:
        transformer: In the run's dtype.
        codec: In float32.
        front_end: Sound to feature rows, in float32.
        sampler: The checkpoint's sampler settings.
        audio_windows: Which rows each latent frame hears.
        image_convention: How the reference latents are concatenated.
    """

    transformer: "CausalTransformer"
    codec: "Codec"
    front_end: "StreamingEncoder"
    sampler: "SamplerSettings"
    audio_windows: "AudioWindowRule"
    image_convention: "ImageConvention"


def load_parts(
    files: CheckpointFiles,
    device: "torch.device",
    dtype: "torch.dtype",
    *,
    transformer_device: "torch.device | None" = None,
    codec_device: "torch.device | None" = None,
) -> LoadedParts:
    """The modules of a checkpoint with their weights.

    Args:
        files: The checkpoint.
        device: Where the parts go.
        dtype: Of the transformer.
        transformer_device: Where the transformer goes instead.
        codec_device: Where the codec goes instead.

    Raises:
        CheckpointError: When weights and description do not agree.
        ConfigError: When the description has an unknown or wrong entry.
    """
    import torch

    from joyflash_cli.model.config import TransformerConfig
    from joyflash_cli.model.transformer import CausalTransformer
    from joyflash_cli.render.static import read_conditioning
    from joyflash_cli.weights.state_dict import load_state_dict

    config = from_dict(
        TransformerConfig, files.section("transformer"), path="checkpoint.json: transformer"
    )
    # On meta nothing is allocated or drawn at random before the weights arrive.
    with torch.device("meta"):
        transformer = CausalTransformer(config)
    load_state_dict(transformer, files.shards("transformer"), dtype=dtype)
    conditioning = read_conditioning(files)
    codec = _load_by_kind(_CODECS, "codec", files, codec_device or device)
    _check_image_channels(config, codec, conditioning)
    return LoadedParts(
        transformer=transformer.to(transformer_device or device).eval().requires_grad_(False),
        codec=codec,
        front_end=_load_by_kind(_FRONT_ENDS, "front_end", files, device),
        sampler=read_sampler_profile(files),
        audio_windows=conditioning.audio_windows,
        image_convention=conditioning.image_convention,
    )


def _check_image_channels(
    transformer: "TransformerConfig", codec: "Codec", conditioning: "ConditioningConfig"
) -> None:
    from joyflash_cli.conditioning.reference import num_image_channels

    made = num_image_channels(codec.latent_channels, conditioning.image_convention)
    if transformer.image_channels not in (0, made):
        raise ConfigError(
            f"checkpoint.json: the transformer takes {transformer.image_channels} image channels; "
            f"codec and conditioning give {made}",
            hint="check transformer.in_channels and conditioning.image_convention",
        )


def _load_by_kind(
    loaders: Mapping[str, Callable[..., Any]],
    part: str,
    files: CheckpointFiles,
    device: "torch.device",
) -> Any:
    """A part by the ``kind`` that its section states; the first kind where it states none."""
    section = dict(files.section(part))
    kind = section.pop("kind", next(iter(loaders)))
    if not isinstance(kind, str) or kind not in loaders:
        raise ConfigError(
            f"checkpoint.json: {part}.kind is {kind!r:.80}", hint=f"one of {', '.join(loaders)}"
        )
    return loaders[kind](section, files.shards(part), device)


def _load_tiny_codec(
    section: dict[str, Any], paths: tuple[Path, ...], device: "torch.device"
) -> "Codec":
    from joyflash_cli.codec.tiny import TinyCodec, TinyCodecConfig

    config = from_dict(TinyCodecConfig, section, path="checkpoint.json: codec")
    return _filled(_checked(lambda: TinyCodec(config), paths), paths, device)


def _load_wan_codec(
    section: dict[str, Any], paths: tuple[Path, ...], device: "torch.device"
) -> "Codec":
    import torch

    from joyflash_cli.codec.wan import WanCodec, wan_vae_module

    with torch.device("meta"), foreign_section("codec", section):
        module = wan_vae_module(section)
    # diffusers' own ``to`` warns about layers it would keep in float32; this VAE has none.
    return WanCodec(torch.nn.Module.to(_filled(module, paths, None), device))


def _load_front_end(
    section: dict[str, Any], paths: tuple[Path, ...], device: "torch.device"
) -> "AudioEncoder":
    from joyflash_cli.encoders.front_end import FrontEnd, FrontEndConfig

    config = from_dict(FrontEndConfig, section, path="checkpoint.json: front_end")
    return _filled(_checked(lambda: FrontEnd(config), paths), paths, device)


def _load_wav2vec2(
    section: dict[str, Any], paths: tuple[Path, ...], device: "torch.device"
) -> "AudioEncoder":
    import torch

    from joyflash_cli.encoders.wav2vec2 import Wav2Vec2Encoder, Wav2Vec2Options
    from joyflash_cli.encoders.wav2vec2_weights import wav2vec2_module

    options = from_dict(
        Wav2Vec2Options, section.get("options", {}), path="checkpoint.json: front_end.options"
    )
    with torch.device("meta"), foreign_section("front_end", section):
        module = wav2vec2_module(section.get("config", {}))
    return Wav2Vec2Encoder(_filled(module, paths, device), options)


def _checked(make: Callable[[], Any], paths: tuple[Path, ...]) -> Any:
    """A module, made only once it is known that the files fill it: then it is no larger."""
    import torch

    from joyflash_cli.weights.state_dict import check_state_dict

    with torch.device("meta"):
        check_state_dict(make(), paths)
    return make()


def _filled(module: Any, paths: tuple[Path, ...], device: "torch.device | None") -> Any:
    """A module that computes in float32, with its weights."""
    import torch

    from joyflash_cli.weights.state_dict import load_state_dict

    load_state_dict(module, paths, dtype=torch.float32)
    module = module.eval().requires_grad_(False)
    return module if device is None else module.to(device)


_CODECS: dict[str, Any] = {"tiny": _load_tiny_codec, "wan": _load_wan_codec}
_FRONT_ENDS: dict[str, Any] = {"log-mel": _load_front_end, "wav2vec2": _load_wav2vec2}
