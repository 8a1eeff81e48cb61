"""Strict conversion between frozen dataclasses and plain dictionaries.

A configuration travels as JSON beside the weights. A misspelt key, a missing field or a value of
the wrong type is an error that names the field, never a silent default.
"""

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from joyflash_cli.errors import ConfigError

T = TypeVar("T")

MAX_SHOWN_CHARS = 120


def from_dict(cls: type[T], values: Mapping[str, Any], *, path: str = "") -> T:
    """An instance of the dataclass ``cls``, checked field by field.

    Fields with a default may be left out; nested dataclasses are built from nested mappings and
    lists become tuples where the annotation says so.

    Args:
        cls: A dataclass.
        values: Field name to plain value, as JSON gives it.
        path: Where in a larger configuration this is; used in messages only.

    Raises:
        ConfigError: If a key is unknown, a required field is missing or a value has a wrong type.
    """
    where = path or cls.__name__
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} must be a table, not {type(values).__name__}")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(fields)}"
            raise ConfigError(f"{where} has no key {_shown(key)}", hint=hint)
    hints = get_type_hints(cls)
    converted = {}
    for name, field in fields.items():
        if name in values:
            converted[name] = _convert(values[name], hints[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where} lacks the key {name!r}", hint="add it to the configuration")
    return cls(**converted)


def check_ranges(config: Any, limits: Mapping[str, tuple[float, float]]) -> None:
    """Refuses numbers of a dataclass that nothing could be built from.

    A description may come from anywhere, and a size of a billion must be a message, not a machine
    out of memory.

    Args:
        config: A dataclass.
        limits: Field name to its least and greatest value; ``None`` is not looked at, a tuple
            entry by entry.

    Raises:
        ConfigError: For a number outside, ``nan`` included.
    """
    for name, (least, most) in limits.items():
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and not least <= number <= most:
                possible = f"at most {most:g}" if least == -math.inf else f"{least:g} to {most:g}"
                raise ConfigError(
                    f"{type(config).__name__}: {name} is {_shown(value)}; {possible} is possible",
                    hint="correct the configuration",
                )


def to_dict(config: Any) -> dict[str, Any]:
    """The plain dictionary of a dataclass; tuples become lists, so that JSON gives it back."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _convert(value: Any, annotation: Any, path: str) -> Any:
    """``value`` as ``annotation`` asks for it, or a ConfigError that names ``path``."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return _convert_union(value, get_args(annotation), path)
    if origin is Literal:
        if value in get_args(annotation):
            return value
        options = ", ".join(repr(option) for option in get_args(annotation))
        raise ConfigError(f"{path} is {_shown(value)}", hint=f"use one of {options}")
    if origin is tuple:
        return _convert_tuple(value, get_args(annotation), path)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} is {_shown(value)}; a table is needed")
        kind = get_args(annotation)[1]
        return {str(key): _convert(item, kind, f"{path}.{key}") for key, item in value.items()}
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        if isinstance(value, annotation):
            return value
        return from_dict(annotation, value, path=path)
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is a subclass of int, but true is no number of frames.
    if isinstance(value, bool) and annotation is not bool or not isinstance(value, annotation):
        raise ConfigError(
            f"{path} is {_shown(value)} ({type(value).__name__}); {annotation.__name__} is needed"
        )
    return value


def _shown(value: Any) -> str:
    """A value as an error names it: whatever it is, not longer than a line."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."


def _convert_union(value: Any, options: tuple[Any, ...], path: str) -> Any:
    if value is None and type(None) in options:
        return None
    error: ConfigError | None = None
    for option in options:
        if option is type(None):
            continue
        try:
            return _convert(value, option, path)
        except ConfigError as problem:
            error = problem
    raise error if error is not None else ConfigError(f"{path} cannot be {_shown(value)}")


def _convert_tuple(value: Any, items: tuple[Any, ...], path: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{path} is {_shown(value)}; a list is needed")
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_convert(item, items[0], f"{path}[{i}]") for i, item in enumerate(value))
    if len(value) != len(items):
        raise ConfigError(f"{path} has {len(value)} entries; {len(items)} are needed")
    return tuple(
        _convert(item, kind, f"{path}[{i}]")
        for i, (item, kind) in enumerate(zip(value, items, strict=True))
    )
