"""The state of what is on disk and of the way to the Hub, for a report on the machine."""

import base64
import os
import shutil
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

from joyflash_cli.errors import CheckpointError
from joyflash_cli.files import file_sha256
from joyflash_cli.weights.integrity import CHECKSUMS, read_checksums
from joyflash_cli.weights.manifest import read_manifest
from joyflash_cli.weights.places import hub_cache, hub_endpoint, is_offline, public_url
from joyflash_cli.weights.store import embedded_directory

DISTRIBUTION = "joyflash"
HUB_TIMEOUT_S = 5.0


def embedded_files() -> list[dict[str, Any]]:
    """Every file of every embedded checkpoint, hashed.

    Returns:
        For each its ``name``, such as ``tiny/transformer.safetensors``, ``num_bytes``, ``sha256``,
        and ``is_as_installed``: whether that is what the installer and the checkpoint's own
        checksums recorded, ``None`` without any record.
    """
    recorded = _recorded_hashes()
    states = []
    for profile, entry in read_manifest().items():
        folder = embedded_directory(profile)
        if entry.source != "embedded" or not folder.is_dir():
            continue
        try:
            exported = {name: entry["sha256"] for name, entry in read_checksums(folder).items()}
        except CheckpointError:  # a record that cannot be read agrees with nothing
            exported = {path.name: "" for path in folder.iterdir()}
        for path in sorted(p for p in folder.iterdir() if p.is_file() and p.name != CHECKSUMS):
            digest = file_sha256(path)
            known = (recorded.get(path.resolve()), exported.get(path.name))
            expected = [value for value in known if value is not None]
            states.append(
                {
                    "name": f"{profile}/{path.name}",
                    "num_bytes": path.stat().st_size,
                    "sha256": digest,
                    "is_as_installed": all(e == digest for e in expected) if expected else None,
                }
            )
    return states


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


def cache_state() -> dict[str, Any]:
    """The Hub's cache, which need not exist yet.

    Returns:
        Its ``directory``, whether it ``is_writable``, and the ``free_bytes`` left on its disk,
        ``None`` where nothing of the path exists.
    """
    directory = hub_cache()
    existing = next((p for p in (directory, *directory.parents) if p.exists()), None)
    is_folder = existing is not None and existing.is_dir()
    return {
        "directory": str(directory),
        "is_writable": is_folder and os.access(existing or "", os.W_OK | os.X_OK),
        "free_bytes": None if existing is None else shutil.disk_usage(existing).free,
    }


def hub_state(*, ask: bool, timeout_s: float = HUB_TIMEOUT_S) -> dict[str, Any]:
    """The Hub's address and, when asked to try, its answer; nothing is sent but the question.

    Returns:
        Its ``endpoint`` without credentials, whether it ``is_reachable``, ``None`` when it was not
        asked, and a ``detail``: status or reason, one line.

    Raises:
        UsageError: When ``HF_ENDPOINT`` is no address.
    """
    endpoint, reachable = hub_endpoint(), None
    if is_offline():
        detail = "not asked: HF_HUB_OFFLINE is set"
    elif not ask:
        detail = "not asked"
    else:
        request = urllib.request.Request(f"{endpoint}/", method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                reachable, detail = True, f"answers with {answer.status}"
        except urllib.error.HTTPError as error:
            reachable, detail = error.code < 500, f"answers with {error.code}"
        except (OSError, ValueError) as error:
            reason = " ".join(str(getattr(error, "reason", error)).split())
            reachable, detail = False, f"does not answer: {reason}"
    return {"endpoint": public_url(endpoint), "is_reachable": reachable, "detail": detail}
