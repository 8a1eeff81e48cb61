"""Which options of which verbs may be set ahead of time, read from the verbs themselves.

An option that a verb gains is a setting from then on; nothing has to be listed twice. Options that
name one job's files or change what is printed for a program that reads it are left out.
"""

import inspect
import types
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

NOT_SETTINGS = frozenset(
    {
        "accept_license", "assets", "audio", "audio_format", "compare", "config", "debug",
        "dry_run", "example", "face", "from", "image", "json", "no_config", "out_dir", "output",
        "overwrite", "progress_fd", "resume", "retry_failed", "shard", "sheets", "show_origin",
        "source", "version",
    }
)  # fmt: skip
"""Options that belong to one call: its files, what it may replace, and the form of its answer."""


@dataclass(frozen=True)
class Setting:
    """One option of one verb that a file or the environment may set.

    Attributes:
        verb: ``("render",)``, or ``("weights", "list")`` for a verb of a group.
        name: The option without dashes in front, ``_`` for ``-``.
        parameter: Name of the Python parameter; differs from ``name`` for ``--json`` and its like.
        kind: ``bool``, ``int``, ``float``, ``str`` or ``Path``.
        default: What holds when nobody sets it.
        minimum: Least number allowed, if any.
        maximum: Largest number allowed, if any.
        choices: The only texts allowed; empty for any.
        help: The option's line of help.
    """

    verb: tuple[str, ...]
    name: str
    parameter: str
    kind: type
    default: Any
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    help: str = ""

    @property
    def key(self) -> str:
        """As a file spells it: ``render.seed``."""
        return ".".join((*self.verb, self.name))

    @property
    def variable(self) -> str:
        """The environment variable of this verb alone: ``JOYFLASH_RENDER_SEED``."""
        return "JOYFLASH_" + "_".join((*self.verb, self.name)).upper().replace("-", "_")

    @property
    def shared_variable(self) -> str:
        """The environment variable of every verb that has the option: ``JOYFLASH_SEED``."""
        return f"JOYFLASH_{self.name.upper()}"


def known_settings(app: typer.Typer, verb: tuple[str, ...] = ()) -> tuple[Setting, ...]:
    """Every setting of an application, in the order of its verbs and options."""
    found: list[Setting] = []
    for command in app.registered_commands:
        if command.callback is not None:
            name = command.name or command.callback.__name__.replace("_", "-")
            found += _settings_of((*verb, name), command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None and group.name:
            found += known_settings(group.typer_instance, (*verb, group.name))
    return tuple(found)


def _settings_of(verb: tuple[str, ...], callback: Any) -> Iterator[Setting]:
    hints = get_type_hints(callback, include_extras=True)
    for parameter in inspect.signature(callback).parameters.values():
        hint = hints.get(parameter.name)
        option = next(
            (part for part in getattr(hint, "__metadata__", ()) if _is_option(part)), None
        )
        if option is None or option.hidden:
            continue
        name = _long_name(option, parameter.name)
        kind, choices = _plain_kind(get_args(hint)[0])
        if name in NOT_SETTINGS or kind is None:
            continue
        default = None if parameter.default is inspect.Parameter.empty else parameter.default
        yield Setting(
            verb=verb,
            name=name,
            parameter=parameter.name,
            kind=kind,
            default=default.value if isinstance(default, Enum) else default,
            minimum=option.min,
            maximum=option.max,
            choices=choices,
            help=(option.help or "").rstrip("."),
        )


def _is_option(part: Any) -> bool:
    # An argument has the same fields except this one.
    return hasattr(part, "param_decls") and hasattr(part, "confirmation_prompt")


def _long_name(option: Any, parameter: str) -> str:
    """``output`` of ``("-o", "--output")``; the positive half of ``--x/--no-x``."""
    # In an annotation the first declaration stands where older code puts the default.
    first = [option.default] if isinstance(option.default, str) else []
    declarations = [*first, *(option.param_decls or ())]
    long = [text for text in declarations if text.startswith("--")]
    return (long[0].partition("/")[0][2:] if long else parameter).replace("-", "_")


def _plain_kind(hint: Any) -> tuple[type | None, tuple[str, ...]]:
    """The one plain type behind a hint, and its choices; ``None`` for lists and pairs."""
    if get_origin(hint) in (Union, types.UnionType):
        inner = [part for part in get_args(hint) if part is not type(None)]
        return _plain_kind(inner[0]) if len(inner) == 1 else (None, ())
    if get_origin(hint) is Literal:
        return str, tuple(str(value) for value in get_args(hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return str, tuple(str(member.value) for member in hint)
    return (hint, ()) if hint in (bool, int, float, str, Path) else (None, ())
