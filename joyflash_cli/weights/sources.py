"""Which files of a profile are on this machine, and the commands that bring the others.

They were downloaded, or a conversion is given a directory of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from joyflash_cli.errors import CheckpointError, UsageError
from joyflash_cli.weights.hub import cached_path
from joyflash_cli.weights.lock_file import Lock, is_accepted, read_lock
from joyflash_cli.weights.manifest import (
    WeightFile,
    WeightProfile,
    find_profile,
    read_manifest,
    select_files,
)
from joyflash_cli.weights.places import lock_path

WEIGHT_FORMATS = ("safetensors", "pickle")
NEEDED_ROLES = ("transformer", "adapter", "projector", "codec", "audio_encoder")
"""Without these no checkpoint is made; a profile without a role does not need it."""

PROMPT_ROLE = "prompt_embedding"
"""States of the default prompt, small enough to be fetched instead of the text encoder."""


def local_source(file: WeightFile, lock: Lock) -> Path | None:
    """Where a downloaded file is, or ``None`` when it is absent or not of its known size."""
    revision = lock.revision(file)
    path = cached_path(file, revision)
    size = lock.size(file, revision)
    if path is None or (size and path.stat().st_size != size):
        return None
    return path


def missing_sources(profile: WeightProfile) -> tuple[WeightFile, ...]:
    """The files that are not optional and not on this machine; nothing is asked of the network."""
    lock = read_lock(lock_path())
    return tuple(file for file in select_files(profile) if local_source(file, lock) is None)


def local_sources(name: str, roles: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """The downloaded files of a profile by role, in the order of the manifest.

    Their sizes are checked here; their hashes were when they were fetched.

    Args:
        name: A profile of ``weights.toml`` whose files are on the Hub.
        roles: Which are needed.

    Raises:
        UsageError: For an unknown profile or role.
        CheckpointError: ``E-CHECKPOINT-MISSING`` naming what is missing and the command for it.
    """
    profile = find_profile(name)
    if profile.source != "hub":
        raise UsageError(
            f"profile {name} has no files on the Hub", hint="joyflash weights list shows which do"
        )
    files = select_files(profile, roles=roles) if roles else ()
    lock = read_lock(lock_path())
    found: dict[str, tuple[Path, ...]] = {}
    missing = []
    for file in files:
        path = local_source(file, lock)
        if path is None:
            missing.append(file)
        else:
            found[file.role] = (*found.get(file.role, ()), path)
    if missing:
        absent = tuple(dict.fromkeys(file.role for file in missing))
        raise CheckpointError(
            f"{', '.join(file.name for file in missing[:5])} of profile {name} "
            f"{'is' if len(missing) == 1 else 'are'} not on this machine",
            hint=fetch_command(name, profile, roles=absent),
            code="E-CHECKPOINT-MISSING",
        )
    return found


def weight_files(sources: Mapping[str, tuple[Path, ...]], role: str) -> tuple[Path, ...]:
    """The shards of a role, without configurations; empty where it has none."""
    return tuple(path for path in sources.get(role, ()) if path.suffix != ".json")


def find_sources(
    profile_name: str,
    source: Path | None,
    *,
    roles: Sequence[str] = (),
    needed: Sequence[str] = NEEDED_ROLES,
) -> dict[str, tuple[Path, ...]]:
    """Every file that is there by role, with an error for what cannot be done without.

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
    wanted = [file for file in profile.files if not roles or file.role in roles]
    for file in wanted:
        if own := _own_files(source, file, profile):
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
    return found


def fetch_command(name: str, profile: WeightProfile, *, roles: Sequence[str] = ()) -> str:
    """The exact command that downloads a profile, or some roles of it."""
    words = ["joyflash weights fetch", name, *(f"--role {role}" for role in roles)]
    files = select_files(profile, roles=roles)
    if not is_accepted(name, profile, files, read_lock(lock_path())):
        words.append("--accept-license")
    return " ".join(words)


def convert_command(name: str) -> str:
    """The exact command that makes a checkpoint of a downloaded profile."""
    return f"joyflash weights convert {name}"


def text_commands(name: str, *, is_default: bool = True) -> str:
    """Both ways to the states of a prompt: the text encoder here, or its work done elsewhere."""
    entry = read_manifest().get(name)
    option = "" if is_default else " --prompt TEXT"
    if entry is None or not {"text_encoder", PROMPT_ROLE} <= set(entry.roles):
        return f"joyflash weights prompt {name}{option} --checkpoint DIR_WITH_TEXT_ENCODER"
    here = fetch_command(name, entry, roles=("text_encoder", "tokenizer"))
    return (
        f"{here} && joyflash weights prompt {name}{option}; or, with an embedding made elsewhere, "
        f"joyflash weights fetch {name} --role {PROMPT_ROLE} --from FILE_OR_REPOSITORY"
    )


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
    if source.is_file() and file.role == "transformer" and file.format in WEIGHT_FORMATS:
        return source
    directory = source if source.is_dir() else source.parent
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
