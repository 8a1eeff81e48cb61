"""``weights.toml``: which profiles exist and which files each is made of."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from joyflash_cli.config import from_dict
from joyflash_cli.errors import ConfigError, UsageError

MANIFEST_FORMAT = 1


@dataclass(frozen=True)
class WeightFile:
    """One file of a profile.

    Attributes:
        role: What it is for: ``transformer``, ``codec``, ``text_encoder``, ``audio_encoder``, ...
        repo: Hub repository.
        path: Path inside the repository.
        format: ``pickle`` files are only ever opened by conversion.
        licence: As its source states it.
        revision: Full commit; empty while unknown.
        bytes: Size; 0 while unknown.
        sha256: Lower-case hex; empty while unknown.
    """

    role: str
    repo: str
    path: str
    format: Literal["safetensors", "pickle"]
    licence: str
    revision: str = ""
    bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class WeightProfile:
    """One profile of ``weights.toml``.

    Attributes:
        title: One line for lists.
        source: Where the files come from; ``none`` means that the user brings them.
        licence: As it stands, contradictions included.
        note: What a user should know before using it.
        acceptance: Whether the terms must be accepted explicitly.
        files: In the order of the manifest.
    """

    title: str
    source: Literal["embedded", "hub", "none"]
    licence: str
    note: str = ""
    acceptance: bool = False
    files: tuple[WeightFile, ...] = ()


def manifest_path() -> Path:
    """``weights.toml``: inside the package when installed, at the repository's top otherwise."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "weights.toml"
    return installed if installed.is_file() else package.parent / "weights.toml"


def read_manifest(path: Path | None = None) -> dict[str, WeightProfile]:
    """Profiles by name, in the order of the file.

    Args:
        path: Another manifest; the project's own by default.

    Raises:
        ConfigError: When the file is missing, is not TOML, or has an unknown or wrong entry.
    """
    path = path or manifest_path()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist", hint="install the package again") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    unknown = sorted(set(values) - {"format", "profiles"})
    if unknown:
        raise ConfigError(
            f"{path} has an unknown key {unknown[0]!r}", hint="known: format, profiles"
        )
    if values.get("format") != MANIFEST_FORMAT:
        raise ConfigError(f"{path} has format {values.get('format')!r}; {MANIFEST_FORMAT} is read")
    profiles: dict[str, Any] = values.get("profiles", {})
    if not isinstance(profiles, dict):
        raise ConfigError(f"{path}: profiles is not a table")
    return {
        name: from_dict(WeightProfile, profile, path=f"{path}: profiles.{name}")
        for name, profile in profiles.items()
    }


def find_profile(name: str) -> WeightProfile:
    """The profile called ``name``.

    Raises:
        UsageError: When there is none.
    """
    profiles = read_manifest()
    if name not in profiles:
        raise UsageError(
            f"profile {name!r} does not exist",
            hint=f"one of {', '.join(profiles)}",
            code="E-PROFILE",
        )
    return profiles[name]
