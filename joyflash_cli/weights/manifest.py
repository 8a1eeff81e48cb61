"""``weights.toml``: which profiles exist and which files each is made of."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from joyflash_cli.config import from_dict
from joyflash_cli.errors import ConfigError, UsageError

MANIFEST_FORMAT = 1

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PROFILE_RULE = "letters, digits, points and dashes, 64 at most"
_REVISION = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class WeightFile:
    """One file of a profile.

    Attributes:
        role: What it is for: ``transformer``, ``codec``, ``text_encoder``, ``audio_encoder``, ...
        repo: Hub repository; empty for a file that nobody has published and the user may bring.
        path: Path inside the repository.
        format: ``pickle`` files are only ever opened by conversion.
        licence: As its source states it.
        revision: Full commit; empty while unknown.
        bytes: Size; 0 while unknown.
        sha256: Lower-case hex; empty while unknown.
        optional: Fetched only when its role is asked for.
        acceptance: Whether this file is why the profile's terms must be accepted.
    """

    role: str
    repo: str
    path: str
    format: Literal["safetensors", "pickle", "json", "binary"]
    licence: str
    revision: str = ""
    bytes: int = 0
    sha256: str = ""
    optional: bool = False
    acceptance: bool = False

    @property
    def name(self) -> str:
        """``owner/repository/path``, for people."""
        return f"{self.repo}/{self.path}" if self.repo else self.path

    @property
    def is_published(self) -> bool:
        """Whether anybody offers it; otherwise ``fetch --from`` names its place."""
        return bool(self.repo)


@dataclass(frozen=True)
class WeightProfile:
    """One profile of ``weights.toml``.

    Attributes:
        title: One line for lists.
        source: Where the files come from; ``none`` means that the user brings them.
        licence: As it stands, contradictions included.
        kind: ``avatar`` renders; ``base`` is only something to train from; ``measure`` measures
            films.
        note: What a user should know before using it.
        acceptance: Whether the terms must be accepted explicitly.
        files: In the order of the manifest.
    """

    title: str
    source: Literal["embedded", "hub", "none"]
    licence: str
    kind: Literal["avatar", "base", "measure"] = "avatar"
    note: str = ""
    acceptance: bool = False
    files: tuple[WeightFile, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of its files, each once, in the order of the manifest."""
        return tuple(dict.fromkeys(file.role for file in self.files))


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
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # wrong TOML, no UTF-8, or tables without end
        raise ConfigError(f"{path} is not valid TOML: {str(error)[:200]}") from error
    unknown = sorted(set(values) - {"format", "profiles"})
    if unknown:
        raise ConfigError(
            f"{path} has an unknown key {unknown[0]!r:.80}", hint="known: format, profiles"
        )
    if values.get("format") != MANIFEST_FORMAT:
        raise ConfigError(
            f"{path} has format {values.get('format')!r:.40}; {MANIFEST_FORMAT} is read"
        )
    profiles: dict[str, Any] = values.get("profiles", {})
    if not isinstance(profiles, dict):
        raise ConfigError(f"{path}: profiles is not a table")
    found = {}
    for name, profile in profiles.items():
        if not _PROFILE.fullmatch(name):  # it becomes the name of a folder
            raise ConfigError(f"{path}: {name!r:.80} is no name of a profile", hint=_PROFILE_RULE)
        where = f"{path}: profiles.{name}"
        found[name] = from_dict(WeightProfile, profile, path=where)
        for index, file in enumerate(found[name].files):
            _check_file(file, f"{where}.files[{index}]")
    return found


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


def select_files(
    profile: WeightProfile, *, roles: Sequence[str] = (), without: Sequence[str] = ()
) -> tuple[WeightFile, ...]:
    """The files of a profile that a command is about, in the order of the manifest.

    Args:
        profile: Where they are listed.
        roles: Exactly these roles; none means everything that is not optional.
        without: Roles to leave out.

    Raises:
        UsageError: For a role that the profile does not have, or when nothing is left.
    """
    for role in (*roles, *without):
        if role not in profile.roles:
            known = ", ".join(profile.roles) or "it has no files"
            raise UsageError(f"no file has the role {role!r}", hint=f"roles: {known}")
    chosen = tuple(
        file
        for file in profile.files
        if (file.role in roles if roles else not file.optional) and file.role not in without
    )
    if profile.files and not chosen:
        raise UsageError("--role and --without leave no file", hint="give fewer of them")
    return chosen


def placed_file(file: WeightFile, place: str) -> WeightFile:
    """A file that nobody has published, in the repository that the user names.

    Args:
        file: From the manifest, without a repository.
        place: ``OWNER/NAME`` or ``OWNER/NAME@COMMIT``.

    Raises:
        UsageError: When it is neither.
    """
    repo, _, revision = place.partition("@")
    is_pinned = "@" in place
    if not _REPOSITORY.fullmatch(repo) or (is_pinned and not _REVISION.fullmatch(revision)):
        raise UsageError(
            f"{place!r} is neither a file here nor OWNER/NAME or OWNER/NAME@COMMIT on the Hub",
            hint="check the path; a commit has 40 hexadecimal digits",
        )
    return replace(file, repo=repo, revision=revision)


def _check_file(file: WeightFile, where: str) -> None:
    """Refuses values that could not name one file of one revision."""
    path = PurePosixPath(file.path)
    problems = {
        "repo": not (_REPOSITORY.fullmatch(file.repo) or (file.optional and not file.repo)),
        "revision": bool(file.revision) and not _REVISION.fullmatch(file.revision),
        "sha256": bool(file.sha256) and not _SHA256.fullmatch(file.sha256),
        "bytes": file.bytes < 0,
        "path": not file.path or path.is_absolute() or ".." in path.parts,
    }
    for key, is_wrong in problems.items():
        if is_wrong:
            raise ConfigError(
                f"{where}.{key} is {getattr(file, key)!r:.80}",
                hint="repo is OWNER/NAME, revision 40 and sha256 64 hexadecimal digits, "
                "path relative",
            )
