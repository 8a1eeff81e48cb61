"""``joyflash report``: a folder of videos as one page to look at."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from joyflash_cli.cli.help_text import FILES, MESSAGES
from joyflash_cli.cli.options import Debug, Quiet, option
from joyflash_cli.errors import UsageError


def report(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Folder of videos, such as a batch's --out-dir."),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        option("--compare", "Two folders, clip by clip side by side.", "A B", group=FILES),
    ] = None,
    output: Annotated[
        Path | None, option("-o --output", "Page; default: DIR/report.html.", "FILE", group=FILES)
    ] = None,
    details: Annotated[
        int, option("--details", "Clips shown with pictures and curves.", "N", min=0)
    ] = 60,
    overwrite: Annotated[
        bool, option("--overwrite", "Replace a file that is no earlier report.", group=FILES)
    ] = False,
    as_json: Annotated[
        bool, option("--json", "Print the figures as one JSON object.", group=MESSAGES)
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show a folder of videos as one self-contained page, report.html.

    A summary, a table, and for each clip a contact sheet, the sound against the opening of the
    mouth, drift and flicker over time, and timings. Records beside the videos (NAME.mp4.json) and a
    batch's results.jsonl are used where they are; plain MP4 files do, too. The page needs no
    network; its players need the videos to stay where they are.

    The mouth, its agreement with the sound, and identity are read by small networks that know
    rendered and drawn heads framed as the embedded model frames them. Elsewhere the page says
    "not measured". Nothing in it is Sync-C, Sync-D or another published score.

    The path of the page is printed on stdout. With --compare the page is compare.html in the
    current folder unless -o names another.

    \b
    Examples:
      joyflash report out
      joyflash report out -o /tmp/today.html --json
      joyflash report --compare before after -o compare.html
    """  # noqa: D301 - \b tells the help not to fold the examples
    if (folder is None) == (compare is None):
        raise UsageError("one folder or two to compare are needed", hint="joyflash report DIR")
    from joyflash_cli.report.write import write_comparison, write_report

    settings: Any = {
        "details": details,
        "overwrite": overwrite,
        "progress": None if quiet else _show_progress,
    }
    if compare is not None:
        written = write_comparison(compare, output, **settings)
    elif folder is not None:
        written = write_report(folder, output, **settings)
    typer.echo(json.dumps(written) if as_json else written["page"])


def _show_progress(name: str, num_done: int, num_clips: int) -> None:
    typer.echo(f"report: {num_done}/{num_clips} {name}", err=True)
