"""What a fetch will do: which files are here, which are not, and whether they are the right ones.

A size or hash that contradicts ``weights.toml`` or the lock file is refused before a byte is
downloaded, and so is a plan that does not fit on the disk.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights import places
from joyflash_cli.weights.copies import PlannedFile, wrong_hash
from joyflash_cli.weights.hub import Hub, quiet_session, read_remote
from joyflash_cli.weights.lock_file import Lock, read_lock
from joyflash_cli.weights.manifest import WeightFile, WeightProfile
from joyflash_cli.weights.sources import fetch_command

MAIN_REVISION = "main"
MAX_POINTER_BYTES = 1024


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
    with quiet_session():
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


def free_disk_bytes(folder: Path) -> int:
    """Room on the disk where a folder is, or will be once it is made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _planned_local(file: WeightFile, lock: Lock, hub: Hub) -> PlannedFile | None:
    """The plan for a file that is here; ``None`` when it is not."""
    revision = lock.revision(file)
    if not revision and hub.offline:
        revision = places.cached_revision(file, cache=hub.cache)
    local = places.cached_path(file, revision, cache=hub.cache)
    if local is None:
        return None
    sha256 = lock.sha256(file, revision) or _blob_sha256(local)
    size = lock.size(file, revision)
    checked = lock.checked_sha256(local)
    is_ready = bool(checked) and checked == (sha256 or checked) and size in (0, _size(local))
    return PlannedFile(
        file,
        revision,
        size or _size(local),
        sha256,
        "ready" if is_ready else "check",
        local,
    )


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
        raise wrong_hash(file, remote.sha256, sha256)
    local = places.cached_path(file, remote.revision, cache=hub.cache)
    return PlannedFile(
        file,
        remote.revision,
        size or remote.bytes,
        sha256 or remote.sha256,
        "download" if local is None else "check",
        local,
    )


def _blob_sha256(local: Path) -> str:
    """The hash by which the cache itself names a large file; empty for others."""
    name = Path(os.readlink(local)).name if local.is_symlink() else ""
    return name if len(name) == 64 and set(name) <= set("0123456789abcdef") else ""


def _size(path: Path) -> int:
    return path.stat().st_size
