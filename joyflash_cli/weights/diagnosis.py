"""The state of what is on disk and of the way to the Hub, for a report on the machine."""

import base64
import os
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from joyflash_cli.errors import CheckpointError
from joyflash_cli.files import file_sha256
from joyflash_cli.weights.integrity import CHECKSUMS, read_checksums
from joyflash_cli.weights.manifest import read_manifest
from joyflash_cli.weights.places import hub_cache, hub_endpoint, is_offline, public_url
from joyflash_cli.weights.store import embedded_directory

DISTRIBUTION = "joyflash"
HUB_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class FileState:
    """One file of an embedded checkpoint.

    Attributes:
        name: ``tiny/transformer.safetensors``.
        num_bytes: Its size.
        sha256: Of its bytes.
        is_as_installed: Whether that is what the installer and the checkpoint's own checksums
            recorded; ``None`` without any record.
    """

    name: str
    num_bytes: int
    sha256: str
    is_as_installed: bool | None


def embedded_files() -> list[FileState]:
    """Every file of every embedded checkpoint, hashed."""
    recorded = _recorded_hashes()
    states = []
    for profile, entry in read_manifest().items():
        folder = embedded_directory(profile)
        if entry.source != "embedded" or not folder.is_dir():
            continue
        exported = _exported_hashes(folder)
        for path in sorted(p for p in folder.iterdir() if p.is_file() and p.name != CHECKSUMS):
            digest = file_sha256(path)
            known = (recorded.get(path.resolve()), exported.get(path.name))
            expected = [value for value in known if value is not None]
            states.append(
                FileState(
                    name=f"{profile}/{path.name}",
                    num_bytes=path.stat().st_size,
                    sha256=digest,
                    is_as_installed=all(e == digest for e in expected) if expected else None,
                )
            )
    return states


def _exported_hashes(folder: Path) -> dict[str, str]:
    """What the export wrote down about the files of a checkpoint, by name."""
    try:
        return {name: entry["sha256"] for name, entry in read_checksums(folder).items()}
    except CheckpointError:
        # A record that cannot be read agrees with nothing: every file is reported.
        return {path.name: "" for path in folder.iterdir()}


def _recorded_hashes() -> dict[Path, str]:
    """What the installer wrote down about the package's files; empty where it did not."""
    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return {}
    hashes = {}
    for file in files:
        if file.hash is not None and file.hash.mode == "sha256" and "assets" in file.parts:
            value = file.hash.value
            padded = value + "=" * (-len(value) % 4)
            hashes[Path(str(file.locate())).resolve()] = base64.urlsafe_b64decode(padded).hex()
    return hashes


@dataclass(frozen=True)
class CacheState:
    """Where downloads go.

    Attributes:
        directory: The Hub's shared cache.
        is_writable: Whether files can be put there.
        free_bytes: Left on its disk; ``None`` where nothing of the path exists.
    """

    directory: Path
    is_writable: bool
    free_bytes: int | None


def cache_state() -> CacheState:
    """The Hub's cache, which need not exist yet."""
    directory = hub_cache()
    existing = next((p for p in (directory, *directory.parents) if p.exists()), None)
    if existing is None:
        return CacheState(directory, False, None)
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    return CacheState(directory, writable, shutil.disk_usage(existing).free)


@dataclass(frozen=True)
class HubState:
    """Whether the Hub answers.

    Attributes:
        endpoint: Its address, without credentials.
        is_reachable: ``None`` when it was not asked.
        detail: Status or reason, one line.
    """

    endpoint: str
    is_reachable: bool | None
    detail: str


def hub_state(*, ask: bool, timeout_s: float = HUB_TIMEOUT_S) -> HubState:
    """The Hub's address and, when asked to try, its answer; nothing is sent but the question.

    Raises:
        UsageError: When ``HF_ENDPOINT`` is no address.
    """
    endpoint = hub_endpoint()
    shown = public_url(endpoint)
    if is_offline():
        return HubState(shown, None, "not asked: HF_HUB_OFFLINE is set")
    if not ask:
        return HubState(shown, None, "not asked")
    request = urllib.request.Request(f"{endpoint}/", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return HubState(shown, True, f"answers with {answer.status}")
    except urllib.error.HTTPError as error:
        return HubState(shown, error.code < 500, f"answers with {error.code}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return HubState(shown, False, f"does not answer: {' '.join(str(reason).split())}")
