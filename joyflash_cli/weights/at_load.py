"""What of a checkpoint is verified every time it is loaded: all that is read in a moment."""

from pathlib import Path

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.integrity import CHECKSUMS, hash_file, read_checksums
from joyflash_cli.weights.places import converted_directory
from joyflash_cli.weights.store import CheckpointFiles, embedded_directory

QUICK_BYTES = 64 << 20
"""Files up to this size are hashed, in a tenth of a second; of larger ones only the size counts."""


def verify_at_load(files: CheckpointFiles) -> None:
    """Compares sizes, and the hashes of files that are quick to read, with what was recorded.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED`` for the first file that differs.
    """
    known = read_checksums(files.directory)
    for path in _files(files):
        expected = known.get(path.name)
        if expected is None:
            continue
        size = _size(path)
        is_same = size == expected["bytes"]
        if is_same and size <= QUICK_BYTES:
            is_same = hash_file(path) == expected["sha256"]
        if not is_same:
            raise CheckpointError(
                f"{path} is not what {CHECKSUMS} beside it says: its bytes have changed",
                hint="install the package again"
                if files.directory.parent == embedded_directory("any").parent
                else "copy, convert or export the checkpoint again",
                code="E-CHECKPOINT-DAMAGED",
            )


def unverified(files: CheckpointFiles) -> str:
    """One line on the weights that are not verified at load, or nothing."""
    known = read_checksums(files.directory)
    if not known:
        return f"the weights in {files.directory} are not verified: it holds no {CHECKSUMS}"
    large = [p.name for p in _files(files) if p.name not in known or _size(p) > QUICK_BYTES]
    if not large:
        return ""
    return (
        f"not verified, only their sizes: {', '.join(large)} "
        "(joyflash weights verify reads every byte)"
    )


def _files(files: CheckpointFiles) -> list[Path]:
    """All weights; also the description, where nobody is meant to change it."""
    found = sorted(files.directory.glob("*.safetensors"))
    own = (embedded_directory("any").parent, converted_directory("any").parent)
    if files.directory.parent in own:
        found.append(files.directory / "checkpoint.json")
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="check its permissions, or give another directory with --checkpoint",
            code="E-CHECKPOINT-DAMAGED",
        ) from error
