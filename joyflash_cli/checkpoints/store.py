"""Where a checkpoint's files are: inside the package, or in a directory the user names.

A checkpoint is a directory of ``checkpoint.json`` (what the weights are) and one safetensors file
per part. Nothing else is ever loaded, so nothing in a checkpoint can execute.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyflash_cli.checkpoints.manifest import WeightProfile, find_profile
from joyflash_cli.errors import CheckpointError

CHECKPOINT_FORMAT = 1
PARTS = ("transformer", "codec", "front_end")
"""Parts with weights of their own: ``<part>.safetensors`` and a section of ``checkpoint.json``."""

SECTIONS = (*PARTS, "sampler", "framing")
OPTIONAL_SECTIONS = ("conditioning",)
REQUIRED_FILES = ("checkpoint.json", *(f"{part}.safetensors" for part in PARTS))
PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")
MAX_DESCRIPTION_BYTES = 1 << 20

_DESCRIPTION_KEYS = ("format", "name", "version", "licence", "note")
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class CheckpointFiles:
    """A complete checkpoint directory whose description was read; no weights were.

    Attributes:
        directory: Holds ``checkpoint.json`` and one safetensors file per part.
        name: The checkpoint's own name.
        version: The checkpoint's own version.
        licence: Licence of the weights.
        sections: Configuration by section name: ``SECTIONS`` and, empty where the description
            leaves them out, ``OPTIONAL_SECTIONS``.
    """

    directory: Path
    name: str
    version: str
    licence: str
    sections: Mapping[str, Mapping[str, Any]]

    def weights(self, part: str) -> Path:
        """The safetensors file of one of ``PARTS``."""
        return self.directory / f"{part}.safetensors"

    def section(self, name: str) -> Mapping[str, Any]:
        """Configuration of one of ``SECTIONS`` or ``OPTIONAL_SECTIONS``."""
        return self.sections[name]


def resolve_checkpoint(profile: str, path: Path | None = None) -> CheckpointFiles:
    """The checkpoint of a profile, checked for completeness but not loaded.

    Args:
        profile: A name of ``weights.toml``.
        path: A checkpoint directory to use instead of the profile's own.

    Raises:
        UsageError: For an unknown profile.
        CheckpointError: ``E-CHECKPOINT-MISSING`` nothing there, ``E-CHECKPOINT-INCOMPLETE`` files
            missing, ``E-CHECKPOINT-PICKLE`` refused by design, ``E-CHECKPOINT-POINTER`` a Git LFS
            pointer instead of the file, ``E-CHECKPOINT-DAMAGED`` unreadable.
    """
    entry = find_profile(profile)
    if path is None:
        if entry.source != "embedded":
            raise _not_embedded(profile, entry)
        path = embedded_directory(profile)
    _check_complete(path, profile)
    for part in PARTS:
        check_safetensors(path / f"{part}.safetensors")
    return _read_description(path)


def embedded_directory(profile: str) -> Path:
    """Where the package keeps an embedded checkpoint, whether or not it is there."""
    return Path(__file__).resolve().parents[1] / "assets" / profile


def check_safetensors(path: Path) -> None:
    """Refuses what is plainly not a safetensors file, saying what it is instead.

    Raises:
        CheckpointError: ``E-CHECKPOINT-POINTER`` or ``E-CHECKPOINT-DAMAGED``.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_LFS_POINTER))
        size = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error
    if head.startswith(_LFS_POINTER):
        raise CheckpointError(
            f"{path} is a Git LFS pointer of {size} bytes, not the weights",
            hint="run `git lfs pull` where it was cloned, or download the file itself",
            code="E-CHECKPOINT-POINTER",
        )
    header_bytes = int.from_bytes(head[:8], "little") if len(head) >= 8 else 0
    if not 2 <= header_bytes <= size - 8:
        what = "an HTML page" if head.lstrip()[:1] == b"<" else "damaged or cut short"
        raise CheckpointError(
            f"{path} is {what}, not a safetensors file ({size} bytes)",
            hint="download it again",
            code="E-CHECKPOINT-DAMAGED",
        )


def _check_complete(path: Path, profile: str) -> None:
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise CheckpointError(
            f"{path} is a pickle, which can execute code; only safetensors are loaded",
            hint="give a checkpoint directory of safetensors files",
            code="E-CHECKPOINT-PICKLE",
        )
    if not path.is_dir():
        raise CheckpointError(
            f"{path} is not a checkpoint directory",
            hint=f"give --checkpoint a directory with {', '.join(REQUIRED_FILES)}",
            code="E-CHECKPOINT-MISSING",
        )
    missing = [name for name in REQUIRED_FILES if not (path / name).is_file()]
    if not missing:
        return
    pickles = sorted(p.name for p in path.iterdir() if p.suffix.lower() in PICKLE_SUFFIXES)
    also = f"; {', '.join(pickles[:3])} is refused: pickles can execute code" if pickles else ""
    raise CheckpointError(
        f"{path} lacks {', '.join(missing)}{also}",
        hint="complete the directory, or give another one with --checkpoint"
        if profile != "tiny" or path != embedded_directory(profile)
        else "install the package again, or give a directory with --checkpoint",
        code="E-CHECKPOINT-INCOMPLETE",
    )


def _read_description(path: Path) -> CheckpointFiles:
    file = path / "checkpoint.json"
    try:
        if file.stat().st_size > MAX_DESCRIPTION_BYTES:
            raise _wrong_description(file, f"larger than {MAX_DESCRIPTION_BYTES} bytes")
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(file, error) from error
    except (ValueError, RecursionError) as error:
        raise _wrong_description(file, f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise _wrong_description(file, "not a table of settings")
    if values.get("format") != CHECKPOINT_FORMAT:
        raise _wrong_description(
            file, f"of format {values.get('format')!r}; format {CHECKPOINT_FORMAT} is read"
        )
    absent = [name for name in SECTIONS if not isinstance(values.get(name), dict)]
    unknown = sorted(set(values) - {*SECTIONS, *OPTIONAL_SECTIONS, *_DESCRIPTION_KEYS})
    if unknown:
        raise _wrong_description(file, f"with an unknown entry {unknown[0]!r}")
    if absent:
        raise _wrong_description(file, f"without {', '.join(absent)}")
    return CheckpointFiles(
        directory=path,
        name=str(values.get("name", path.name)),
        version=str(values.get("version", "")),
        licence=str(values.get("licence", "")),
        sections={name: values.get(name, {}) for name in (*SECTIONS, *OPTIONAL_SECTIONS)},
    )


def _not_embedded(profile: str, entry: WeightProfile) -> CheckpointError:
    if entry.source == "none":
        return CheckpointError(
            f"profile {profile} has no public weights",
            hint=f"give --checkpoint DIR with {', '.join(REQUIRED_FILES)}",
            code="E-CHECKPOINT-MISSING",
        )
    files = ", ".join(f"{file.repo}/{file.path}" for file in entry.files)
    return CheckpointError(
        f"the weights of profile {profile} are not on this machine; it is made of {files}",
        hint=f"download them, convert them to safetensors and give --checkpoint DIR with "
        f"{', '.join(REQUIRED_FILES)}",
        code="E-CHECKPOINT-MISSING",
    )


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read: {error.strerror or error}",
        hint="check its permissions, or give another directory with --checkpoint",
        code="E-CHECKPOINT-DAMAGED",
    )


def _wrong_description(file: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{file} is {what}",
        hint="export the checkpoint again, or give another directory with --checkpoint",
        code="E-CHECKPOINT-DAMAGED",
    )
