"""Who works on what: atomic claims with a lease, so that no row is rendered by two runs.

A claim is a file ``<name>.<generation>`` that only one process can create. Its owner, one running
batch, renews one heartbeat file. When that is older than the lease, or its process is known to be
gone, the claim counts as abandoned, and whoever creates the *next* generation has taken it over.
Nobody removes a claim of somebody else, so there is no moment at which two could both succeed.
Ages are differences of the file system's own times; clocks of different machines do not matter.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyflash_cli.errors import OutputError

LEASE_S = 60.0
"""Silence after which a run on another machine counts as dead."""

_RENEWALS_PER_LEASE = 6
_CLAIM = re.compile(r"(?P<name>[0-9a-f]+)\.(?P<generation>[0-9]+)")


@dataclass(frozen=True)
class Claim:
    """A claim of ours.

    Attributes:
        name: What is claimed: lower-case hex digits.
        generation: 0, or one more than the abandoned claim it follows.
    """

    name: str
    generation: int


class Claims:
    """The claims in a folder, seen by one run.

    Args:
        folder: Shared by all runs; ``claims`` and ``owners`` are made in it.
        lease_s: See ``LEASE_S``.
    """

    def __init__(self, folder: Path, *, lease_s: float = LEASE_S) -> None:
        self.host = socket.gethostname()
        host = re.sub(r"[^A-Za-z0-9.-]", "-", self.host)[:64] or "host"
        self.owner = f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._claims = folder / "claims"
        self._owners = folder / "owners"
        self._lease_s = lease_s
        self._renewed_at: float | None = None
        self._held: set[Claim] = set()

    def open(self) -> None:
        """Makes this run known.

        Raises:
            OutputError: If the folder cannot be written.
        """
        try:
            self._claims.mkdir(parents=True, exist_ok=True)
            self._owners.mkdir(exist_ok=True)
            self._write_owner()
        except OSError as error:
            raise _cannot_claim(self._owners, error) from error

    def renew(self) -> None:
        """Says that this run is alive; cheap enough to call anywhere in a loop."""
        now = time.monotonic()
        if self._renewed_at is None or now - self._renewed_at > self._lease_s / _RENEWALS_PER_LEASE:
            self._renewed_at = now
            try:
                self._now()
            except OSError as error:
                raise _cannot_claim(self._own_file, error) from error

    def take(self, name: str) -> Claim | None:
        """A claim on ``name``, or ``None`` while somebody else has one.

        Raises:
            OutputError: If the folder cannot be written.
        """
        try:
            found = self._generations(name)
            if not all(self._is_abandoned(name, generation) for generation in found):
                return None
            claim = Claim(name, max(found, default=-1) + 1)
            if not self._create(claim):
                return None
            # Another run may have looked before an old claim was released and created after it.
            others = [number for number in self._generations(name) if number != claim.generation]
            alone = all(
                number < claim.generation and self._is_abandoned(name, number) for number in others
            )
            if not alone:
                self._remove(claim)
                return None
        except OSError as error:
            raise _cannot_claim(self._claims, error) from error
        self._held.add(claim)
        return claim

    def is_free(self, name: str) -> bool:
        """Whether ``take`` has a chance."""
        return all(self._is_abandoned(name, number) for number in self._generations(name))

    def holds(self, claim: Claim) -> bool:
        """Whether a claim is still ours: a run that was suspended may have been taken for dead."""
        return max(self._generations(claim.name), default=-1) == claim.generation and (
            self._read(self._path(claim)) == self.owner
        )

    def release(self, claim: Claim) -> None:
        """Gives a claim up, with the abandoned ones it followed; nothing if it is ours no more."""
        self._held.discard(claim)
        if not self.holds(claim):
            return
        # In rising order: the newest claim must be the last to vanish, or an abandoned one would
        # look like the only one for a moment.
        for generation in sorted(self._generations(claim.name)):
            if generation <= claim.generation:
                self._remove(Claim(claim.name, generation))

    def close(self) -> None:
        """Releases everything and takes this run off the list."""
        for claim in sorted(self._held, key=lambda held: held.name):
            with contextlib.suppress(OSError):
                self.release(claim)
        self._own_file.unlink(missing_ok=True)

    def clean(self) -> None:
        """Removes what runs that are gone have left: claims on rows they had finished, heartbeats.

        A claim is only ever removed by who has taken it over.
        """
        for name in {match["name"] for match in self._files()}:
            claim = self.take(name)
            if claim is not None:
                self.release(claim)
        for path in self._owners.glob("*.json"):
            if path != self._own_file and self._owner_is_gone(path.stem, path):
                path.unlink(missing_ok=True)

    def is_dead(self, owner: str, folder: Path) -> bool:
        """Whether a run that left a folder behind is gone.

        Args:
            owner: Its name.
            folder: Whose age counts where the run itself has left no trace.
        """
        return owner != self.owner and self._owner_is_gone(owner, folder)

    @property
    def _own_file(self) -> Path:
        return self._owners / f"{self.owner}.json"

    def _write_owner(self) -> None:
        who = {"host": self.host, "pid": os.getpid(), "machine": _machine()}
        who["started"] = _start_of(os.getpid())
        try:
            self._own_file.write_text(json.dumps(who), encoding="utf-8")
        except OSError:
            self._own_file.unlink(missing_ok=True)
            raise

    def _now(self) -> float:
        """The file system's time, which is also our heartbeat."""
        try:
            os.utime(self._own_file)
        except FileNotFoundError:
            self._write_owner()
        return self._own_file.stat().st_mtime

    def _files(self) -> list[re.Match[str]]:
        """The names of all claims, in their parts."""
        with os.scandir(self._claims) as entries:
            found = [_CLAIM.fullmatch(entry.name) for entry in entries]
        return [match for match in found if match is not None]

    def _generations(self, name: str) -> list[int]:
        return [int(match["generation"]) for match in self._files() if match["name"] == name]

    def _path(self, claim: Claim) -> Path:
        return self._claims / f"{claim.name}.{claim.generation}"

    def _create(self, claim: Claim) -> bool:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        try:
            descriptor = os.open(self._path(claim), flags, 0o666)
        except FileExistsError:
            return False
        try:
            os.write(descriptor, self.owner.encode())
            os.fsync(descriptor)
        except OSError:
            self._remove(claim)  # a claim of nobody would hold the row up for a whole lease
            raise
        finally:
            os.close(descriptor)
        return True

    def _remove(self, claim: Claim) -> None:
        self._path(claim).unlink(missing_ok=True)

    def _is_abandoned(self, name: str, generation: int) -> bool:
        path = self._path(Claim(name, generation))
        owner = self._read(path)
        if owner is None:
            return False  # it vanished this moment; the next look will tell
        if owner == self.owner:
            return False
        return self._owner_is_gone(owner, path)

    def _owner_is_gone(self, owner: str, trace: Path) -> bool:
        """By its process on this machine, else by the age of its heartbeat (or of ``trace``)."""
        path = self._owners / f"{owner}.json" if owner else trace
        who: Any = {}
        with contextlib.suppress(OSError, ValueError):
            who = json.loads(path.read_text(encoding="utf-8")) if owner else {}
        if isinstance(who, dict) and who.get("machine") and who["machine"] == _machine():
            pid = who.get("pid")
            if not (isinstance(pid, int) and _start_of(pid) == who.get("started")):
                return True
        for sign_of_life in (path, trace):
            try:
                return self._now() - sign_of_life.stat().st_mtime > self._lease_s
            except FileNotFoundError:
                continue
        return False

    @staticmethod
    def _read(path: Path) -> str | None:
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None


def _machine() -> str:
    """This boot of this machine and this container's view of its processes; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_of(pid: int) -> int | None:
    """When a process began, in clock ticks since the boot; ``None`` if it has ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is a name in brackets, which may hold anything.
    fields = status.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _cannot_claim(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path} cannot be written: {error.strerror or error}",
        hint="choose another --out-dir",
        code="E-OUTPUT-FOLDER",
    )
