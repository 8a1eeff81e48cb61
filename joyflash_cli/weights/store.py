"""Where a checkpoint's files are: in the package, converted on this machine, or named by the user.

A checkpoint is a directory of ``checkpoint.json`` (what the weights are) and safetensors files, one
per part or, for large parts, several with an index. Nothing else is ever loaded, so nothing in a
checkpoint can execute, and nothing is ever downloaded from here.
"""

from dataclasses import dataclass
from pathlib import Path

from joyflash_cli.description import OPTIONAL_PARTS, PARTS, Description, read_description
from joyflash_cli.errors import CheckpointError, UsageError
from joyflash_cli.weights.integrity import (
    CHECKSUMS,
    check_safetensors,
    hash_file,
    read_checksums,
    unreadable,
)
from joyflash_cli.weights.manifest import WeightProfile, find_profile
from joyflash_cli.weights.places import converted_directory
from joyflash_cli.weights.tensors import missing_files, part_files

REQUIRED_FILES = ("checkpoint.json", *(f"{part}.safetensors" for part in PARTS))
TEXT_ROLES = ("text_encoder", "tokenizer")
"""Of downloads; a checkpoint can be made without them."""

QUICK_BYTES = 64 << 20
"""Files up to this size are hashed, in a tenth of a second; of larger ones only the size counts."""

PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")


@dataclass(frozen=True)
class CheckpointFiles:
    """A complete checkpoint directory whose description was read; no weights were.

    Attributes:
        directory: Holds ``checkpoint.json`` and the safetensors files of every part.
        description: What the weights are and how they are used.
    """

    directory: Path
    description: Description

    @property
    def name(self) -> str:
        """The checkpoint's own name."""
        return self.description.name

    def weights(self, part: str) -> Path:
        """The safetensors file of a part that is in one file."""
        return self.directory / f"{part}.safetensors"

    def shards(self, part: str) -> tuple[Path, ...]:
        """The safetensors files of a part, however many there are."""
        return part_files(self.directory, part)

    def has(self, part: str) -> bool:
        """Whether the checkpoint holds the weights of a part."""
        return bool(self.shards(part))


def resolve_checkpoint(profile: str, path: Path | None = None) -> CheckpointFiles:
    """The checkpoint of a profile, checked for completeness but not loaded.

    Args:
        profile: A name of ``weights.toml``.
        path: A checkpoint directory to use instead of the profile's own.

    Raises:
        UsageError: For an unknown profile, or one that is only a base for training.
        CheckpointError: ``E-CHECKPOINT-MISSING`` nothing there (the hint is the command that
            brings it), ``E-CHECKPOINT-INCOMPLETE`` files missing, ``E-CHECKPOINT-PICKLE`` refused
            by design, ``E-CHECKPOINT-POINTER`` a Git LFS pointer instead of the file,
            ``E-CHECKPOINT-DAMAGED`` unreadable.
        ConfigError: When the description has an unknown or wrong entry.
    """
    entry = find_profile(profile)
    if path is None:
        path = _own_directory(profile, entry)
    _check_complete(path, profile)
    files = CheckpointFiles(path, read_description(path / "checkpoint.json"))
    for part in (*PARTS, *OPTIONAL_PARTS):
        for shard in files.shards(part):
            check_safetensors(shard)
    return files


def verify_at_load(files: CheckpointFiles) -> None:
    """Compares sizes, and the hashes of files that are quick to read, with what was recorded.

    Raises:
        CheckpointError: ``E-CHECKPOINT-DAMAGED`` for the first file that differs.
    """
    known = read_checksums(files.directory)
    for path in _loaded_files(files):
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
    large = [p.name for p in _loaded_files(files) if p.name not in known or _size(p) > QUICK_BYTES]
    if not large:
        return ""
    return (
        f"not verified, only their sizes: {', '.join(large)} "
        "(joyflash weights verify reads every byte)"
    )


def embedded_directory(profile: str) -> Path:
    """Where the package keeps an embedded checkpoint, whether or not it is there."""
    return Path(__file__).resolve().parents[1] / "assets" / profile


def is_converted(profile: str) -> bool:
    """Whether a complete converted checkpoint of the profile is on this machine."""
    return not _missing_files(converted_directory(profile))


def _own_directory(profile: str, entry: WeightProfile) -> Path:
    if entry.source == "embedded":
        return embedded_directory(profile)
    if entry.kind != "avatar":
        raise UsageError(
            f"profile {profile} is a base to train from, not an avatar model"
            if entry.kind == "base"
            else f"profile {profile} measures films; it is no avatar model",
            hint="joyflash weights list shows which profiles render",
        )
    directory = converted_directory(profile)
    if directory.is_dir():
        return directory
    if entry.source == "none":
        raise CheckpointError(
            f"profile {profile} has no public weights: {entry.note}",
            hint=f"give --checkpoint DIR with {', '.join(REQUIRED_FILES)}",
            code="E-CHECKPOINT-MISSING",
        )
    from joyflash_cli.weights.sources import convert_command, fetch_command, missing_sources

    missing = missing_sources(entry)
    if any(file.role not in TEXT_ROLES for file in missing):
        names = ", ".join(file.name for file in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise CheckpointError(
            f"the weights of profile {profile} are not on this machine; missing: {names}{more}",
            hint=f"{fetch_command(profile, entry)} && {convert_command(profile)}; "
            "or give --checkpoint DIR",
            code="E-CHECKPOINT-MISSING",
        )
    raise CheckpointError(
        f"the weights of profile {profile} are downloaded but not converted yet",
        hint=f"{convert_command(profile)}; or give --checkpoint DIR",
        code="E-CHECKPOINT-MISSING",
    )


def _check_complete(path: Path, profile: str) -> None:
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise CheckpointError(
            f"{path} is a pickle, which can execute code; only safetensors are loaded",
            hint="give a checkpoint directory of safetensors files; joyflash weights convert "
            "makes one",
            code="E-CHECKPOINT-PICKLE",
        )
    if not path.is_dir():
        raise CheckpointError(
            f"{path} is not a checkpoint directory",
            hint=f"give --checkpoint a directory with {', '.join(REQUIRED_FILES)}",
            code="E-CHECKPOINT-MISSING",
        )
    missing = _missing_files(path)
    if not missing:
        return
    pickles = sorted(p.name for p in path.iterdir() if p.suffix.lower() in PICKLE_SUFFIXES)
    also = f"; {', '.join(pickles[:3])} is refused: pickles can execute code" if pickles else ""
    more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
    if path == embedded_directory(profile):
        hint = "install the package again, or give a directory with --checkpoint"
    elif path == converted_directory(profile):
        from joyflash_cli.weights.sources import convert_command

        hint = f"{convert_command(profile)} --overwrite; or give a directory with --checkpoint"
    else:
        hint = "complete the directory, or give another one with --checkpoint"
    raise CheckpointError(
        f"{path} lacks {', '.join(missing[:8])}{more}{also}",
        hint=hint,
        code="E-CHECKPOINT-INCOMPLETE",
    )


def _missing_files(path: Path) -> list[str]:
    """Names that a checkpoint directory lacks, shards that its indexes name included."""
    missing = [] if (path / "checkpoint.json").is_file() else ["checkpoint.json"]
    for part in PARTS:
        missing += missing_files(path, part)
    for part in OPTIONAL_PARTS:
        if part_files(path, part):
            missing += missing_files(path, part)
    return missing


def _loaded_files(files: CheckpointFiles) -> list[Path]:
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
        raise unreadable(path, error) from error
