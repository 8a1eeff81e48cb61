"""``joyflash evaluate videos``: the films of any system, judged alike."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from joyflash_cli.cli.help_text import FILES, MESSAGES
from joyflash_cli.cli.options import Debug, Json, Quiet, option, print_json, say, takes
from joyflash_cli.cli.process import StopSignals
from joyflash_cli.errors import BatchError, UsageError


def _explain(requested: bool) -> None:
    """Says what every figure means, instead of measuring."""
    if not requested:
        return
    from joyflash_cli.measures.metrics import METRICS

    for metric in METRICS:
        note = " (needs weights of others)" if metric.needs_download else ""
        typer.echo(f"{metric.name}{note}")
        for measure in metric.measures:
            unit = f" [{measure.unit}]" if measure.unit else ""
            typer.echo(f"  {measure.name}{unit}: {measure.meaning}.")
    raise typer.Exit


@dataclass(frozen=True, kw_only=True)
class VideosOptions:
    """The command line of ``joyflash evaluate videos``."""

    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|MANIFEST",
            help="Folder of videos, SYSTEM/CATEGORY/name.mp4 or flat; or a table.",
        ),
    ]
    metrics: Annotated[
        str | None,
        option(
            "--metrics",
            "Separated by commas, or all; default: those that need no download.",
            "NAMES",
        ),
    ] = None
    videos: Annotated[
        list[Path] | None,
        option(
            "--videos",
            "Output folder of the batch whose manifest MANIFEST is, as of an evaluation set; may "
            "be given again: each is a system.",
            "DIR",
            group=FILES,
        ),
    ] = None
    reference: Annotated[
        Path | None,
        option(
            "--reference",
            "Picture that the videos were made of, or a folder of pictures of their names; "
            "default: the first frame.",
            "FILE|DIR",
            group=FILES,
        ),
    ] = None
    truth: Annotated[
        Path | None,
        option("--truth", "Folder of true films of the videos' names.", "DIR", group=FILES),
    ] = None
    beside: Annotated[
        str | None,
        option("--beside", "Show published figures, too: paper is its Table 1.", "WHAT"),
    ] = None
    out: Annotated[
        Path | None,
        option(
            "--out",
            "Folder of results, which later runs go on from; default: measures in DIR or beside "
            "MANIFEST.",
            "DIR",
            group=FILES,
        ),
    ] = None
    syncnet: Annotated[
        Path | None,
        option(
            "--syncnet",
            "Other weights than SyncNet's published ones: safetensors. Their Sync-C and Sync-D "
            "compare with no others.",
            "FILE",
            group=FILES,
        ),
    ] = None
    remote_code: Annotated[
        str,
        option(
            "--remote-code",
            "Allow Q-Align's published code of this revision to run: it may do whatever you may. "
            "--metrics q_align says which revision.",
            "REPO@COMMIT",
        ),
    ] = ""
    explain: Annotated[
        bool,
        option(
            "--explain",
            "Say what every figure means and what it does not, and exit.",
            group=MESSAGES,
            callback=_explain,
            is_eager=True,
        ),
    ] = False
    markdown: Annotated[
        bool, option("--markdown", "Print the tables as Markdown.", group=MESSAGES)
    ] = False
    as_json: Json = False
    quiet: Quiet = False
    debug: Debug = False

    @property
    def folder(self) -> Path:
        """Where results are kept."""
        from joyflash_cli.measures.videos import RESULTS_FOLDER

        place = self.source if self.source.is_dir() else self.source.parent
        return self.out if self.out is not None else place / RESULTS_FOLDER


@takes(VideosOptions)
def videos(options: VideosOptions) -> None:
    """Judge videos of any system: lips, drift, speed, and the paper's scores.

    A table is CSV with a header, or JSON lines: the column video, and any of reference (picture),
    audio, truth (the true film of the same sentence), system and category. The manifest of a batch
    will do with --videos. Tables of means by system and category are printed, with the number of
    clips behind them; videos that failed are listed and end with status 7.

    \b
    Examples:
      joyflash evaluate videos out --truth films --markdown
      joyflash evaluate videos clips.csv --metrics lips,drift --json
      joyflash evaluate videos set/manifest.csv --videos ours --videos theirs
      joyflash evaluate videos out --metrics all --beside paper
    """  # noqa: D301 - \b tells the help not to fold the examples
    if options.as_json and options.markdown:
        raise UsageError("--json and --markdown are two answers", hint="leave one of them out")
    if options.beside not in (None, "paper"):
        raise UsageError(f"--beside {options.beside!r:.80}", hint="give paper")
    from joyflash_cli.measures.metrics import all_measures, choose_metrics, metrics_with
    from joyflash_cli.measures.video_rows import read_video_rows
    from joyflash_cli.measures.video_table import summarise
    from joyflash_cli.measures.videos import measure_videos, settings_of

    known = metrics_with(syncnet=options.syncnet, remote_code=options.remote_code)
    chosen = choose_metrics(options.metrics, known)
    rows = read_video_rows(
        options.source,
        videos=options.videos or (),
        reference=options.reference,
        truth=options.truth,
    )

    def tell(text: str, num_done: int, num_rows: int) -> None:
        say(f"evaluate: {text} {num_done}/{num_rows}", quiet=options.quiet)

    with StopSignals() as signals:
        found = measure_videos(
            rows,
            chosen,
            tuple(known.values()),
            options.folder,
            progress=tell,
            should_stop=signals.should_stop,
        )
        if found is None:
            say("evaluate: stopped; the same command goes on from here", quiet=options.quiet)
            raise typer.Exit(signals.exit_code)
    summary = summarise(found, all_measures()) | {"settings": settings_of(chosen)}
    _tell_summary(options, summary)
    if summary["failed"]:
        raise BatchError(
            f"{len(summary['failed'])} of {len(rows)} videos could not be measured; no mean holds "
            "what is missing of them",
            hint="the table lists them",
        )


def _tell_summary(options: VideosOptions, summary: dict[str, Any]) -> None:
    """Keeps and prints the tables of means."""
    from joyflash_cli.measures.metrics import all_measures
    from joyflash_cli.measures.video_table import as_markdown, as_text
    from joyflash_cli.measures.videos import write_results

    paper = options.beside is not None
    page = as_markdown(summary, all_measures(), paper=paper)
    write_results(options.folder, summary, page)
    if options.as_json:
        print_json(summary)
    else:
        text = page.rstrip() if options.markdown else as_text(summary, all_measures(), paper=paper)
        typer.echo(text)
