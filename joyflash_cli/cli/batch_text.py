"""What ``joyflash batch`` says: problems of a table, a dry run, and what became of the rows."""

import sys
from typing import TYPE_CHECKING, Any

import typer

from joyflash_cli import __version__
from joyflash_cli.cli.events import EventStream
from joyflash_cli.cli.options import print_json
from joyflash_cli.errors import BatchError

if TYPE_CHECKING:
    from joyflash_cli.batch.plan import BatchPlan, BatchProblems
    from joyflash_cli.batch.renderer import RendererSettings
    from joyflash_cli.batch.runner import BatchStatus
    from joyflash_cli.cli.command_lines import BatchOptions
    from joyflash_cli.weights.store import CheckpointFiles


def report_problems(options: "BatchOptions", problems: "BatchProblems") -> None:
    """The list, where one long line would not do: for programs, and for people at a terminal."""
    if options.as_json:
        listed = [
            {"row": found.number, "line": found.line, "code": found.code, "problem": found.text}
            for found in problems.problems
        ]
        print_json({"valid": False, "count": problems.count, "problems": listed})
    if sys.stderr.isatty():
        for found in problems.problems:
            typer.echo(f"  {found}", err=True)
        problems.message = problems.summary


def report_plan(options: "BatchOptions", plan: "BatchPlan", events: EventStream) -> None:
    """What reading the table has shown: columns left out, rows that fail, videos to replace."""
    from joyflash_cli.batch.plan import MAX_TOLD

    for note in plan.notes:
        options.say(f"batch: {note}")
    for row in plan.refused[:MAX_TOLD]:
        options.say(f"batch: row {row.number} (line {row.line}) fails: {row.error}")
        events.emit("error", job=row.id, code=row.error_code, text=row.error)
    if plan.refused[MAX_TOLD:]:
        options.say(f"batch: and {len(plan.refused) - MAX_TOLD} more rows")
    if plan.num_changed:
        options.say(
            f"batch: {plan.num_changed} videos of earlier runs will be replaced: their rows or "
            "files have changed, or --overwrite was given",
        )


def report_dry_run(
    options: "BatchOptions",
    settings: "RendererSettings",
    plan: "BatchPlan",
    files: "CheckpointFiles",
) -> int:
    """Reads every picture and sound as rendering would; writes nothing."""
    from joyflash_cli.batch.plan import MAX_TOLD
    from joyflash_cli.batch.rehearsal import rehearse

    found = rehearse(
        plan,
        files,
        needs_face=settings.needs_face,
        choices=settings.choices,
        frame=settings.frame,
        label=settings.label,
    )
    num_failing = len(plan.refused) + len(found.failures)
    refused = [
        {"row": row.number, "id": row.id, "code": row.error_code, "error": row.error}
        for row in plan.refused[:MAX_TOLD]
    ]
    for failure in found.failures:
        options.say(f"batch: row {failure['id']!r} would fail: {failure['code']}: "
             f"{failure['error']}")  # fmt: skip
    options.say(
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
        print_json(summary)
    if num_failing:
        raise BatchError(
            f"{num_failing} of {plan.rows.count()} rows would fail",
            hint="put their files right, or run it without them",
        )
    return 0


def report_result(options: "BatchOptions", status: "BatchStatus", stop_code: int) -> int:
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
        print_json(summary)
    else:
        typer.echo(str(results))
    told = f"batch: {status.num_done} of {status.num_rows} done, {status.num_rendered} of them now"
    if stop_code:
        options.say(f"{told}; stopped, the same command goes on with {status.num_open}")
        return stop_code
    if status.num_failed:
        left = f", {status.num_open} not begun" if status.num_open else ""
        raise BatchError(
            f"{status.num_failed} of {status.num_rows} rows failed{left}",
            hint=f"see {results}; --retry-failed tries them again",
        )
    options.say(f"{told}, {status.video_s:.2f} s of video")
    return 0
