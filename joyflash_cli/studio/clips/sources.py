"""The manifest of the training data's sources, and the check of a folder against it."""

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path

from joyflash_cli.errors import DataError
from joyflash_cli.files import file_sha256


@dataclass(frozen=True)
class Pack:
    """One pack of source material.

    Attributes:
        name: Short name.
        path: Below the assets folder; a file or a folder.
        files: Number of files.
        sha256: Of the file, or of the folder's list of sums and paths.
        licence: SPDX identifier.
        what: What is in it.
        sources: Where it comes from, with revisions.
    """

    name: str
    path: str
    files: int
    sha256: str
    licence: str
    what: str
    sources: tuple[str, ...]


def read_sources() -> tuple[Pack, ...]:
    """Every pack of ``sources.toml``."""
    text = (Path(__file__).parent / "sources.toml").read_text(encoding="utf-8")
    packs = tomllib.loads(text)["packs"]
    return tuple(
        Pack(name=name, **{**values, "sources": tuple(values["sources"])})
        for name, values in packs.items()
    )


def checksum(path: Path) -> str:
    """SHA-256 of a file, or of a folder's lines ``<sum>  <path>`` in order of path."""
    if path.is_file():
        return file_sha256(path)
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(f"{checksum(file)}  {file.relative_to(path).as_posix()}\n".encode())
    return total.hexdigest()


def check_sources(assets_dir: Path, packs: tuple[Pack, ...]) -> None:
    """Compare an assets folder with the manifest.

    Raises:
        DataError: If a pack is missing or differs; the message names all of them.
    """
    problems = []
    for pack in packs:
        path = assets_dir / pack.path
        if not path.exists():
            problems.append(f"{pack.path} is missing (from {pack.sources[0]})")
        elif checksum(path) != pack.sha256:
            problems.append(f"{pack.path} differs from the manifest")
    if problems:
        raise DataError(
            f"{assets_dir}: {'; '.join(problems)}.",
            hint="joyflash_cli/studio/clips/sources.toml names the sources",
        )
