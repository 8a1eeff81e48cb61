"""The lock file: what first downloads were, and which terms the user accepted.

Where ``weights.toml`` knows no revision, size or hash, the first download decides and is recorded
here; every later download must be the same. Beside that the file remembers which local copies were
hashed already, so that 19 GB are not read again at every command.
"""

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from joyflash_cli.config import from_dict, to_dict
from joyflash_cli.errors import CheckpointError, ConfigError
from joyflash_cli.files import write_whole
from joyflash_cli.weights.manifest import WeightFile

LOCK_FORMAT = 1
NUM_TRIES = 5


@dataclass(frozen=True)
class LockedFile:
    """Size and SHA-256 of a file of one revision, as first downloaded."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class CheckedCopy:
    """A local copy that was hashed: valid while its size and time of change stay."""

    bytes: int
    modified_ns: int
    sha256: str


@dataclass(frozen=True)
class Lock:
    """The content of the lock file.

    Attributes:
        files: By ``owner/repository@commit/path``.
        revisions: The commit of a repository that the manifest does not pin.
        checked: By absolute path of the copy.
        accepted: By profile: the licence text that was accepted.
    """

    files: Mapping[str, LockedFile] = field(default_factory=dict)
    revisions: Mapping[str, str] = field(default_factory=dict)
    checked: Mapping[str, CheckedCopy] = field(default_factory=dict)
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

    def checked_sha256(self, path: Path) -> str:
        """The hash of a local copy if it was taken and the copy has not changed; else empty."""
        entry = self.checked.get(str(path))
        try:
            now = path.stat()
        except OSError:
            return ""
        unchanged = entry and (entry.bytes, entry.modified_ns) == (now.st_size, now.st_mtime_ns)
        return entry.sha256 if entry and unchanged else ""


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
    if not isinstance(values, dict) or values.pop("format", None) != LOCK_FORMAT:
        raise _damaged(path, f"is not a lock file of format {LOCK_FORMAT}")
    try:
        return Lock(
            files=_entries(values.pop("files", {}), LockedFile),
            checked=_entries(values.pop("checked", {}), CheckedCopy),
            **{name: _texts(values.pop(name, {})) for name in ("revisions", "accepted")},
        )
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
    copy = CheckedCopy(stat.st_size, stat.st_mtime_ns, sha256)

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
        return replace(
            lock,
            files={**lock.files, key: LockedFile(stat.st_size, sha256)},
            revisions=revisions,
            checked={**lock.checked, str(local): copy},
        )

    _update(path, change)


def forget_copy(path: Path, local: Path) -> None:
    """Removes the record that a local copy was hashed, so that it is hashed again.

    Raises:
        OSError: If the lock file cannot be written.
    """
    _update(
        path,
        lambda lock: replace(
            lock, checked={name: copy for name, copy in lock.checked.items() if name != str(local)}
        ),
    )


def record_acceptance(path: Path, profile: str, licence: str) -> None:
    """Records that the user accepted these terms for a profile.

    Raises:
        OSError: If the lock file cannot be written.
    """
    _update(path, lambda lock: replace(lock, accepted={**lock.accepted, profile: licence}))


def _update(path: Path, change: Callable[[Lock], Lock]) -> None:
    """Applies ``change`` and replaces the file in one step.

    An advisory lock keeps processes apart. Where it does nothing (some network file systems), the
    file is read back and the change made again if another process wrote over it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(path.with_suffix(".guard")):
        for _ in range(NUM_TRIES):
            before = read_lock(path)
            after = change(before)
            if after == before:
                return
            _write(path, after)
            written = read_lock(path)
            if change(written) == written:
                return


def _write(path: Path, lock: Lock) -> None:
    text = json.dumps({"format": LOCK_FORMAT, **_plain(lock)}, indent=1, sort_keys=True)
    write_whole(path, text + "\n", mark=uuid.uuid4().hex, durable=True)


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    import fcntl

    with path.open("a") as file:
        # Without working locks the read-back in _update keeps the content whole.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _plain(lock: Lock) -> dict[str, Any]:
    return {
        "files": {name: to_dict(entry) for name, entry in lock.files.items()},
        "revisions": dict(lock.revisions),
        "checked": {name: to_dict(entry) for name, entry in lock.checked.items()},
        "accepted": dict(lock.accepted),
    }


def _entries(values: Any, kind: type) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigError("a table is needed")
    return {name: from_dict(kind, entry, path=name) for name, entry in values.items()}


def _texts(values: Any) -> dict[str, str]:
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        raise ConfigError("a table of texts is needed")
    return values


def _key(file: WeightFile, revision: str) -> str:
    return f"{file.repo}@{revision}/{file.path}"


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} {what}",
        hint="it holds the hashes of first downloads; move it away to start again",
        code="E-LOCK-DAMAGED",
    )
