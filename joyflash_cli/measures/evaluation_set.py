"""A set to judge avatars by: pictures of every category, each with a voice of every kind.

The paper judges on 100 avatars, people, animated characters and three-dimensional models, with
conversation, public speaking, singing, traditional opera and synthetic speech (§4.1), and does not
publish them. This pairs what a user has in the same way. A pair follows from the files' names and
one seed; every category meets every kind equally often.
"""

import csv
import io
import json
import math
import os
import random
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from joyflash_cli.errors import OutputError, UsageError
from joyflash_cli.files import cannot_write, file_sha256, room_hint, write_whole
from joyflash_cli.measures.set_files import (
    CATEGORIES,
    KINDS,
    PICTURE_SUFFIXES,
    SOUND_SUFFIXES,
    SetFile,
    find_files,
)

SET_FORMAT = 1
SET_FILE, MANIFEST_FILE = "set.json", "manifest.csv"


@dataclass(frozen=True)
class SetPair:
    """One video to be rendered.

    Attributes:
        id: Its name, which says category and kind.
        picture: The avatar.
        voice: What it speaks.
        seed: Of the render.
        truth: Film of this very face speaking this very sound, where there is one.
    """

    id: str
    picture: SetFile
    voice: SetFile
    seed: int
    truth: Path | None = None


def pair_files(
    pictures: Sequence[SetFile], voices: Sequence[SetFile], *, count: int, seed: int
) -> list[SetPair]:
    """Pictures with voices, balanced: counts of categories, and of kinds, differ by one at most.

    A picture comes again only when all of its category were taken, a voice likewise.

    Args:
        pictures: Of any categories; the order counts.
        voices: Of any kinds; the order counts.
        count: How many pairs.
        seed: Decides which, and the seeds of the renders.
    """
    rng = random.Random(seed)
    queues = [_shuffled(rng, pictures, CATEGORIES), _shuffled(rng, voices, KINDS)]
    of_category, of_kind = ([names for names in queue.values() if names] for queue in queues)
    num_categories, num_kinds = len(of_category), len(of_kind)
    period = math.lcm(num_categories, num_kinds)
    pairs = []
    taken = Counter[tuple[int, int]]()
    for index in range(count):
        # Through every combination before one comes again, and evenly all the way.
        category, kind = index % num_categories, (index + index // period) % num_kinds
        picture = of_category[category][taken[0, category] % len(of_category[category])]
        voice = of_kind[kind][taken[1, kind] % len(of_kind[kind])]
        taken.update([(0, category), (1, kind)])
        name = f"{index + 1:03}-{picture.kind}-{voice.kind}"
        pairs.append(SetPair(name, picture, voice, rng.randrange(1 << 31)))
    return pairs


def _shuffled(
    rng: random.Random, given: Sequence[SetFile], known: Mapping[str, Any]
) -> dict[str, list[SetFile]]:
    by_kind: dict[str, list[SetFile]] = {
        kind: [file for file in given if file.kind == kind] for kind in known
    }
    for members in by_kind.values():
        rng.shuffle(members)
    return by_kind


def built_in_pairs(folder: Path, *, count: int | None, seed: int) -> list[SetPair]:
    """The recorded clips of the package: rendered and drawn heads, each with its true film.

    None of them is a real person or sings; their voices are synthetic, or read aloud, which stands
    for public speaking.

    Args:
        folder: The package's own, ``held_out``.
        count: The first so many, taken in turn from the categories; ``None`` for all.
        seed: Decides the seeds of the renders.
    """
    rng = random.Random(seed)
    clips = json.loads((folder / "pack.json").read_text(encoding="utf-8"))["clips"]
    by_category: dict[str, list[SetPair]] = {}
    for clip in clips:
        if clip["name"] in _BUILT_IN_FACELESS:
            continue
        name, head, engine = clip["name"], clip["kind"], clip["voice"].partition("/")[0]
        category, picture_licence = _BUILT_IN_HEADS[head]
        kind, voice_licence = _BUILT_IN_VOICES[engine]
        pair = SetPair(
            f"{name}-{category}-{kind}",
            SetFile(folder / f"{name}.png", category, picture_licence),
            SetFile(folder / f"{name}.flac", kind, voice_licence),
            rng.randrange(1 << 31),
            folder / f"{name}.mp4",
        )
        by_category.setdefault(category, []).append(pair)
    ranked = [
        (place, number, pair)
        for number, members in enumerate(by_category.values())
        for place, pair in enumerate(members)
    ]
    return [pair for _, _, pair in sorted(ranked, key=lambda entry: entry[:2])][:count]


_BUILT_IN_FACELESS = ("clip-02",)
"""In this picture, which is closely cut, the face detector finds none, so a batch refuses it."""

_BUILT_IN_HEADS = {
    "makehuman": ("three-dimensional", "rendered from MakeHuman (CC0-1.0)"),
    "ict": ("three-dimensional", "rendered from ICT-FaceKit (MIT)"),
    "drawn": ("animated", "drawn by JoyFlash (Apache-2.0)"),
}
_BUILT_IN_VOICES = {
    "kathleen": ("public-speaking", "Kathleen (CC0-1.0)"),
    "flite": ("synthetic", "CMU Flite voices (BSD-like, attribution)"),
    "espeak": ("synthetic", "output of espeak-ng"),
}


def build_set(
    out: Path,
    *,
    pictures: Sequence[Path] = (),
    speech: Sequence[Path] = (),
    count: int | None = None,
    seed: int = 0,
    copy: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes ``manifest.csv``, which renders the set, and ``set.json``, which describes it.

    Args:
        out: Folder; made if it is missing.
        pictures: Folders of avatars; with ``speech`` empty, too, the built-in set is written.
        speech: Folders of voices.
        count: Pairs; 100 by default, of the built-in set all.
        seed: Decides the pairs, and the seeds of the renders.
        copy: Whether the files are copied into ``out``; those of the built-in set always are.
        overwrite: Whether an earlier set in ``out`` is replaced.

    Returns:
        What ``set.json`` holds.

    Raises:
        DataError: See ``find_files``.
        OutputError: Where a set lies already, or nothing can be written.
    """
    if bool(pictures) != bool(speech):
        raise UsageError("pictures and speech belong together", hint="give folders of both")
    if (out / SET_FILE).exists() and not overwrite:
        raise OutputError(
            f"{out / SET_FILE} exists",
            hint="give --overwrite or another --out",
            code="E-SET-EXISTS",
        )
    if pictures:
        pairs = pair_files(
            find_files(pictures, PICTURE_SUFFIXES, CATEGORIES, "category"),
            find_files(speech, SOUND_SUFFIXES, KINDS, "kind"),
            count=100 if count is None else count,
            seed=seed,
        )
        return _write(out, pairs, seed=seed, copy=copy)
    with as_file(files("joyflash_cli") / "assets" / "held_out") as folder:
        pairs = built_in_pairs(folder, count=count, seed=seed)
        return _write(out, pairs, seed=seed, copy=True)


def _write(out: Path, pairs: Sequence[SetPair], *, seed: int, copy: bool) -> dict[str, Any]:
    digests: dict[Path, str] = {}

    def placed(path: Path, folder: str, name: str | None = None) -> dict[str, str]:
        """Where the set finds a file, from its own folder, and what it holds."""
        digest = digests.setdefault(path, file_sha256(path))
        if not copy:
            return {"path": Path(os.path.relpath(path, out)).as_posix(), "sha256": digest}
        # Two folders may hold files of one name.
        target = out / folder / (name or f"{path.stem}-{digest[:8]}{path.suffix}")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        return {"path": target.relative_to(out).as_posix(), "sha256": digest}

    try:
        out.mkdir(parents=True, exist_ok=True)
        entries: list[dict[str, Any]] = [
            {
                "id": pair.id,
                "category": pair.picture.kind,
                "kind": pair.voice.kind,
                "seed": pair.seed,
                "image": placed(pair.picture.path, "pictures") | {"licence": pair.picture.licence},
                "audio": placed(pair.voice.path, "speech") | {"licence": pair.voice.licence},
                "truth": pair.truth and placed(pair.truth, "truth", f"{pair.id}.mp4"),
            }
            for pair in pairs
        ]
        described = _summary(pairs, seed) | {"pairs": entries}
        manifest = io.StringIO()
        writer = csv.writer(manifest, lineterminator="\n")
        writer.writerow(["id", "image", "audio", "seed"])
        for entry in entries:
            image, audio = entry["image"]["path"], entry["audio"]["path"]
            writer.writerow([entry["id"], image, audio, entry["seed"]])
        write_whole(out / MANIFEST_FILE, manifest.getvalue())
        text = json.dumps(described, ensure_ascii=False, indent=1) + "\n"
        write_whole(out / SET_FILE, text.encode(errors="backslashreplace"))
    except OSError as error:
        raise cannot_write(out, error, hint=room_hint(error)) from error
    return described


def _summary(pairs: Sequence[SetPair], seed: int) -> dict[str, Any]:
    pictures = {pair.picture for pair in pairs}
    voices = {pair.voice for pair in pairs}
    return {
        "format": SET_FORMAT,
        "seed": seed,
        "num_pairs": len(pairs),
        "num_pictures": len(pictures),
        "num_voices": len(voices),
        "categories": _counts(CATEGORIES, [pair.picture.kind for pair in pairs]),
        "kinds": _counts(KINDS, [pair.voice.kind for pair in pairs]),
        "licences": dict(sorted(Counter(file.licence for file in (*pictures, *voices)).items())),
    }


def _counts(known: Mapping[str, Any], found: list[str]) -> dict[str, int]:
    return {kind: found.count(kind) for kind in known}
