"""What a fetch will do: which files are here, which are not, and whether they are the right ones.

A size or hash that contradicts ``weights.toml`` or the lock file is refused before a byte is
downloaded, and so is a plan that does not fit on the disk.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from joyflash_cli.errors import CheckpointError
from joyflash_cli.files import free_disk_bytes
from joyflash_cli.weights import places
from joyflash_cli.weights.hub import (
    Hub,
    cached_path,
    cached_revision,
    quiet_library,
    read_remote,
)
from joyflash_cli.weights.integrity import check_format, hash_file
from joyflash_cli.weights.lock_file import Lock, read_lock
from joyflash_cli.weights.manifest import WeightFile, WeightProfile
from joyflash_cli.weights.sources import fetch_command

MAIN_REVISION = "main"
MAX_POINTER_BYTES = 1024


@dataclass(frozen=True)
class PlannedFile:
    """One file of a fetch.

    Attributes:
        file: The manifest's entry.
        revision: Full commit.
        bytes: Size; 0 while unknown.
        sha256: What it must be; empty while unknown.
        state: ``ready`` is here and was hashed, ``check`` is here, ``download`` is not.
        local: Where it is, unless it has to be downloaded.
    """

    file: WeightFile
    revision: str
    bytes: int
    sha256: str
    state: Literal["ready", "check", "download"]
    local: Path | None = None


@dataclass(frozen=True)
class FetchPlan:
    """What a fetch will do.

    Attributes:
        profile: Its name.
        files: In the order of the manifest.
        hub: Where they come from and go to.
        free_bytes: Room on the disk of the cache.
    """

    profile: str
    files: tuple[PlannedFile, ...]
    hub: Hub
    free_bytes: int

    @property
    def download_bytes(self) -> int:
        """Bytes to download, files of unknown size not counted."""
        return sum(file.bytes for file in self.files if file.state == "download")

    @property
    def num_downloads(self) -> int:
        """Files to download."""
        return sum(file.state == "download" for file in self.files)


def plan_fetch(
    name: str, profile: WeightProfile, files: Sequence[WeightFile], *, hub: Hub
) -> FetchPlan:
    """What has to be downloaded, asked of the Hub but not begun.

    A size or hash that contradicts the manifest or the lock file is refused here, before a byte.

    Args:
        name: The profile's.
        profile: Whose files they are.
        files: Which to have at the end.
        hub: Where to ask.

    Raises:
        CheckpointError: When a file cannot be had, or is not what it must be.
    """
    lock = read_lock(places.lock_path())
    planned: list[PlannedFile] = []
    missing = []
    with quiet_library():
        for file in files:
            local = _planned_local(file, lock, hub)
            if local is None and hub.offline:
                missing.append(file)
            else:
                planned.append(local or _planned_download(file, lock, hub, planned))
    if missing:
        names = ", ".join(file.name for file in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        roles = tuple(dict.fromkeys(file.role for file in missing))
        raise CheckpointError(
            f"offline, and not on this machine: {names}{more}",
            hint=f"with a network: {fetch_command(name, profile, roles=roles)}",
            code="E-HUB-OFFLINE",
        )
    return FetchPlan(name, tuple(planned), hub, free_disk_bytes(hub.cache))


def check_room(plan: FetchPlan) -> None:
    """Refuses a plan that does not fit on the disk.

    Raises:
        CheckpointError: ``E-WEIGHTS-DISK``.
    """
    if plan.download_bytes > plan.free_bytes:
        raise CheckpointError(
            f"{plan.profile} needs {plan.download_bytes / 1e9:.1f} GB more in {plan.hub.cache}, "
            f"where {plan.free_bytes / 1e9:.1f} GB are free",
            hint="make room, or set HF_HOME to a larger disk",
            code="E-WEIGHTS-DISK",
        )


def check_copy(planned: PlannedFile, local: Path, on_bytes: Callable[[int], None]) -> str:
    """The SHA-256 of a local copy, once its kind, size and hash are found right.

    Raises:
        CheckpointError: Naming what differs; the copy is left where it is.
    """
    file = planned.file
    try:
        # Told first, because it explains a wrong size better than the size does.
        check_format(local, file.format)
    except CheckpointError as error:
        raise CheckpointError(
            error.message.replace(str(local), file.name),
            hint="fetch it again; if that does not help, try another mirror with HF_ENDPOINT",
            code=error.code,
        ) from error
    size = local.stat().st_size
    if planned.bytes and size != planned.bytes:
        raise CheckpointError(
            f"{file.name} has {size} bytes; {planned.bytes} are expected",
            hint="the file was cut or replaced; fetch it again",
            code="E-WEIGHTS-SIZE",
        )
    sha256 = hash_file(local, on_bytes=on_bytes)
    if planned.sha256 and sha256 != planned.sha256:
        raise _wrong_hash(file, sha256, planned.sha256)
    return sha256


def _planned_local(file: WeightFile, lock: Lock, hub: Hub) -> PlannedFile | None:
    """The plan for a file that is here; ``None`` when it is not."""
    revision = lock.revision(file)
    if not revision and hub.offline:
        revision = cached_revision(file, cache=hub.cache)
    local = cached_path(file, revision, cache=hub.cache) if revision else None
    if local is None:
        return None
    is_ready = lock.is_checked(file, revision, local)
    size = lock.size(file, revision) or local.stat().st_size
    sha256 = lock.sha256(file, revision)
    return PlannedFile(file, revision, size, sha256, "ready" if is_ready else "check", local)


def _planned_download(
    file: WeightFile, lock: Lock, hub: Hub, planned: Sequence[PlannedFile]
) -> PlannedFile:
    """The plan for a file that is not here, compared with what the Hub says about it."""
    same_repo = [entry.revision for entry in planned if entry.file.repo == file.repo]
    # All files of a repository must come from one commit, or they may not fit each other.
    revision = lock.revision(file) or (same_repo[0] if same_repo else MAIN_REVISION)
    remote = read_remote(hub, file, revision)
    if revision not in (MAIN_REVISION, remote.revision):
        raise CheckpointError(
            f"{hub.url(file, revision)} was answered with the commit {remote.revision}",
            hint="this mirror does not serve revisions; try another with HF_ENDPOINT",
            code="E-HUB-REVISION",
        )
    size = lock.size(file, remote.revision)
    sha256 = lock.sha256(file, remote.revision)
    if size and remote.bytes and size != remote.bytes:
        is_pointer = remote.bytes < MAX_POINTER_BYTES < size
        raise CheckpointError(
            f"{hub.url(file, revision)} has {remote.bytes} bytes; {size} are expected",
            hint="that is the size of a Git LFS pointer: this mirror does not serve the weights; "
            "try another with HF_ENDPOINT"
            if is_pointer
            else "the Hub or mirror offers another file than the one that is known",
            code="E-WEIGHTS-SIZE",
        )
    if sha256 and remote.sha256 and sha256 != remote.sha256:
        raise _wrong_hash(file, remote.sha256, sha256)
    local = cached_path(file, remote.revision, cache=hub.cache)
    return PlannedFile(
        file,
        remote.revision,
        size or remote.bytes,
        sha256 or remote.sha256,
        "download" if local is None else "check",
        local,
    )


def _wrong_hash(file: WeightFile, found: str, expected: str) -> CheckpointError:
    """The error for a file, here or at the Hub, that is another one than is known."""
    return CheckpointError(
        f"{file.name} has the SHA-256 {found}; {expected} is expected",
        hint="it was damaged or replaced, and is not kept; try again, or another mirror",
        code="E-WEIGHTS-HASH",
    )
