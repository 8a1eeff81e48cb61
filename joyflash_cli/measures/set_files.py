"""Pictures and sounds of an evaluation set: which kind each is, and its licence.

What a file is stands in ``about.json`` of its folder or of one above it, else the folder's name
says it:

    {"*": {"category": "real", "licence": "CC0-1.0"}, "aria.ogg": {"kind": "opera"}}

A licence may also be the first line of a file ``LICENCE`` or ``LICENSE``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyflash_cli.errors import DataError

ABOUT_FILE = "about.json"
UNKNOWN = "unknown"

CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "real": ("real", "people", "human", "humans", "photo", "photos"),
    "animated": ("animated", "animation", "anime", "cartoon", "cartoons", "drawn"),
    "three-dimensional": ("three-dimensional", "3d", "3d-models", "cgi", "rendered"),
}
"""Kinds of avatars of the paper, each with the names of folders that mean it."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "conversation": ("conversation", "conversations", "dialogue", "dialogues"),
    "public-speaking": ("public-speaking", "speech", "speeches", "talks", "lecture", "lectures"),
    "singing": ("singing", "song", "songs"),
    "opera": ("opera", "operas"),
    "synthetic": ("synthetic", "tts"),
}
"""Kinds of voices of the paper, likewise."""

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".avif")
SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".mp4", ".mkv", ".webm")

_LICENCE_STEMS = ("licence", "license", "copying")


@dataclass(frozen=True)
class SetFile:
    """A picture or a sound of the set.

    Attributes:
        path: The file.
        kind: One of ``CATEGORIES`` or ``KINDS``.
        licence: As somebody wrote it, or ``unknown``.
    """

    path: Path
    kind: str
    licence: str


def find_files(
    folders: Sequence[Path],
    suffixes: tuple[str, ...],
    known: Mapping[str, tuple[str, ...]],
    entry: str,
) -> list[SetFile]:
    """Pictures or sounds below folders, each with its kind and licence.

    Args:
        folders: Looked through to any depth; hidden files are left out.
        suffixes: Of the files that are meant, small letters.
        known: ``CATEGORIES`` or ``KINDS``.
        entry: What ``about.json`` calls the kind: ``category`` or ``kind``.

    Raises:
        DataError: ``E-SET-KIND`` for a file whose kind nothing says, ``E-SET-ABOUT`` for an
            ``about.json`` that cannot be used, ``E-SET-EMPTY`` where nothing was found.
    """
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder", hint="give a folder", code="E-SET-EMPTY")
        about: dict[Path, dict[str, Any]] = {}
        for path in sorted(folder.rglob("*")):
            is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if path.suffix.lower() in suffixes and path.is_file() and not is_hidden:
                found.append(_described(path, folder, known, entry, about))
    if not found:
        names = ", ".join(map(str, folders))
        raise DataError(
            f"{names} holds no {'picture' if entry == 'category' else 'sound'}",
            hint=f"files with {', '.join(suffixes[:4])} are looked for",
            code="E-SET-EMPTY",
        )
    return found


def _described(
    path: Path,
    top: Path,
    known: Mapping[str, tuple[str, ...]],
    entry: str,
    about: dict[Path, dict[str, Any]],
) -> SetFile:
    """A file with what is said of it, the nearest folder first."""
    said: dict[str, str] = {}
    for folder in [path.parent, *path.parent.parents]:
        if folder not in about:
            about[folder] = _about(folder)
        table = about[folder]
        for name in (path.relative_to(folder).as_posix(), "*"):
            said = {**table.get(name, {}), **said}
        if (kind := _meant(folder.name, known)) is not None:
            said.setdefault(entry, kind)
        if (licence := _licence_file(folder)) is not None:
            said.setdefault("licence", licence)
        if folder == top:
            break
    kind = _meant(said.get(entry, ""), known)
    if kind is None:
        raise DataError(
            f"nothing says which {entry} {path} is",
            hint=f"put it into a folder called {', '.join(known)}, or say it in {ABOUT_FILE}",
            code="E-SET-KIND",
        )
    return SetFile(path, kind, said.get("licence") or said.get("license") or UNKNOWN)


def _meant(name: str, known: Mapping[str, tuple[str, ...]]) -> str | None:
    plain = "-".join(name.lower().replace("_", " ").split())
    return next((kind for kind, names in known.items() if plain in names), None)


def _about(folder: Path) -> dict[str, Any]:
    path = folder / ABOUT_FILE
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}", code="E-SET-ABOUT") from error
    entries = table.values() if isinstance(table, dict) else [None]
    if not all(
        isinstance(said, dict) and all(isinstance(value, str) for value in said.values())
        for said in entries
    ):
        raise DataError(
            f"{path} is no table of files",
            hint='write {"NAME": {"category": "real", "licence": "CC0-1.0"}}',
            code="E-SET-ABOUT",
        )
    return dict(table)


def _licence_file(folder: Path) -> str | None:
    """First line of the folder's licence."""
    for path in sorted(folder.iterdir()):
        if path.stem.lower() in _LICENCE_STEMS and path.suffix.lower() in ("", ".txt", ".md"):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            return next((line.strip(" #") for line in lines if line.strip(" #")), None)
    return None
