"""``checkpoint.json``, parsed once: what a checkpoint's weights are and how they are used.

Sizes, sampling and inputs travel with the weights as one JSON object with a section for each part.
Here it becomes one frozen value, checked entry by entry before any weights are read; nothing else
looks at the JSON. Sections that other libraries build their modules from stay tables of arguments:
those libraries trust their arguments, so numbers beyond anything that could be built are refused.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyflash_cli.codec.config import CodecConfig, TinyCodecConfig, WanCodecConfig
from joyflash_cli.conditioning.config import ConditioningConfig
from joyflash_cli.config import from_dict
from joyflash_cli.encoders.protocol import (
    AudioEncoderConfig,
    FrontEndConfig,
    Wav2Vec2FrontEnd,
    Wav2Vec2Options,
)
from joyflash_cli.errors import CheckpointError, ConfigError
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.sampler.segment_settings import AnySettings, SegmentSettings
from joyflash_cli.sampler.settings import SamplerSettings

if TYPE_CHECKING:
    from joyflash_cli.media.inputs.framing import Framing

PARTS = ("transformer", "codec", "front_end")
"""Parts that every checkpoint has: ``<part>.safetensors`` and a section of the description."""

OPTIONAL_PARTS = ("text_encoder", "image_encoder", "face_encoder", "fast_codec", "prompt_embedding")
"""Parts that a checkpoint may have: those of full-size models."""

FORMAT = 1
MAX_BYTES = 1 << 20
MAX_TEXT_CHARS = 500

MAX_NUMBER = 1 << 17
"""In sections of other libraries: above any width or kernel in use."""

MAX_REPEATS = 512
"""Likewise of layers, blocks and entries of a list."""

SAME_EXPORT = "the weights and checkpoint.json must come from the same export"

_SECTIONS = (*PARTS, "sampler", "framing")
_OPTIONAL_SECTIONS = ("conditioning", *OPTIONAL_PARTS)
_TEXTS = ("name", "version", "licence")
_KEYS = {"format", "note", *_TEXTS, *_SECTIONS, *_OPTIONAL_SECTIONS}


@dataclass(frozen=True)
class Description:
    """Everything that a checkpoint says of itself.

    Attributes:
        name: The checkpoint's own name.
        version: Its own version.
        licence: Of the weights.
        transformer: Sizes and branches of the network.
        codec: Which codec makes latents and frames, and its sizes.
        front_end: Which encoder hears the sound, and its sizes.
        sampler: How a stream is sampled.
        framing: By face in a square, or by allowed sizes.
        conditioning: How pictures, sound and text become conditioning.
        text_encoder: Arguments of its configuration in transformers; empty without one.
        image_encoder: Likewise of the picture tower.
        fast_codec_encodes: Whether the tiny codec encodes, too, and is what the checkpoint was
            trained to be used with.
        stated: The sections as the file states them: what a checkpoint is known by.
    """

    name: str
    version: str
    licence: str
    transformer: TransformerConfig
    codec: CodecConfig
    front_end: AudioEncoderConfig
    sampler: AnySettings
    framing: "Framing"
    conditioning: ConditioningConfig
    text_encoder: Mapping[str, Any]
    image_encoder: Mapping[str, Any]
    fast_codec_encodes: bool
    stated: Mapping[str, Mapping[str, Any]]

    @property
    def hears_text(self) -> bool:
        """Whether the transformer attends a text prompt."""
        return self.transformer.text_dim is not None

    def with_sampler(self, settings: AnySettings) -> "Description":
        """The same checkpoint, sampled in another way; it is known by that, too."""
        stated = {**self.stated, "sampler": settings.to_dict()}
        return replace(self, sampler=settings, stated=stated)


def read_description(file: Path) -> Description:
    """The description of a checkpoint directory, from its ``checkpoint.json``.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED`` when it cannot be read or is no description.
        ConfigError: For an unknown key or a wrong value.
    """
    try:
        if file.stat().st_size > MAX_BYTES:
            raise _damaged(file, f"larger than {MAX_BYTES} bytes")
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{file} cannot be read: {error.strerror or error}",
            hint="check its permissions, or give another directory with --checkpoint",
            code="E-CHECKPOINT-DAMAGED",
        ) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(file, f"not JSON: {error}") from error
    _check_outline(file, values)
    texts = {key: str(values.get(key, "")) for key in _TEXTS}
    texts["name"] = str(values.get("name", file.parent.name))
    stated = {name: values.get(name, {}) for name in (*_SECTIONS, *_OPTIONAL_SECTIONS)}
    return parse_description(stated, **texts)


def parse_description(
    stated: Mapping[str, Mapping[str, Any]], *, name: str, version: str = "", licence: str = ""
) -> Description:
    """The description of sections as a file states them.

    Args:
        stated: Every required section, and those optional ones that there are.
        name: Of the checkpoint.
        version: Its own.
        licence: Of the weights.

    Raises:
        ConfigError: For an unknown key or a wrong value.
    """
    # Late: framing a picture needs numpy, listing checkpoints does not.
    from joyflash_cli.media.inputs.framing import FramingRule, SizeRule

    def section(kind: type, name: str) -> Any:
        return from_dict(kind, stated.get(name, {}), path=f"checkpoint.json: {name}")

    by_face = "eyes_to_mouth" in stated["framing"]
    description = Description(
        name=name,
        version=version,
        licence=licence,
        transformer=section(TransformerConfig, "transformer"),
        codec=_by_kind(_CODECS, "codec", stated["codec"]),
        front_end=_by_kind(_FRONT_ENDS, "front_end", stated["front_end"]),
        sampler=parse_sampler(stated["sampler"]),
        framing=section(FramingRule if by_face else SizeRule, "framing"),
        conditioning=section(ConditioningConfig, "conditioning"),
        text_encoder=_arguments("text_encoder", stated.get("text_encoder", {})),
        image_encoder=_arguments("image_encoder", stated.get("image_encoder", {})),
        fast_codec_encodes=bool(stated.get("fast_codec", {}).get("encodes", False)),
        stated=stated,
    )
    _check_agreement(description, by_face=by_face)
    return description


def parse_sampler(section: Mapping[str, Any]) -> AnySettings:
    """The settings that a ``sampler`` section states: of a rolling window unless it says otherwise.

    Raises:
        ConfigError: For an unknown key or a wrong value.
    """
    return _by_kind(_SAMPLERS, "sampler", section)


def _check_agreement(description: Description, *, by_face: bool) -> None:
    """Refuse parts that do not go with segments, or need them and lack them."""
    heard = description.conditioning.audio_windows.kind
    if isinstance(description.sampler, SegmentSettings):
        is_fitting = {
            "framing.sizes": not by_face,
            "codec.kind 'wan'": isinstance(description.codec, WanCodecConfig),
            "transformer.prediction 'flow'": description.transformer.prediction == "flow",
        }
        needed = next((name for name, fits in is_fitting.items() if not fits), None)
        if needed is not None:
            raise ConfigError(f"checkpoint.json: sampling in segments needs {needed}")
    elif isinstance(description.codec, WanCodecConfig) and description.codec.tiled:
        raise ConfigError("checkpoint.json: codec.tiled needs sampler.kind 'segments'")
    elif description.transformer.audio_projector is not None:
        raise ConfigError(
            "checkpoint.json: transformer.audio_projector needs sampler.kind 'segments'"
        )
    projector = description.transformer.audio_projector
    width = None if projector is None else projector.window_rows
    if (heard == "segment") != (width is not None) or (
        width is not None and 2 * description.conditioning.audio_windows.margin + 1 != width
    ):
        raise ConfigError(
            "checkpoint.json: conditioning.audio_windows and transformer.audio_projector must "
            "both be of segments, with margins of (window_rows - 1) / 2"
        )


def _check_outline(file: Path, values: Any) -> None:
    """Refuse what is no description at all."""
    if not isinstance(values, dict):
        raise _damaged(file, "not a table of settings")
    if values.get("format") != FORMAT:
        found = values.get("format")
        raise _damaged(file, f"of format {found!r:.40}; format {FORMAT} is read")
    unknown = sorted(set(values) - _KEYS)
    if unknown:
        raise _damaged(file, f"with an unknown entry {unknown[0]!r:.80}")
    absent = [name for name in _SECTIONS if not isinstance(values.get(name), dict)]
    absent += [name for name in _OPTIONAL_SECTIONS if not isinstance(values.get(name, {}), dict)]
    if absent:
        raise _damaged(file, f"without {', '.join(absent)}")
    for key in _TEXTS:
        text = str(values.get(key, ""))
        if not text.isprintable() or len(text) > MAX_TEXT_CHARS:
            raise _damaged(file, f"with a {key} that is no short line of text")


_Kind = type | Callable[[dict[str, Any]], Any]
"""A dataclass whose fields are the entries of a section, or what reads such a section."""


def _by_kind(
    kinds: Mapping[str, _Kind],
    part: str,
    stated: Mapping[str, Any],
) -> Any:
    """A part by the ``kind`` that its section states; the first kind where it states none."""
    section = dict(stated)
    kind = section.pop("kind", next(iter(kinds)))
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(
            f"checkpoint.json: {part}.kind is {kind!r:.80}", hint=f"one of {', '.join(kinds)}"
        )
    made = kinds[kind]
    if isinstance(made, type):
        return from_dict(made, section, path=f"checkpoint.json: {part}")
    return made(section)


def _wan_codec(section: dict[str, Any]) -> WanCodecConfig:
    tiled = section.pop("tiled", False)
    if not isinstance(tiled, bool):
        raise ConfigError(f"checkpoint.json: codec.tiled is {tiled!r:.80}", hint="true or false")
    _check_numbers("codec", section, "codec")
    return WanCodecConfig(section, tiled)


def _wav2vec2(section: dict[str, Any]) -> Wav2Vec2FrontEnd:
    where = "checkpoint.json: front_end.options"
    options = from_dict(Wav2Vec2Options, section.get("options", {}), path=where)
    _check_numbers("front_end", section, "front_end")
    return Wav2Vec2FrontEnd(options, _arguments("front_end", section))


_CODECS: dict[str, _Kind] = {"tiny": TinyCodecConfig, "wan": _wan_codec}
_SAMPLERS: dict[str, _Kind] = {"rolling": SamplerSettings, "segments": SegmentSettings}
_FRONT_ENDS: dict[str, _Kind] = {"log-mel": FrontEndConfig, "wav2vec2": _wav2vec2}


def _arguments(part: str, section: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ``config`` of a section, which another library is given."""
    config = section.get("config", {})
    if not isinstance(config, Mapping):
        raise ConfigError(f"checkpoint.json: {part}.config must be a table", hint=SAME_EXPORT)
    return config


def _check_numbers(where: str, value: Any, key: str) -> None:
    if isinstance(value, Mapping):
        for inner, entry in value.items():
            _check_numbers(f"{where}.{str(inner)[:80]}", entry, str(inner))
    elif isinstance(value, list | tuple):
        if len(value) > MAX_REPEATS:
            raise _too_large(where, f"a list of {len(value)} entries", MAX_REPEATS)
        for entry in value:
            _check_numbers(where, entry, key)
    elif isinstance(value, int | float):
        is_count = key.endswith(("layers", "blocks"))
        most = MAX_REPEATS if is_count else MAX_NUMBER
        if not -most <= value <= most:
            raise _too_large(where, repr(value)[:40], most)


def _too_large(where: str, what: str, most: int) -> ConfigError:
    return ConfigError(
        f"checkpoint.json: {where} is {what}; at most {most} is possible", hint=SAME_EXPORT
    )


def _damaged(file: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{file} is {what}",
        hint="export the checkpoint again, or give another directory with --checkpoint",
        code="E-CHECKPOINT-DAMAGED",
    )
