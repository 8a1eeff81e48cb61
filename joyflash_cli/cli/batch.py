"""``joyflash batch``: many videos from one table, with resuming, on one machine or many."""

import contextlib
import os
import socket
import stat
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from joyflash_cli.cli.batch_text import report_dry_run, report_plan, report_problems, report_result
from joyflash_cli.cli.command_lines import BatchOptions, EngineName
from joyflash_cli.cli.endpoints import STANDARD_INPUT, said_while_opening
from joyflash_cli.cli.events import EventStream
from joyflash_cli.cli.options import takes
from joyflash_cli.cli.process import StopSignals
from joyflash_cli.cli.progress import BatchProgress, open_display
from joyflash_cli.errors import UsageError

if TYPE_CHECKING:
    from joyflash_cli.batch.arrivals import Arrivals
    from joyflash_cli.batch.engines.engine import Engine
    from joyflash_cli.batch.plan import BatchChoices, BatchPlan
    from joyflash_cli.batch.renderer import RendererSettings
    from joyflash_cli.weights.store import CheckpointFiles


@takes(BatchOptions)
def batch(options: BatchOptions) -> None:
    """Make many talking-head videos from a table, one row each.

    The table has the columns id, image, audio and, if wanted, output, prompt and seed; as CSV
    (comma, semicolon or tab) or as JSON lines. Relative pictures and sounds are looked for beside
    the table; outputs lie in the output folder, id.mp4 by default. Every row is checked before a
    model is loaded: what is wrong with rows is listed at once, and those rows fail.

    What was done is written down in DIR/.joyflash/ledger.jsonl, so the same command again goes on
    where it stopped, on this machine or on another that shares the folder; several may run at
    once. A row that fails does not stop the others; the exit code is then 7. What became of each
    row is in DIR/results.csv and DIR/results.jsonl. The path of the former is printed.

    Through a pipe (joyflash batch -) rows begin as their lines come, with workers that stay
    loaded; what becomes of each is an event, saved or error, and no row stops the others.

    \b
    Examples:
      joyflash batch manifest.csv --out-dir out
      joyflash batch manifest.csv --out-dir out --retry-failed
      joyflash batch manifest.csv --out-dir out --shard $SLURM_ARRAY_TASK_ID/16
      some-service | joyflash batch - --out-dir out --progress json
      joyflash batch manifest.csv --out-dir /shared/out --engine ray --ray-address auto
    """  # noqa: D301 - \b tells the help not to fold the examples
    options.until_stopped(partial(_run, options))


def _run(options: BatchOptions, signals: StopSignals, events: EventStream) -> int:
    if options.ray_address is not None and options.engine is not EngineName.ray:
        raise UsageError("--ray-address is for --engine ray", hint="add --engine ray")
    options = replace(options, out_dir=options.out_dir.absolute())
    files = options.find_checkpoint()
    settings = options.settings(files)
    if settings.signing is not None:
        from joyflash_cli.provenance.signing import check_identity

        check_identity(settings.signing)
    if options.engine is EngineName.local:
        from joyflash_cli.batch.fitting import with_named_dtype

        settings = with_named_dtype(settings, options.device)
    arrivals = None
    if options.manifest == STANDARD_INPUT and not options.dry_run and _is_pipe():
        arrivals = _listen(options, settings, files)
    plan = _prepare(options, settings, files) if arrivals is None else arrivals.plan
    report_plan(options, plan, events)
    if options.dry_run:
        return report_dry_run(options, settings, plan, files)
    if arrivals is None and not plan.rows.count("open"):
        options.say("batch: nothing is left to do")
    from joyflash_cli.batch.runner import BatchRunner
    from joyflash_cli.weights.store import unverified

    if not_verified := unverified(files):
        options.say(f"weights: {not_verified}")
    signals.be_graceful()
    display = open_display("batch", quiet=options.quiet, kind=options.progress)
    with (
        _make_engine(options, settings, plan, files, arrivals) as engine,
        display,
    ):
        progress = BatchProgress(display, events)
        runner = BatchRunner(
            plan,
            engine,
            arrivals=arrivals,
            report=progress.update,
            should_stop=signals.requested,
        )
        status = runner.run()
    return report_result(options, status, signals.exit_code if runner.stopped else 0)


def _prepare(
    options: BatchOptions, settings: "RendererSettings", files: "CheckpointFiles"
) -> "BatchPlan":
    """The checked batch; all problems of its table at once."""
    from joyflash_cli.batch.checks import RowRules
    from joyflash_cli.batch.manifest import open_manifest
    from joyflash_cli.batch.plan import BatchProblems, prepare_batch

    choices = _choices(options, settings, files)
    from_pipe = options.manifest == STANDARD_INPUT
    if from_pipe and sys.stdin.isatty():
        raise UsageError(
            "the manifest - is standard input, which is a terminal",
            hint="pipe a table into it, or give a file",
            code="E-STDIN-TERMINAL",
        )
    folder = Path.cwd() if from_pipe else Path(options.manifest).absolute().parent
    rules = RowRules(folder=folder, profile=files.name, hears_text=files.description.hears_text)
    name = "standard input" if from_pipe else Path(options.manifest).name
    try:
        if from_pipe:
            return prepare_batch(sys.stdin.buffer, name, choices=choices, rules=rules)
        with contextlib.ExitStack() as opened:
            path = Path(options.manifest)
            with said_while_opening(path, "MANIFEST", quiet=options.is_silent):
                file = opened.enter_context(open_manifest(path))
            return prepare_batch(file, name, choices=choices, rules=rules)
    except BatchProblems as problems:
        report_problems(options, problems)
        raise


def _choices(
    options: BatchOptions, settings: "RendererSettings", files: "CheckpointFiles"
) -> "BatchChoices":
    from joyflash_cli.batch.plan import BatchChoices
    from joyflash_cli.batch.rows import parse_shard
    from joyflash_cli.render.record import weights_sha256

    return BatchChoices(
        out_dir=options.out_dir,
        weights_sha256=weights_sha256(files),
        parameters=settings.parameters,
        shard=parse_shard(options.shard),
        retry_failed=options.retry_failed,
        fail_fast=options.fail_fast,
        overwrite=options.overwrite,
    )


def _is_pipe() -> bool:
    """Whether rows may still come on standard input; a file and a terminal are read otherwise."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _listen(
    options: BatchOptions, settings: "RendererSettings", files: "CheckpointFiles"
) -> "Arrivals":
    """The rows of a pipe, begun as they come."""
    from joyflash_cli.batch.arrivals import Arrivals
    from joyflash_cli.batch.checks import RowRules

    rules = RowRules(Path.cwd(), files.name, hears_text=files.description.hears_text)
    return Arrivals(
        sys.stdin.buffer,
        "standard input",
        choices=_choices(options, settings, files),
        rules=rules,
        note=lambda text: options.say(f"batch: {text}"),
    )


def _make_engine(
    options: BatchOptions,
    settings: "RendererSettings",
    plan: "BatchPlan",
    files: "CheckpointFiles",
    arrivals: "Arrivals | None",
) -> "Engine":
    load = settings.load
    left = plan.rows.mine("open")
    # Nothing left to do is no reason to start a cluster or to ask for GPUs.
    if options.engine is EngineName.ray and (left or arrivals is not None):
        from joyflash_cli.batch.engines.ray import THIS_MACHINE, ray_engine

        # Ray sends figures about its use to its makers unless it is told not to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        address = options.ray_address or os.environ.get("RAY_ADDRESS") or THIS_MACHINE
        return ray_engine(
            load,
            address=address,
            device=options.device,
            num_workers=options.workers,
            gpus_per_worker=options.gpus,
        )
    from joyflash_cli.batch.engines.local import local_engine
    from joyflash_cli.batch.fitting import fit_workers, worker_devices
    from joyflash_cli.batch.rows import STATE_FOLDER

    devices: tuple[str, ...] = (options.device,)
    if left or arrivals is not None:
        wanted = worker_devices(options.device, options.workers, options.gpus)
        wanted = wanted if arrivals is not None else wanted[: len(left)]
        prompt = left[0].prompt if left else ""
        devices, fewer = fit_workers(wanted, settings, files, prompt=prompt)
        if fewer:
            options.say(f"batch: {fewer}")
    logs = options.out_dir / STATE_FOLDER / "logs"
    name = f"{socket.gethostname()}-{os.getpid()}"
    return local_engine(load, devices=devices, logs=logs, name=name)
