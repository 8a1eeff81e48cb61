"""Sections of ``checkpoint.json`` that other libraries build their modules from.

Those libraries trust their configurations. Here a wrong one becomes an error that names the
section, and one that asks for absurd sizes never reaches them.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from joyflash_cli.errors import ConfigError

MAX_NUMBER = 1 << 17
"""Above any width, vocabulary or kernel in use."""

MAX_REPEATS = 512
"""Layers, blocks and entries of a list."""

_WRONG = (
    TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError,
)  # fmt: skip


@contextlib.contextmanager
def foreign_section(name: str, section: Mapping[str, Any]) -> Iterator[None]:
    """Within it, a module is built from a section.

    Args:
        name: Of the section.
        section: What is handed to the library.

    Raises:
        ConfigError: For numbers beyond anything that could be built, and for whatever the library
            refuses.
    """
    _check_numbers(name, section, name)
    try:
        yield
    except _WRONG as error:
        text = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"checkpoint.json: {name} describes no such module: {text or type(error).__name__}",
            hint="the weights and checkpoint.json must come from the same export",
        ) from error


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
        f"checkpoint.json: {where} is {what}; at most {most} is possible",
        hint="the weights and checkpoint.json must come from the same export",
    )
