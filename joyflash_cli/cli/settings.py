"""Settings from files and the environment: what is read, and who wins.

An option on the command line wins over the environment, that over ``joyflash.toml`` in the current
folder, that over ``joyflash/config.toml`` in the user's configuration folder, that over the
program's default. In each place a value for one verb (``[render] seed = 7``) wins over one for all
verbs (``seed = 7`` at the top). Whatever is misspelt or of a wrong type in a file is an error that
names the file and the key, never a silent default.

Which options may be set ahead of time is read from the verbs themselves: an option that a verb
gains is a setting from then on.
"""

import difflib
import math
import os
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from joyflash_cli.errors import ConfigError

PROJECT_FILE = "joyflash.toml"
PREFIX = "JOYFLASH_"
MAX_FILE_BYTES = 1 << 20
DEFAULT = "default"
NOT_SETTINGS = frozenset(
    {
        "accept_license", "assets", "audio", "audio_format", "compare", "config", "days", "debug",
        "dry_run", "example", "explain", "face", "from", "image", "json", "name", "no_config",
        "out", "out_dir", "output", "overwrite", "progress_fd", "reference", "resume",
        "retry_failed", "shard", "sheets", "show_origin", "source", "truth", "version",
    }
)  # fmt: skip
"""Options that belong to one call: its files, what it may replace, and the form of its answer."""

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_NEEDED = {
    bool: "true or false", int: "an integer", float: "a number", str: "a text", Path: "a path",
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One option of one verb that a file or the environment may set.

    Attributes:
        verb: ``("render",)``, or ``("weights", "list")`` for a verb of a group.
        name: The option without dashes in front, ``_`` for ``-``.
        option: As Click knows it.
        kind: ``bool``, ``int``, ``float``, ``str`` or ``Path``.
        choices: The only texts allowed; empty for any.
        limits: Least and largest number allowed, if any.
        value: What holds ahead of the command line; ``None`` where nothing is said.
        origin: A file, ``NAME in the environment``, or ``default``.
    """

    verb: tuple[str, ...]
    name: str
    option: Any
    kind: type
    choices: tuple[str, ...]
    limits: tuple[float | None, float | None]
    value: Any
    origin: str = DEFAULT

    @property
    def key(self) -> str:
        """As a file spells it: ``render.seed``."""
        return ".".join((*self.verb, self.name))

    @property
    def variables(self) -> tuple[str, str]:
        """In the environment: of every verb that has the option, and of this one, which wins."""
        own = "_".join((*self.verb, self.name)).upper().replace("-", "_")
        return PREFIX + self.name.upper(), PREFIX + own


def known_settings(command: Any, verb: tuple[str, ...] = ()) -> tuple[Setting, ...]:
    """Every setting of a Click command with its default, in the order of verbs and options."""
    found: list[Setting] = []
    for name, inner in getattr(command, "commands", {}).items():
        found += known_settings(inner, (*verb, name))
    hints = get_type_hints(command.callback, include_extras=True) if verb else {}
    for option in command.params if verb else ():
        long = [text for text in option.opts if text.startswith("--")]
        name = (long[0][2:] if long else option.name).replace("-", "_")
        if option.param_type_name != "option" or option.hidden or name in NOT_SETTINGS:
            continue
        # Typer keeps types and limits in the annotation alone.
        hint, declared = get_args(hints[option.name])
        kind, choices = _plain_kind(hint)
        if kind is not None:
            limits = (declared.min, declared.max)
            default = getattr(option.default, "value", option.default)
            found.append(Setting(verb, name, option, kind, choices, limits, default))
    return tuple(found)


def _plain_kind(hint: Any) -> tuple[type | None, tuple[str, ...]]:
    """The one plain type behind a hint, and its choices; ``None`` for lists and pairs."""
    inner = [part for part in get_args(hint) if part is not type(None)]
    if get_origin(hint) in (Union, types.UnionType):
        return _plain_kind(inner[0]) if len(inner) == 1 else (None, ())
    if get_origin(hint) is Literal:
        return str, tuple(map(str, inner))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return str, tuple(str(member.value) for member in hint)
    return (hint, ()) if hint in _NEEDED else (None, ())


def read_settings(
    known: Sequence[Setting], environment: Mapping[str, str] = os.environ
) -> tuple[Setting, ...]:
    """The known settings with what files and environment say.

    Raises:
        ConfigError: If a file cannot be read, or a key or value in it or in the environment is
            not one the program knows. The text names the file (or variable) and the key.
    """
    found: dict[str, Setting] = {setting.key: setting for setting in known}
    for path in (user_file(environment), Path(PROJECT_FILE)):
        for setting in _read_table(path, _load(path), known):
            found[setting.key] = setting
    for setting in known:
        for variable in setting.variables:
            if text := environment.get(variable):  # an empty variable is as good as none
                value = _checked(setting, _from_text(setting, text), variable, Path())
                origin = f"{variable} in the environment"
                found[setting.key] = replace(setting, value=value, origin=origin)
    return tuple(found.values())


def default_map(settings: Iterable[Setting]) -> dict[str, Any]:
    """What was set, as Click takes it: nested by verb."""
    tree: dict[str, Any] = {}
    for setting in settings:
        if setting.origin != DEFAULT:
            branch = tree
            for part in setting.verb:
                branch = branch.setdefault(part, {})
            branch[setting.option.name] = setting.value
    return tree


def unknown_variables(
    known: Sequence[Setting], environment: Mapping[str, str] = os.environ
) -> Iterator[str]:
    """A warning for each variable that looks like a setting and is none."""
    names = {name for setting in known for name in setting.variables}
    for variable in sorted(environment):
        if variable.startswith(PREFIX) and variable not in names:
            near = difflib.get_close_matches(variable, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield f"{variable} is not a setting{hint}"


def user_file(environment: Mapping[str, str]) -> Path:
    """The user's own file: under ``XDG_CONFIG_HOME``, by default ``~/.config``."""
    home = environment.get("XDG_CONFIG_HOME") or ""
    # A relative XDG_CONFIG_HOME is to be ignored (XDG Base Directory Specification).
    folder = Path(home) if Path(home).is_absolute() else Path("~/.config").expanduser()
    return folder / "joyflash" / "config.toml"


def _load(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(
                f"{path} has {path.stat().st_size} bytes; a configuration has at most "
                f"{MAX_FILE_BYTES}"
            )
        text = path.read_bytes().decode("utf-8-sig")  # editors on Windows add a byte-order mark
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 (byte {error.start})", hint="save it again as UTF-8"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", hint="repair it or use --no-config"
        ) from error
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # wrong TOML, or numbers and tables without end
        text = str(error)[:200]
        raise ConfigError(f"{path} is not TOML: {text}", hint="correct that line") from error


def _read_table(
    path: Path, table: Mapping[str, Any], known: Sequence[Setting], verb: tuple[str, ...] = ()
) -> Iterator[Setting]:
    """What a table sets: first for all verbs, so that a verb's own come later and win."""
    inner = {s.verb[len(verb)] for s in known if s.verb[: len(verb)] == verb and s.verb != verb}
    for key, value in sorted(table.items(), key=lambda item: isinstance(item[1], dict)):
        dotted = ".".join((*verb, key))
        if isinstance(value, dict):
            if key not in inner:
                raise _unknown(path, dotted, sorted(inner), what="verb")
            yield from _read_table(path, value, known, (*verb, key))
            continue
        here = [setting for setting in known if verb in ((), setting.verb)]
        wanted = [setting for setting in here if setting.name == _normal(key)]
        if not wanted:
            top = [setting.name for setting in here] + sorted(inner)
            raise _unknown(path, dotted, [setting.key for setting in here] if verb else top)
        for setting in wanted:
            checked = _checked(setting, value, f"{path}: {dotted}", path.parent)
            yield replace(setting, value=checked, origin=str(path))


def _from_text(setting: Setting, text: str) -> Any:
    """A variable's text as the setting's kind, or as it is where that cannot be."""
    if setting.kind is bool:
        lowered = text.lower()
        return lowered in _TRUE if lowered in _TRUE + _FALSE else text
    if setting.kind in (int, float):
        try:
            return setting.kind(text)
        except ValueError:
            return text
    return text


def _checked(setting: Setting, value: Any, where: str, folder: Path) -> Any:
    """The value, if the option would take it; a path counts from ``folder``."""
    kind: Any = setting.kind
    fits = isinstance(value, str if kind is Path else kind)
    if kind is float and type(value) is int:
        fits, value = True, _as_float(value)
    if not fits or (isinstance(value, bool) and kind is not bool):
        shown = "true" if value is True else "false" if value is False else f"{value!r:.80}"
        raise ConfigError(f"{where} is {shown}; {_NEEDED[kind]} is needed")
    if setting.choices and value not in setting.choices:
        hint = f"use one of {', '.join(setting.choices)}"
        raise ConfigError(f"{where} is {value!r:.80}", hint=hint)
    if kind in (int, float):
        _check_range(setting, value, where)
    if kind is Path:
        # Relative to the file that says so, wherever the program is started.
        return folder / _without_tilde(value, where)
    return value


def _as_float(value: int) -> float:
    """The nearest float; infinite beyond them, which every limit refuses."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _without_tilde(value: str, where: str) -> Path:
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{where} is {value!r:.80}; there is no such user", hint="write the path out"
        ) from error


def _check_range(setting: Setting, value: float, where: str) -> None:
    least, most = setting.limits
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} is {value}; a finite number is needed")
    if least is not None and value < least:
        raise ConfigError(f"{where} is {value}; at least {least:g} is needed")
    if most is not None and value > most:
        raise ConfigError(f"{where} is {value}; at most {most:g} is possible")


def _unknown(path: Path, key: str, possible: Sequence[str], *, what: str = "key") -> ConfigError:
    near = difflib.get_close_matches(_normal(key), possible, n=1)
    names = ", ".join(sorted(dict.fromkeys(possible)))
    hint = f"did you mean {near[0]!r}?" if near else f"known: {names}"
    return ConfigError(f"{path} has the unknown {what} {key!r:.80}", hint=hint)


def _normal(key: str) -> str:
    return key.replace("-", "_")
