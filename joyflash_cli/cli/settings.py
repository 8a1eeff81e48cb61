"""Settings from files and the environment: what is read, and who wins.

An option on the command line wins over the environment, that over ``joyflash.toml`` in the current
folder, that over ``joyflash/config.toml`` in the user's configuration folder, that over the
program's default. In each place a value for one verb (``[render] seed = 7``) wins over one for all
verbs (``seed = 7`` at the top). Whatever is misspelt or of a wrong type in a file is an error that
names the file and the key, never a silent default.
"""

import difflib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyflash_cli.cli.settings_catalog import Setting
from joyflash_cli.errors import ConfigError

PROJECT_FILE = "joyflash.toml"
PREFIX = "JOYFLASH_"
MAX_FILE_BYTES = 1 << 20
DEFAULT = "default"
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_KINDS = {
    bool: "true or false", int: "an integer", float: "a number", str: "a text", Path: "a path",
}  # fmt: skip


@dataclass(frozen=True)
class Value:
    """A setting's value and where it came from.

    Attributes:
        setting: Which one.
        value: Of the setting's kind; ``None`` where the default says nothing.
        origin: A file, ``NAME in the environment``, or ``default``.
    """

    setting: Setting
    value: Any
    origin: str


@dataclass(frozen=True)
class Settings:
    """Everything that is set ahead of the command line.

    Attributes:
        values: One per known setting, defaults included.
        warnings: Variables that look like settings and are none.
    """

    values: tuple[Value, ...]
    warnings: tuple[str, ...] = ()

    def default_map(self) -> dict[str, Any]:
        """What was set, as the command line's parser takes it: nested by verb."""
        tree: dict[str, Any] = {}
        for found in self.values:
            if found.origin == DEFAULT:
                continue
            branch = tree
            for part in found.setting.verb:
                branch = branch.setdefault(part, {})
            branch[found.setting.parameter] = found.value
        return tree


def user_file(environment: Mapping[str, str]) -> Path:
    """The user's own file: under ``XDG_CONFIG_HOME``, by default ``~/.config``."""
    home = environment.get("XDG_CONFIG_HOME") or ""
    # A relative XDG_CONFIG_HOME is to be ignored (XDG Base Directory Specification).
    folder = Path(home) if Path(home).is_absolute() else Path("~/.config").expanduser()
    return folder / "joyflash" / "config.toml"


def read_settings(
    known: Sequence[Setting],
    *,
    environment: Mapping[str, str] | None = None,
    use_files: bool = True,
) -> Settings:
    """Every known setting with its value and origin.

    Args:
        known: From ``known_settings``.
        environment: Variables; the program's own if ``None``.
        use_files: False for ``--no-config``, which leaves files and environment alone.

    Raises:
        ConfigError: If a file cannot be read, or a key or value in it or in the environment is
            not one the program knows. The text names the file (or variable) and the key.
    """
    environment = os.environ if environment is None else environment
    set_to: dict[str, Value] = {}
    warnings: tuple[str, ...] = ()
    if use_files:
        for path in (user_file(environment), Path(PROJECT_FILE)):
            for found in _read_file(path, known):
                set_to[found.setting.key] = found
        for found in _read_environment(environment, known):
            set_to[found.setting.key] = found
        warnings = tuple(_unknown_variables(environment, known))
    values = (set_to.get(s.key, Value(s, s.default, DEFAULT)) for s in known)
    return Settings(tuple(values), warnings)


def _read_file(path: Path, known: Sequence[Setting]) -> Iterator[Value]:
    """Values of one file, those for all verbs first, so that a verb's own come later and win."""
    table = _load(path)
    shared = {key: value for key, value in table.items() if not isinstance(value, dict)}
    origin = str(path)
    for key, value in shared.items():
        settings = [s for s in known if s.name == _normal(key)]
        if not settings:
            raise _unknown(path, key, [s.name for s in known] + _verbs(known, ()))
        for setting in settings:
            yield Value(setting, _checked(setting, value, f"{path}: {key}", path.parent), origin)
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _read_verb(path, value, known, (key,))


def _read_verb(
    path: Path, table: Mapping[str, Any], known: Sequence[Setting], verb: tuple[str, ...]
) -> Iterator[Value]:
    name = ".".join(verb)
    if not any(s.verb[: len(verb)] == verb for s in known):
        raise _unknown(path, name, _verbs(known, verb[:-1]), what="verb")
    settings = {s.name: s for s in known if s.verb == verb}
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _read_verb(path, value, known, (*verb, key))
            continue
        setting = settings.get(_normal(key))
        if setting is None:
            raise _unknown(path, f"{name}.{key}", [f"{name}.{known}" for known in settings])
        where = f"{path}: {name}.{key}"
        yield Value(setting, _checked(setting, value, where, path.parent), str(path))


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


def _read_environment(environment: Mapping[str, str], known: Sequence[Setting]) -> Iterator[Value]:
    for setting in known:
        for variable in (setting.shared_variable, setting.variable):
            text = environment.get(variable)
            if text:  # an empty variable is as good as none
                value = _from_text(setting, text, variable)
                yield Value(setting, value, f"{variable} in the environment")


def _unknown_variables(environment: Mapping[str, str], known: Sequence[Setting]) -> Iterator[str]:
    names = {name for s in known for name in (s.variable, s.shared_variable)}
    for variable in sorted(environment):
        if variable.startswith(PREFIX) and variable not in names:
            near = difflib.get_close_matches(variable, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield f"{variable} is not a setting{hint}"


def _from_text(setting: Setting, text: str, variable: str) -> Any:
    """A variable's text as the setting's kind."""
    value: Any = text
    try:
        if setting.kind is bool:
            lowered = text.lower()
            value = lowered in _TRUE if lowered in _TRUE + _FALSE else text
        elif setting.kind in (int, float):
            value = setting.kind(text)
    except ValueError:
        pass  # the check below says what is needed
    return _checked(setting, value, variable, Path())


def _checked(setting: Setting, value: Any, where: str, folder: Path) -> Any:
    """The value, if the option would take it."""
    kind = setting.kind
    fits = isinstance(value, str) if kind in (str, Path) else isinstance(value, kind)
    if kind is float and isinstance(value, int):
        fits, value = True, value if isinstance(value, bool) else _as_float(value)
    if not fits or (isinstance(value, bool) and kind is not bool):
        shown = "true" if value is True else "false" if value is False else f"{value!r:.80}"
        raise ConfigError(f"{where} is {shown}; {_KINDS[kind]} is needed")
    if setting.choices and value not in setting.choices:
        raise ConfigError(
            f"{where} is {value!r:.80}", hint=f"use one of {', '.join(setting.choices)}"
        )
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
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} is {value}; a finite number is needed")
    if setting.minimum is not None and value < setting.minimum:
        raise ConfigError(f"{where} is {value}; at least {setting.minimum:g} is needed")
    if setting.maximum is not None and value > setting.maximum:
        raise ConfigError(f"{where} is {value}; at most {setting.maximum:g} is possible")


def _unknown(path: Path, key: str, possible: Sequence[str], *, what: str = "key") -> ConfigError:
    near = difflib.get_close_matches(_normal(key), possible, n=1)
    names = ", ".join(sorted(dict.fromkeys(possible)))
    hint = f"did you mean {near[0]!r}?" if near else f"known: {names}"
    return ConfigError(f"{path} has the unknown {what} {key!r:.80}", hint=hint)


def _verbs(known: Sequence[Setting], above: tuple[str, ...]) -> list[str]:
    """Names of the tables that may stand below ``above``."""
    depth = len(above)
    found = {s.verb[depth] for s in known if s.verb[:depth] == above and len(s.verb) > depth}
    return sorted(found)


def _normal(key: str) -> str:
    return key.replace("-", "_")
