"""Which files of a profile are on this machine already, and the commands that bring the others."""

from collections.abc import Sequence
from pathlib import Path

from joyflash_cli.errors import CheckpointError, UsageError
from joyflash_cli.weights.hub import cached_path
from joyflash_cli.weights.licences import is_accepted
from joyflash_cli.weights.lock_file import Lock, read_lock
from joyflash_cli.weights.manifest import (
    WeightFile,
    WeightProfile,
    find_profile,
    read_manifest,
    select_files,
)
from joyflash_cli.weights.places import lock_path

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
