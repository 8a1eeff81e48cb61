"""Which files a conversion reads: those that were downloaded, or a directory the user names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from joyflash_cli.errors import CheckpointError, UsageError
from joyflash_cli.weights.lock_file import read_lock
from joyflash_cli.weights.manifest import WeightFile, WeightProfile, find_profile
from joyflash_cli.weights.places import lock_path
from joyflash_cli.weights.sources import fetch_command, local_source

WEIGHT_FORMATS = ("safetensors", "pickle")
NEEDED_ROLES = ("transformer", "codec", "audio_encoder")
"""Without these no checkpoint is made; a profile without a role does not need it."""


@dataclass(frozen=True)
class ProfileSources:
    """Files of a profile by role.

    Attributes:
        files: Role to files, in the order of the manifest.
    """

    files: Mapping[str, tuple[Path, ...]]

    def get(self, role: str) -> tuple[Path, ...]:
        """All files of a role; empty when it has none."""
        return self.files.get(role, ())

    def has(self, role: str) -> bool:
        """Whether there are weights for the role."""
        return bool(self.weights(role))

    def weights(self, role: str) -> tuple[Path, ...]:
        """The weight files of a role: its shards, without configurations."""
        return tuple(path for path in self.get(role) if path.suffix != ".json")


def find_sources(
    profile_name: str,
    source: Path | None,
    *,
    roles: Sequence[str] = (),
    needed: Sequence[str] = NEEDED_ROLES,
) -> ProfileSources:
    """Every file that is there, with an error for what a checkpoint cannot do without.

    In a directory of the user a file is looked for under its path in the repository, with and
    without the repository's own name in front, and under its bare name. A folder named as a role
    may hold safetensors of any name for it instead: another edition of an encoder, or its shards.
    What is not there is taken from the downloaded files.

    Args:
        profile_name: Of ``weights.toml``.
        source: A directory, or the transformer's file beside which the others may lie; ``None``
            for the downloaded files.
        roles: Which to look for; all of them if empty.
        needed: Roles without whose weights there is an error.

    Raises:
        UsageError: For a profile that has no public files.
        CheckpointError: ``E-CHECKPOINT-MISSING`` naming what is missing and what to do.
    """
    profile = find_profile(profile_name)
    if not profile.files:
        raise UsageError(
            f"profile {profile_name} has no public files to convert",
            hint="joyflash weights list shows which do",
        )
    if source is not None and not source.exists():
        raise CheckpointError(
            f"{source} does not exist",
            hint="give a directory of the profile's files, or none for the downloaded ones",
            code="E-CHECKPOINT-MISSING",
        )
    lock = read_lock(lock_path())
    found: dict[str, tuple[Path, ...]] = {}
    missing = []
    for file in profile.files:
        if roles and file.role not in roles:
            continue
        own = _own_files(source, file, profile)
        if own:
            found[file.role] = own
            continue
        path = _given(source, file, profile) or local_source(file, lock)
        if path is not None:
            found[file.role] = (*found.get(file.role, ()), path)
        elif file.role in needed and file.format in WEIGHT_FORMATS:
            missing.append(file)
    if missing:
        names = ", ".join(file.name for file in missing)
        absent = tuple(dict.fromkeys(file.role for file in missing))
        raise CheckpointError(
            f"{names} {'is' if len(missing) == 1 else 'are'} neither on this machine nor in "
            f"{source or 'the cache'}",
            hint=fetch_command(profile_name, profile, roles=roles or absent),
            code="E-CHECKPOINT-MISSING",
        )
    return ProfileSources(found)


def _own_files(source: Path | None, file: WeightFile, profile: WeightProfile) -> tuple[Path, ...]:
    """The safetensors of a folder named as the role, unless they have the published names."""
    if source is None or (source.is_file() and file.role == "transformer"):
        return ()
    folder = (source if source.is_dir() else source.parent) / file.role
    published = {Path(other.path).name for other in profile.files if other.role == file.role}
    own = tuple(sorted(folder.glob("*.safetensors")))
    return () if any(path.name in published for path in own) else own


def _given(source: Path | None, file: WeightFile, profile: WeightProfile) -> Path | None:
    """The file among those of the user."""
    if source is None:
        return None
    if source.is_dir():
        return _in_directory(source, file, profile)
    if file.role == "transformer" and file.format in WEIGHT_FORMATS:
        return source
    return _in_directory(source.parent, file, profile)


def _in_directory(directory: Path, file: WeightFile, profile: WeightProfile) -> Path | None:
    candidates = [
        directory / file.repo / file.path,
        directory / file.repo.partition("/")[2] / file.path,
        directory / file.role / Path(file.path).name,
        directory / file.path,
        directory / Path(file.path).name,
    ]
    # Several files of a profile may have one bare name; it stands for the first of them.
    same_path = [other for other in profile.files if other.path == file.path]
    same_name = [other for other in profile.files if Path(other.path).name == Path(file.path).name]
    if same_path[0] != file:
        candidates = candidates[:3]
    elif same_name[0] != file:
        candidates = candidates[:4]
    return next((path for path in candidates if path.is_file()), None)
