"""The report of ``joyflash evaluate tiny --real``: films of people against what is made of them."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from joyflash_cli.errors import DataError, JoyFlashError
from joyflash_cli.measures.film import FilmReading, read_film
from joyflash_cli.measures.film_figures import (
    Figures,
    check_length,
    combined,
    compare,
    figures_of,
    mismatched_curve,
)
from joyflash_cli.measures.quality import rgb_to_lab
from joyflash_cli.measures.reader import Readers, load_readers
from joyflash_cli.media.inputs.framing import Framing
from joyflash_cli.studio.clips.clip_framing import ClipFraming
from joyflash_cli.studio.clips.datasets import DatasetClip, list_clips
from joyflash_cli.studio.evaluation.generation import CheckpointRenderer, Renderer
from joyflash_cli.studio.evaluation.report import rounded
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ

FPS = 25.0
DARK_SKIN = 50.0
"""Lightness of the cheeks in the first frame (CIE L*, 0..100) below which skin counts as dark."""

DARK, OTHERS = "dark skin", "other skin"
COMPARED = ("lip_correlation_at_zero_lag", "mouth_amplitude", "blinks_per_min")
"""Figures whose ratio to everybody's is reported of every group."""

NOTES = (
    "The first frame of a film is the picture and the film's own sound the voice; the rest of the "
    "film is the truth. Both films are read by the project's own points network, framed alike.",
    "Every person counts the same in a mean, every second of a person's films the same. One lag "
    "is sought for all that is averaged; positive lags mean a late picture.",
    "'truth' is what the same measures say of the true films: read blinks, lightness, identity and "
    "drift next to it. Noise of the reader lowers correlations and raises amplitudes a little.",
    "Dark skin is told by the lightness of the cheeks in the first frame (CIE L* below 50): a "
    "person in deep shade counts as dark-skinned, one in glaring light does not.",
    "Head pose, gaze, brows, stillness in silence and the look of anything but mouth and face are "
    "not measured; nor is whether strangers would find the film natural.",
)

Progress = Callable[[str, int, int], None]
"""Told (film, films done, films in all)."""

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


@dataclass(frozen=True, eq=False)
class _Pair:
    """A film as it is and as it was made."""

    film: Film
    true: FilmReading
    made: FilmReading
    waveform: np.ndarray

    @property
    def lightness(self) -> float:
        """CIE L* of the first frame's cheeks."""
        return float(rgb_to_lab(self.true.skin_colour[None])[0, 0])


def evaluate_real(
    folders: Sequence[Path],
    *,
    checkpoint: Path | None = None,
    seed: int = 0,
    num_clips: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a tiny checkpoint on films of real people.

    Args:
        folders: Hold the films; see :func:`list_films`.
        checkpoint: A checkpoint directory; the embedded one if ``None``.
        seed: Of the noise.
        num_clips: Use only so many films, of every person the first ones; all if ``None``.
        device: As for ``joyflash render``.
        dtype: As for ``joyflash render``.
        progress: Told where the run is.

    Returns:
        As :func:`measure_films`, with the checkpoint and the device.

    Raises:
        CheckpointError: If checkpoint or readers are missing or damaged.
        DataError: If there is no film, or none that can be measured.
    """
    films = list_films(folders, limit=num_clips)
    renderer = CheckpointRenderer(checkpoint, device=device, dtype=dtype)
    framing = renderer.files.description.framing
    report = measure_films(films, renderer, framing, load_readers(), seed=seed, progress=progress)
    return report | renderer.about()


def measure_films(
    films: Sequence[Film],
    renderer: Renderer,
    framing: Framing,
    readers: Readers,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure any renderer on films.

    Args:
        films: What to measure; those that cannot be read or show no face are listed and skipped.
        renderer: Makes the films.
        framing: Of the checkpoint: how first frames are cut.
        readers: Embed the people.
        seed: Of the noise.
        progress: Told where the run is.

    Returns:
        Top level: the mean over people of the figures that :func:`figures_of` and :func:`compare`
        explain, of the made films, with ``lip_correlation_mismatched`` (against the truths of
        other films) and ``truth`` (the true films' own). ``groups``, ``people`` and ``films`` hold
        the same of each; groups also ``of_everybody``, the ratio to the mean. ``skipped`` lists
        films with the reason. Everything is JSON.

    Raises:
        DataError: If no film can be measured.
    """
    started = time.perf_counter()
    pairs, skipped = _read_pairs(films, renderer, framing, readers, seed=seed, progress=progress)
    figures = [_figures(pair, [other for other in pairs if other is not pair]) for pair in pairs]
    people = _by_person(pairs, figures)
    everybody = combined(list(people.values()))
    report = _nested(everybody) | {
        "num_people": len(people),
        "groups": _groups(pairs, people, everybody),
        "people": {person: _nested(found) for person, found in people.items()},
        "films": {
            pair.film.name: {"person": pair.film.person} | _nested(found)
            for found, pair in zip(figures, pairs, strict=True)
        },
        "skipped": skipped,
        "seed": seed,
        "wall_s": time.perf_counter() - started,
        "notes": list(NOTES),
    }
    return rounded(report)


def _read_pairs(
    films: Sequence[Film],
    renderer: Renderer,
    framing: Framing,
    readers: Readers,
    *,
    seed: int,
    progress: Progress | None,
) -> tuple[list[_Pair], list[dict[str, str]]]:
    """Films with what was made of them, and those that are skipped with the reason.

    Raises:
        DataError: If no film can be read.
    """
    tell: Progress = progress or (lambda film, done, of: None)
    pairs: list[_Pair] = []
    skipped: list[dict[str, str]] = []
    for index, film in enumerate(films):
        said = film.name
        try:
            pairs.append(_read_pair(film, renderer, framing, readers, seed=seed + index))
        except JoyFlashError as error:
            skipped.append({"film": film.name, "reason": error.message})
            said = f"{film.name} is skipped: {error.message};"
        tell(said, index + 1, len(films))
    if not pairs:
        reason = skipped[0]["reason"] if skipped else "there is none"
        raise DataError(f"none of {len(films)} films can be measured; the first: {reason}")
    return pairs, skipped


def _read_pair(
    film: Film, renderer: Renderer, framing: Framing, readers: Readers, *, seed: int
) -> _Pair:
    video = film.clip.read(fps=FPS, framing=ClipFraming(framing, needs_face=True))
    frames = iter(video.frames)
    first = next(frames)
    true = read_film(chain([first], frames), fps=FPS, readers=readers)
    check_length(true)
    num_samples = round(len(true.opening) * MODEL_SAMPLE_RATE_HZ / FPS)
    waveform = video.waveform[:num_samples]
    waveform = np.pad(waveform, (0, num_samples - len(waveform)))
    chunks = renderer.stream(first, waveform, seed=seed)
    made = read_film(chain.from_iterable(chunks), fps=FPS, readers=readers)
    return _Pair(film, true, made, waveform)


def _by_person(pairs: Sequence[_Pair], figures: Sequence[Figures]) -> dict[str, Figures]:
    spoken: dict[str, list[Figures]] = defaultdict(list)
    for pair, found in zip(pairs, figures, strict=True):
        spoken[pair.film.person].append(found)
    return {person: combined(spoken[person]) for person in sorted(spoken)}


_TRUTH = "truth."


def _figures(pair: _Pair, others: Sequence[_Pair]) -> Figures:
    """A film's own figures, and the true film's with ``truth.`` before their names."""
    found = compare(pair.made, pair.true).joined(figures_of(pair.made, pair.waveform))
    found = found.joined(figures_of(pair.true, pair.waveform), prefix=_TRUTH)
    curves = {}
    if others:
        curves["lip_mismatched"] = mismatched_curve(pair.made, [other.true for other in others])
    return found.joined(Figures({"skin_lightness": pair.lightness}, curves))


def _groups(
    pairs: Sequence[_Pair], people: Mapping[str, Figures], everybody: Figures
) -> dict[str, Any]:
    """Figures of dark-skinned and other people, and of the groups that are named."""
    members: dict[str, set[str]] = defaultdict(set)
    for person, found in people.items():
        lightness = found.values["skin_lightness"]
        members[DARK if lightness is not None and lightness < DARK_SKIN else OTHERS].add(person)
    for pair in pairs:
        for group in pair.film.groups:
            members[group].add(pair.film.person)
    report = {}
    for group, persons in sorted(members.items()):
        found = combined([people[person] for person in sorted(persons)])
        ours, theirs = found.table(), everybody.table()
        report[group] = _nested(found) | {
            "num_people": len(persons),
            "of_everybody": {name: _ratio(ours[name], theirs[name]) for name in COMPARED},
        }
    return report


def _ratio(value: float | None, of: float | None) -> float | None:
    return value / of if value is not None and of else None


def _nested(figures: Figures) -> dict[str, Any]:
    """A table whose ``truth.`` entries stand in one of their own."""
    own: dict[str, Any] = {}
    truth: dict[str, Any] = {}
    for name, value in figures.table().items():
        part = truth if name.startswith(_TRUTH) else own
        part[name.removeprefix(_TRUTH)] = value
    return own | {"truth": truth, "num_films": figures.num_films}
