"""What ``joyflash batch`` says: problems of a table, a dry run, and what became of the rows."""

import json
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from joyflash_cli import __version__
from joyflash_cli.cli.events import EventStream
from joyflash_cli.errors import BatchError

if TYPE_CHECKING:
    from joyflash_cli.batch.plan import BatchPlan, BatchProblems
    from joyflash_cli.batch.renderer import RendererSettings
    from joyflash_cli.batch.runner import BatchStatus
    from joyflash_cli.weights.store import CheckpointFiles


class EngineName(StrEnum):
    """Where workers run."""

    local = "local"
    ray = "ray"


@dataclass(frozen=True)
class BatchOptions:
    """The command line of ``joyflash batch``, as given."""

    manifest: str
    out_dir: Path
    workers: int | None
    engine: EngineName
    ray_address: str | None
    shard: str
    retry_failed: bool
    fail_fast: bool
    overwrite: bool
    dry_run: bool
    device: str
    settings: "RendererSettings"
    as_json: bool
    quiet: bool
    progress: str = "auto"
    progress_fd: int | None = None

    @property
    def is_silent(self) -> bool:
        """Whether nothing is said to people: quiet, or a program reads along."""
        return self.quiet or self.progress == "json"


def say(options: BatchOptions, *lines: str) -> None:
    """Lines for people, on stderr."""
    if not options.is_silent:
        for line in lines:
            typer.echo(line, err=True)


def report_problems(options: BatchOptions, problems: "BatchProblems") -> None:
    """The list, where one long line would not do: for programs, and for people at a terminal."""
    if options.as_json:
        listed = [
            {"row": found.number, "line": found.line, "code": found.code, "problem": found.text}
            for found in problems.problems
        ]
        typer.echo(json.dumps({"valid": False, "count": problems.count, "problems": listed}))
    if sys.stderr.isatty():
        for found in problems.problems:
            typer.echo(f"  {found}", err=True)
        problems.message = problems.summary


def report_plan(options: BatchOptions, plan: "BatchPlan", events: EventStream | None) -> None:
    """What reading the table has shown: columns left out, rows that fail, videos to replace."""
    from joyflash_cli.batch.plan import MAX_TOLD

    for note in plan.notes:
        say(options, f"batch: {note}")
    for row in plan.refused[:MAX_TOLD]:
        say(options, f"batch: row {row.number} (line {row.line}) fails: {row.error}")
        if events is not None:
            events.emit("error", job=row.id, code=row.error_code, text=row.error)
    if plan.refused[MAX_TOLD:]:
        say(options, f"batch: and {len(plan.refused) - MAX_TOLD} more rows")
    if plan.num_changed:
        say(
            options,
            f"batch: {plan.num_changed} videos of earlier runs will be replaced: their rows or "
            "files have changed, or --overwrite was given",
        )


def report_dry_run(options: BatchOptions, plan: "BatchPlan", files: "CheckpointFiles") -> int:
    """Reads every picture and sound as rendering would; writes nothing."""
    from joyflash_cli.batch.plan import MAX_TOLD
    from joyflash_cli.batch.rehearsal import rehearse

    found = rehearse(
        plan, files, needs_face=options.settings.needs_face, choices=options.settings.choices
    )
    num_failing = len(plan.refused) + len(found.failures)
    refused = [
        {"row": row.number, "id": row.id, "code": row.error_code, "error": row.error}
        for row in plan.refused[:MAX_TOLD]
    ]
    for failure in found.failures:
        say(options, f"batch: row {failure['id']!r} would fail: {failure['code']}: "
             f"{failure['error']}")  # fmt: skip
    say(
        options,
        f"would write {found.num_renders} videos, {found.video_s:.2f} s in {found.num_blocks} "
        f"blocks, to {options.out_dir}; {plan.rows.count('done')} of {plan.rows.count()} are "
        f"done already, {plan.rows.count('failed') - len(plan.refused)} failed earlier, "
        f"{num_failing} would fail",
    )
    if options.as_json:
        summary: dict[str, Any] = {
            "dry_run": True,
            "out_dir": str(options.out_dir),
            "rows": plan.rows.count(),
            "done": plan.rows.count("done"),
            "failed": plan.rows.count("failed") - len(plan.refused),
            "would_render": found.num_renders,
            "would_fail": [*refused, *found.failures],
            "video_s": round(found.video_s, 6),
            "blocks": found.num_blocks,
            "profile": files.name,
            "version": __version__,
        }
        typer.echo(json.dumps(summary))
    if num_failing:
        raise BatchError(
            f"{num_failing} of {plan.rows.count()} rows would fail",
            hint="put their files right, or run it without them",
        )
    return 0


def report_result(options: BatchOptions, status: "BatchStatus", stop_code: int) -> int:
    """What became of the rows; the exit code of a batch without failed rows.

    Raises:
        BatchError: When rows failed.
    """
    from joyflash_cli.batch.results import RESULTS_CSV, RESULTS_JSONL

    results = options.out_dir / RESULTS_CSV
    if options.as_json:
        summary = {
            "out_dir": str(options.out_dir),
            "rows": status.num_rows,
            "done": status.num_done,
            "failed": status.num_failed,
            "open": status.num_open,
            "rendered": status.num_rendered,
            "video_s": round(status.video_s, 6),
            "wall_s": round(status.elapsed_s, 4),
            "results_csv": str(results),
            "results_jsonl": str(options.out_dir / RESULTS_JSONL),
            "stopped": bool(stop_code),
            "version": __version__,
        }
        typer.echo(json.dumps(summary))
    else:
        typer.echo(str(results))
    told = f"batch: {status.num_done} of {status.num_rows} done, {status.num_rendered} of them now"
    if stop_code:
        say(options, f"{told}; stopped, the same command goes on with {status.num_open}")
        return stop_code
    if status.num_failed:
        left = f", {status.num_open} not begun" if status.num_open else ""
        raise BatchError(
            f"{status.num_failed} of {status.num_rows} rows failed{left}",
            hint=f"see {results}; --retry-failed tries them again",
        )
    say(options, f"{told}, {status.video_s:.2f} s of video")
    return 0
