"""Files of weights against what they must be: every byte of them, on demand."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights import places
from joyflash_cli.weights.fetch_plan import PlannedFile, check_copy
from joyflash_cli.weights.hub import cached_path
from joyflash_cli.weights.integrity import (
    CHECKSUMS,
    check_safetensors,
    hash_file,
    read_checksums,
)
from joyflash_cli.weights.lock_file import Lock, forget_copy, read_lock
from joyflash_cli.weights.manifest import WeightFile, WeightProfile
from joyflash_cli.weights.store import embedded_directory


@dataclass(frozen=True)
class Finding:
    """What was found out about one file.

    Attributes:
        name: For people: ``owner/repository/path``, or a path on this machine.
        role: The manifest's, or ``checkpoint`` for a file of an embedded or converted checkpoint.
        state: ``ok``; ``unknown`` is here but nothing to compare it with was ever recorded;
            ``absent`` is optional or not needed; ``missing`` and ``damaged`` are failures.
        detail: What is wrong; empty otherwise.
        path: Where it is, or ``None``.
        sha256: As read now; empty where it was not.
    """

    name: str
    role: str
    state: Literal["ok", "unknown", "absent", "missing", "damaged"]
    detail: str = ""
    path: Path | None = None
    sha256: str = ""

    @property
    def failed(self) -> bool:
        """Whether the file is not what the profile needs."""
        return self.state in ("missing", "damaged")


def verify_profile(
    name: str, profile: WeightProfile, *, on_file: Callable[[Finding], None] = lambda _: None
) -> tuple[Finding, ...]:
    """Findings about every file of a profile: embedded, downloaded and converted.

    A damaged download is no longer taken for checked, so that the next fetch replaces it. Downloads
    that are gone are no failure once the profile is converted.

    Args:
        name: The profile's.
        profile: Its entry of ``weights.toml``.
        on_file: Hears each finding as soon as it is made; large files take a while.

    Raises:
        CheckpointError: ``E-LOCK-DAMAGED``.
    """
    findings = []
    converted = places.converted_directory(name)
    lock = read_lock(places.lock_path())
    checks = [
        lambda file=file: _verify_download(file, lock, needed=not converted.is_dir())
        for file in profile.files
    ]
    for check in checks:
        findings.append(check())
        on_file(findings[-1])
    directory = embedded_directory(name) if profile.source == "embedded" else converted
    if profile.source == "embedded" or directory.is_dir():
        for finding in _verify_directory(directory):
            findings.append(finding)
            on_file(finding)
    return tuple(findings)


def _verify_download(file: WeightFile, lock: Lock, *, needed: bool) -> Finding:
    revision = lock.revision(file)
    local = cached_path(file, revision)
    if local is None:
        is_failure = needed and not file.optional
        return Finding(file.name, file.role, "missing" if is_failure else "absent")
    sha256, size = lock.sha256(file, revision), lock.size(file, revision)
    planned = PlannedFile(file, revision, size, sha256, "check", local)
    try:
        found = check_copy(planned, local, lambda _: None)
    except CheckpointError as error:
        # A lock file that cannot be written holds no record that this copy is right, either.
        with contextlib.suppress(OSError):
            forget_copy(places.lock_path(), file, revision)
        return Finding(file.name, file.role, "damaged", error.message, local)
    return Finding(file.name, file.role, "ok" if sha256 else "unknown", "", local, found)


def _verify_directory(directory: Path) -> list[Finding]:
    """Findings about the files of a checkpoint directory, against its own checksums."""
    if not directory.is_dir():
        return [Finding(str(directory), "checkpoint", "missing")]
    try:
        known = read_checksums(directory)
    except CheckpointError as error:
        return [Finding(str(directory / CHECKSUMS), "checkpoint", "damaged", error.message)]
    names = set(known) | {file.name for file in directory.glob("*.safetensors")}
    return [_verify_local(directory / name, known.get(name, {})) for name in sorted(names)]


def _verify_local(path: Path, expected: dict[str, object]) -> Finding:
    if not path.is_file():
        return Finding(str(path), "checkpoint", "missing")
    try:
        if path.suffix == ".safetensors":
            check_safetensors(path)
        sha256 = hash_file(path)
    except CheckpointError as error:
        return Finding(str(path), "checkpoint", "damaged", error.message, path)
    if not expected:
        return Finding(str(path), "checkpoint", "unknown", "", path, sha256)
    if sha256 != expected["sha256"]:
        detail = f"{path} has the SHA-256 {sha256}; {expected['sha256']} was written"
        return Finding(str(path), "checkpoint", "damaged", detail, path, sha256)
    return Finding(str(path), "checkpoint", "ok", "", path, sha256)
