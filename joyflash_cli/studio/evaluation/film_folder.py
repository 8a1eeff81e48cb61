"""Films of real people in folders, and what a ``clips.json`` says of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyflash_cli.errors import DataError
from joyflash_cli.studio.clips.datasets import DatasetClip, list_clips

ABOUT_FILE = "clips.json"
LEVELS_ABOVE = 2
"""Folders above the films' own in which their ``clips.json`` is looked for as well."""


@dataclass(frozen=True)
class Film:
    """One film, not decoded.

    Attributes:
        clip: How it is read.
        person: Who speaks; the film itself where nothing says so.
        groups: What this person belongs to, by ``clips.json``.
    """

    clip: DatasetClip
    person: str
    groups: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name within its folder."""
        return self.clip.key


def list_films(folders: Sequence[Path], *, limit: int | None = None) -> list[Film]:
    """The films of folders, at any depth.

    The nearest ``clips.json`` of a folder or of the two above it may name them: a list of objects
    with ``file`` (beside it), ``person`` and ``groups``, a list of words.

    Args:
        folders: Searched one after the other.
        limit: Take only so many, of every person the first, then the second ones, and so on.

    Raises:
        DataError: If a folder holds no film, or its ``clips.json`` is none.
    """
    films: list[Film] = []
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder", hint="give a folder of films")
        around = (folder.resolve(), *folder.resolve().parents[:LEVELS_ABOVE])
        lists = [place / ABOUT_FILE for place in around if (place / ABOUT_FILE).is_file()]
        about = _entries(lists[0]) if lists else {}
        for clip in list_clips(folder):
            entry = about.get(clip.video.path.resolve(), {})
            groups = tuple(str(word) for word in entry.get("groups", ()))
            films.append(Film(clip, str(entry.get("person", clip.key)), groups))
    if limit is None:
        return films
    persons = [film.person for film in films]
    turns = [persons[:index].count(person) for index, person in enumerate(persons)]
    chosen = sorted(range(len(films)), key=turns.__getitem__)[:limit]
    return [films[index] for index in sorted(chosen)]


def _entries(path: Path) -> dict[Path, dict[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {(path.parent / entry["file"]).resolve(): entry for entry in entries}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} is no list of objects with a file each",
            hint="correct it, or take it away: it only names the people",
        ) from error
