"""The two pages: one folder, or two folders compared clip by clip."""

import base64
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from joyflash_cli import __version__
from joyflash_cli.errors import OutputError
from joyflash_cli.files import cannot_write, room_hint, write_whole
from joyflash_cli.measures.table import PAGE, gain, mean_gain
from joyflash_cli.measures.videos import RESULTS_FILE
from joyflash_cli.report.judged import read_judged
from joyflash_cli.report.sources import ClipSource, find_clips
from joyflash_cli.report.views import ClipView, cards, clip_view, summarise

Progress = Callable[[str, int, int], None]
"""Told (clip, clips done, clips in all)."""

PAGE_NAME = "report.html"
COMPARISON_NAME = "compare.html"
GENERATOR = "JoyFlash report"
TEMPLATES = Path(__file__).resolve().parent / "templates"
_HEAD_BYTES = 2048


def write_report(
    folder: Path,
    output: Path | None = None,
    *,
    details: int = 60,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a folder of videos and write one page about it.

    Args:
        folder: Holds videos, their records, and perhaps a batch's ``results.jsonl``.
        output: The page; ``report.html`` in the folder if ``None``.
        details: Clips that are shown with pictures and charts; the table lists all.
        overwrite: Whether a file that is no earlier report may be replaced.
        progress: Told where the run is.

    Returns:
        What the page shows, for programs; ``page`` is its path.

    Raises:
        DataError: If the folder holds nothing to show.
        OutputError: If the page cannot be written, or another file has its name.
    """
    judged = read_judged(folder)
    # A folder that holds the results of a judging: the videos may lie anywhere.
    is_results = judged is not None and (folder / RESULTS_FILE).is_file()
    sources = () if is_results else find_clips(folder)
    page = output if output is not None else folder / PAGE_NAME
    check_page(page, overwrite=overwrite)
    clips = _view_clips(sources, page, details=details, progress=progress)
    summary = summarise(clips)
    context = {
        "title": folder.resolve().name or str(folder),
        "cards": cards(summary),
        "summary": summary,
        "clips": clips,
        "num_hidden": sum(not clip.detailed for clip in clips),
        "judged": judged,
    }
    _write(page, "report.html", context)
    written = {"page": str(page), "summary": summary, "clips": _as_json(clips)}
    return written if judged is None else written | {"judged": judged.summary}


def write_comparison(
    folders: tuple[Path, Path],
    output: Path | None = None,
    *,
    details: int = 60,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure two folders and write one page that shows clips of the same name side by side.

    Args:
        folders: Before and after, A and B.
        output: The page; ``compare.html`` in the current folder if ``None``.
        details: Pairs that are shown with pictures and charts.
        overwrite: As for ``write_report``.
        progress: Told where the run is.

    Returns:
        What the page shows, for programs; ``page`` is its path.

    Raises:
        DataError: If one of the folders holds nothing to show.
        OutputError: If the page cannot be written, or another file has its name.
    """
    page = output if output is not None else Path(COMPARISON_NAME)
    sides = [find_clips(folder) for folder in folders]
    check_page(page, overwrite=overwrite)
    views = []
    for letter, sources in zip("AB", sides, strict=True):
        found = _view_clips(sources, page, details=details, progress=progress, prefix=letter)
        views.append({clip.name: clip for clip in found})
    before, after = views
    pairs = [(before[name], after[name]) for name in before if name in after]
    table = _comparison_table(pairs)
    context = {
        "title": f"{folders[0].resolve().name} against {folders[1].resolve().name}",
        "sides": tuple(
            {
                "letter": letter,
                "folder": str(folder),
                "cards": cards(summary),
                "made_by": summary["made_by"],
            }
            for letter, folder, view in zip("AB", folders, views, strict=True)
            for summary in [summarise(list(view.values()))]
        ),
        "pairs": pairs,
        "table": table,
        "only": ([n for n in before if n not in after], [n for n in after if n not in before]),
    }
    _write(page, "comparison.html", context)
    return {
        "page": str(page),
        "figures": [row["figures"] for row in table],
        "a": _as_json(list(before.values())),
        "b": _as_json(list(after.values())),
    }


def check_page(page: Path, *, overwrite: bool) -> None:
    """Refuses a target that is something else than an earlier report, before any work.

    Raises:
        OutputError: ``E-OUTPUT-EXISTS`` or ``E-OUTPUT-FOLDER``.
    """
    parent = page.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        what = "not writable" if parent.is_dir() else "not a folder"
        raise OutputError(
            f"{parent} is {what}", hint="choose another place with -o", code="E-OUTPUT-FOLDER"
        )
    if not page.exists() or overwrite and page.is_file():
        return
    if page.is_file() and GENERATOR.encode() in page.read_bytes()[:_HEAD_BYTES]:
        return
    raise OutputError(
        f"{page} exists and is no earlier report",
        hint="use --overwrite or another -o",
        code="E-OUTPUT-EXISTS",
    )


def _view_clips(
    sources: Sequence[ClipSource],
    page: Path,
    *,
    details: int,
    progress: Progress | None,
    prefix: str = "clip",
) -> list[ClipView]:
    from joyflash_cli.measures.reader import load_readers
    from joyflash_cli.report.reading import read_clip

    has_videos = any(source.video is not None for source in sources)
    readers = load_readers() if has_videos else None
    clips = []
    for index, source in enumerate(sources):
        reading = read_clip(source, readers)
        anchor = f"{prefix}-{index + 1}"
        clips.append(clip_view(reading, anchor=anchor, page=page, detailed=index < details))
        if progress is not None:
            progress(source.name, index + 1, len(sources))
    return clips


def _as_json(clips: Sequence[ClipView]) -> list[dict[str, Any]]:
    return [
        {"name": clip.name, "status": clip.status, "error": clip.problem or None} | clip.figures
        for clip in clips
    ]


def _comparison_table(pairs: Sequence[tuple[ClipView, ClipView]]) -> list[dict[str, Any]]:
    """One row a figure: means over the clips that have it on both sides, and who is better."""
    rows = []
    for column in PAGE:
        both = [
            (float(a.figures[column.name]), float(b.figures[column.name]))
            for a, b in pairs
            if a.figures[column.name] is not None and b.figures[column.name] is not None
        ]
        if not both:
            continue
        first = sum(a for a, _ in both) / len(both)
        second = sum(b for _, b in both) / len(both)
        gains = [gain(column, a, b) for a, b in both]
        figures = {
            "name": column.name, "clips": len(both), "a": first, "b": second,
            "b_better": gains.count(1), "b_worse": gains.count(-1),
        }  # fmt: skip
        rows.append({"column": column, "gain": mean_gain(column, both), "figures": figures})
    return rows


def _write(page: Path, template: str, context: Mapping[str, Any]) -> None:
    """Renders a template and gives it its name when it is whole."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["gain"] = gain
    script = (TEMPLATES / "table.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    text = environment.get_template(template).render(
        **context,
        columns=PAGE,
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        script=script,
        script_sha256=digest,
        generator=f"{GENERATOR} {__version__}",
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    try:
        write_whole(page, text)
    except OSError as error:
        raise cannot_write(page, error, hint=f"{room_hint(error)}; -o chooses the place") from error
