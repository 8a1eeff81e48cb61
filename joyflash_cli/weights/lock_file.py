"""The lock file: what first downloads were, and which terms the user accepted.

Where ``weights.toml`` knows no revision, size or hash, the first download decides and is recorded
here; every later download must be the same. A copy that was hashed is recorded with the time of its
last change, so that 19 GB are not read again at every command.
"""

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from joyflash_cli.config import from_dict
from joyflash_cli.errors import CheckpointError, ConfigError
from joyflash_cli.files import write_whole
from joyflash_cli.weights.manifest import WeightFile, WeightProfile

LOCK_FORMAT = 1


@dataclass(frozen=True)
class LockedFile:
    """A file of one revision, as first downloaded.

    Attributes:
        bytes: Its size.
        sha256: Its hash.
        checked_ns: Time of the last change of the copy here that was hashed; 0 if none was.
    """

    bytes: int
    sha256: str
    checked_ns: int = 0


@dataclass(frozen=True)
class Lock:
    """The content of the lock file.

    Attributes:
        files: By ``owner/repository@commit/path``.
        revisions: The commit of a repository that the manifest does not pin.
        accepted: By profile: the licence text that was accepted.
    """

    files: Mapping[str, LockedFile] = field(default_factory=dict)
    revisions: Mapping[str, str] = field(default_factory=dict)
    accepted: Mapping[str, str] = field(default_factory=dict)

    def revision(self, file: WeightFile) -> str:
        """The commit to use: the manifest's, else the recorded one, else none."""
        return file.revision or self.revisions.get(file.repo, "")

    def size(self, file: WeightFile, revision: str) -> int:
        """The size that the file must have; 0 while unknown."""
        recorded = self.files.get(_key(file, revision))
        return file.bytes or (recorded.bytes if recorded else 0)

    def sha256(self, file: WeightFile, revision: str) -> str:
        """The hash that the file must have; empty while unknown."""
        recorded = self.files.get(_key(file, revision))
        return file.sha256 or (recorded.sha256 if recorded else "")

    def is_checked(self, file: WeightFile, revision: str, local: Path) -> bool:
        """Whether a copy was hashed, found right, and has not changed since."""
        recorded = self.files.get(_key(file, revision))
        now = local.stat()
        return (
            recorded is not None
            and (recorded.bytes, recorded.checked_ns) == (now.st_size, now.st_mtime_ns)
            and recorded.bytes == self.size(file, revision)
            and recorded.sha256 == self.sha256(file, revision)
        )


def read_lock(path: Path) -> Lock:
    """The lock file, or an empty one where there is none.

    Raises:
        CheckpointError: ``E-LOCK-DAMAGED``; a lock that cannot be read is never taken for none.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Lock()
    except OSError as error:
        raise _damaged(path, f"cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"is not JSON: {error}") from error
    if not isinstance(values, dict) or values.get("format") != LOCK_FORMAT:
        raise _damaged(path, f"is not a lock file of format {LOCK_FORMAT}")
    try:
        known = {field.name: values.get(field.name, {}) for field in fields(Lock)}
        return from_dict(Lock, known, path=path.name)
    except ConfigError as error:
        raise _damaged(path, f"has a wrong entry: {error.message}") from error


def record_download(path: Path, file: WeightFile, revision: str, local: Path, sha256: str) -> None:
    """Records a file that was downloaded and found right, and that its copy was hashed.

    Raises:
        CheckpointError: ``E-WEIGHTS-CHANGED`` if another process recorded other content meanwhile;
            ``E-LOCK-DAMAGED``.
        OSError: If the lock file cannot be written.
    """
    stat = local.stat()
    key = _key(file, revision)

    def change(lock: Lock) -> Lock:
        known = lock.files.get(key)
        if known is not None and known.sha256 != sha256:
            raise CheckpointError(
                f"{file.name} has the SHA-256 {sha256}; {known.sha256} was recorded before",
                hint="two downloads of the same revision differ: do not trust the source",
                code="E-WEIGHTS-CHANGED",
            )
        revisions = lock.revisions
        if not file.revision:
            revisions = {file.repo: revision, **revisions}
        entry = LockedFile(stat.st_size, sha256, stat.st_mtime_ns)
        return replace(lock, files={**lock.files, key: entry}, revisions=revisions)

    _update(path, change)


def forget_copy(path: Path, file: WeightFile, revision: str) -> None:
    """Removes the record that the copy of a file was hashed, so that it is hashed again.

    Raises:
        OSError: If the lock file cannot be written.
    """
    key = _key(file, revision)

    def change(lock: Lock) -> Lock:
        if key not in lock.files:
            return lock
        return replace(lock, files={**lock.files, key: replace(lock.files[key], checked_ns=0)})

    _update(path, change)


def record_acceptance(path: Path, profile: str, licence: str) -> None:
    """Records that the user accepted these terms for a profile.

    Raises:
        OSError: If the lock file cannot be written.
    """
    _update(path, lambda lock: replace(lock, accepted={**lock.accepted, profile: licence}))


def is_accepted(name: str, profile: WeightProfile, files: Sequence[WeightFile], lock: Lock) -> bool:
    """Whether nothing has to be accepted for these files, or these very terms were before."""
    if not profile.acceptance or not any(file.acceptance for file in files):
        return True
    return lock.accepted.get(name) == profile.licence


def require_acceptance(
    name: str,
    profile: WeightProfile,
    files: Sequence[WeightFile],
    *,
    accept: bool,
    lock_path: Path,
) -> tuple[str, ...]:
    """Warnings, once the terms are accepted: now by ``accept``, or in an earlier command.

    Args:
        name: The profile's.
        profile: Its licence is what must be accepted.
        files: What is about to be used.
        accept: Whether the user accepts now; remembered for this wording of the licence.
        lock_path: Where that is remembered.

    Raises:
        CheckpointError: ``E-LICENCE`` when the terms are not accepted.
    """
    if is_accepted(name, profile, files, read_lock(lock_path)):
        return ()
    if not accept:
        note = f"; {profile.note}" if profile.note else ""
        raise CheckpointError(
            f"the terms of {name} must be accepted: {profile.licence}{note}",
            hint="read them at their source, then add --accept-license",
            code="E-LICENCE",
        )
    try:
        record_acceptance(lock_path, name, profile.licence)
    except OSError as error:
        return (f"{lock_path} cannot be written ({error.strerror}); the acceptance is not kept",)
    return ()


def _update(path: Path, change: Callable[[Lock], Lock]) -> None:
    """Applies ``change`` and replaces the file in one step, one process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(path.with_suffix(".guard")):
        before = read_lock(path)
        after = change(before)
        if after != before:
            values = {"format": LOCK_FORMAT, **asdict(after)}
            text = json.dumps(values, indent=1, sort_keys=True) + "\n"
            write_whole(path, text, mark=uuid.uuid4().hex, durable=True)


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    import fcntl

    with path.open("a") as file:
        # Without locks a record may be lost, and is made again later; the file itself is whole.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _key(file: WeightFile, revision: str) -> str:
    return f"{file.repo}@{revision}/{file.path}"


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} {what}",
        hint="it holds the hashes of first downloads; move it away to start again",
        code="E-LOCK-DAMAGED",
    )
