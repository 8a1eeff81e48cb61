"""``joyflash batch``: many videos from one table, with resuming, on one machine or many."""

import contextlib
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from joyflash_cli.cli.batch_progress import open_batch_progress
from joyflash_cli.cli.batch_text import (
    BatchOptions,
    EngineName,
    report_dry_run,
    report_plan,
    report_problems,
    report_result,
    say,
)
from joyflash_cli.cli.completion import complete_device, complete_dtype, complete_profile
from joyflash_cli.cli.events import EventStream, ProgressFd, open_events
from joyflash_cli.cli.execution import (
    AllowNoFace,
    Attention,
    Compile,
    FastDecode,
    Frame,
    MaxSize,
    Offload,
    OutputFps,
    Quantize,
    Size,
    VaeDevice,
)
from joyflash_cli.cli.help_text import MESSAGES
from joyflash_cli.cli.inputs import AudioTrack, SkipDamaged, Strict, said_while_opening
from joyflash_cli.cli.progress import check_progress_kind
from joyflash_cli.cli.signals import StopSignals
from joyflash_cli.errors import UsageError
from joyflash_cli.media.inputs.hearing import SoundChoices

if TYPE_CHECKING:
    from joyflash_cli.batch.engines.engine import Engine
    from joyflash_cli.batch.plan import BatchPlan
    from joyflash_cli.weights.store import CheckpointFiles

STANDARD_INPUT = "-"


def batch(
    manifest: Annotated[
        str,
        typer.Argument(metavar="MANIFEST", help="CSV or JSON lines file, or - for standard input."),
    ],
    out_dir: Annotated[
        Path, typer.Option("--out-dir", metavar="DIR", help="Where videos, records and results go.")
    ],
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            metavar="N",
            help="Rows at a time, if memory holds them; default: one per GPU or core.",
        ),
    ] = None,
    engine: Annotated[
        EngineName, typer.Option("--engine", help="Processes of this machine, or a Ray cluster.")
    ] = EngineName.local,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="ADDRESS",
            help="Cluster for --engine ray: auto or host:port; default: one on this machine.",
        ),
    ] = None,
    shard: Annotated[
        str, typer.Option("--shard", metavar="I/N", help="Only the I-th of N equal parts.")
    ] = "1/1",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try rows again that failed earlier.")
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Begin no further row once one has failed.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace whatever lies where a video goes."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Read every input, say what would be done, and stop."),
    ] = False,
    profile: Annotated[
        str,
        typer.Option(
            "--profile",
            metavar="NAME",
            help="Model; see joyflash weights list.",
            autocompletion=complete_profile,
        ),
    ] = "tiny",
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", metavar="DIR", help="Weights to use instead of the profile's."
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="NAME",
            help="auto, cpu, cuda, cuda:N or mps.",
            autocompletion=complete_device,
        ),
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype",
            metavar="NAME",
            help="auto, fp32, bf16 or fp16; also long names.",
            autocompletion=complete_dtype,
        ),
    ] = "auto",
    threads: Annotated[
        int, typer.Option("--threads", min=1, metavar="N", help="CPU threads of each worker.")
    ] = 1,
    attention: Attention = "auto",
    compile_layers: Compile = False,
    offload: Offload = "none",
    fast_decode: FastDecode = False,
    vae_device: VaeDevice = None,
    quantize: Quantize = "none",
    output_fps: OutputFps = None,
    audio_track: AudioTrack = None,
    skip_damaged: SkipDamaged = False,
    strict: Strict = False,
    allow_no_face: AllowNoFace = False,
    frame: Frame = None,
    size: Size = None,
    max_size: MaxSize = None,
    progress: Annotated[
        str,
        typer.Option(
            "--progress",
            metavar="KIND",
            help="On stderr: auto, bar, plain, json or none.",
            rich_help_panel=MESSAGES,
        ),
    ] = "auto",
    progress_fd: ProgressFd = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a path.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Make many talking-head videos from a table, one row each.

    The table has the columns id, image, audio and, if wanted, output, prompt and seed; as CSV
    (comma, semicolon or tab) or as JSON lines. Relative pictures and sounds are looked for beside
    the table; outputs lie in the output folder, id.mp4 by default. Every row is checked before a
    model is loaded: what is wrong with rows is listed at once, and those rows fail.

    What was done is written down in DIR/.joyflash/ledger.jsonl, so the same command again goes on
    where it stopped, on this machine or on another that shares the folder; several may run at
    once. A row that fails does not stop the others; the exit code is then 7. What became of each
    row is in DIR/results.csv and DIR/results.jsonl. The path of the former is printed.

    \b
    Examples:
      joyflash batch manifest.csv --out-dir out
      joyflash batch manifest.csv --out-dir out --retry-failed
      joyflash batch manifest.csv --out-dir out --shard $SLURM_ARRAY_TASK_ID/16
      joyflash batch manifest.csv --out-dir /shared/out --engine ray --ray-address auto
    """  # noqa: D301 - \b tells the help not to fold the examples
    from joyflash_cli.batch.renderer import RendererSettings
    from joyflash_cli.render.frame import FrameOptions
    from joyflash_cli.render.placement import ExecutionOptions

    settings = RendererSettings(
        profile=profile,
        checkpoint="" if checkpoint is None else str(checkpoint.absolute()),
        dtype=dtype,
        threads=threads,
        execution=ExecutionOptions(
            attention=attention,
            compile=compile_layers,
            offload=offload,
            fast_decode=fast_decode,
            codec_device=vae_device,
            quantize=quantize,
        ),
        output_fps=output_fps,
        needs_face=not allow_no_face,
        choices=SoundChoices(audio_track, skip_damaged, strict),
        frame=FrameOptions(frame, size, max_size),
    )
    options = BatchOptions(
        manifest=manifest,
        out_dir=out_dir.absolute(),
        workers=workers,
        engine=engine,
        ray_address=ray_address,
        shard=shard,
        retry_failed=retry_failed,
        fail_fast=fail_fast,
        overwrite=overwrite,
        dry_run=dry_run,
        device=device,
        settings=settings,
        as_json=as_json,
        quiet=quiet,
        progress=progress,
        progress_fd=progress_fd,
    )
    check_progress_kind(progress)
    with StopSignals() as signals, open_events(progress, progress_fd) as events:
        try:
            exit_code = _run(options, signals, events)
        except KeyboardInterrupt:
            exit_code = signals.exit_code
            say(options, "joyflash: stopped")
        if events is not None:
            events.emit("done", exit_code=exit_code)
    raise typer.Exit(exit_code)


def _run(options: BatchOptions, signals: StopSignals, events: EventStream | None) -> int:
    from joyflash_cli.weights.store import resolve_checkpoint

    if options.ray_address is not None and options.engine is not EngineName.ray:
        raise UsageError("--ray-address is for --engine ray", hint="add --engine ray")
    given = options.settings.checkpoint
    files = resolve_checkpoint(options.settings.profile, Path(given) if given else None)
    # What the default shows is written into the rows' keys, like any other choice.
    settings = replace(options.settings, frame=options.settings.frame.resolved(files))
    if options.engine is EngineName.local:
        from joyflash_cli.batch.fitting import with_named_dtype

        settings = with_named_dtype(settings, options.device)
    options = replace(options, settings=settings)
    plan = _prepare(options, files)
    report_plan(options, plan, events)
    if options.dry_run:
        return report_dry_run(options, plan, files)
    if not plan.rows.count("open"):
        say(options, "batch: nothing is left to do")
    from joyflash_cli.batch.runner import BatchRunner
    from joyflash_cli.weights.verify import unverified

    if not_verified := unverified(files):
        say(options, f"weights: {not_verified}")
    signals.be_graceful()
    with (
        _make_engine(options, plan, files) as engine,
        open_batch_progress(quiet=options.quiet, kind=options.progress, events=events) as progress,
    ):
        runner = BatchRunner(plan, engine, report=progress.update, should_stop=signals.requested)
        status = runner.run()
    return report_result(options, status, signals.exit_code if runner.stopped else 0)


def _prepare(options: BatchOptions, files: "CheckpointFiles") -> "BatchPlan":
    """The checked batch; all problems of its table at once."""
    from joyflash_cli.batch.checks import RowRules
    from joyflash_cli.batch.manifest import open_manifest
    from joyflash_cli.batch.plan import BatchChoices, BatchProblems, prepare_batch
    from joyflash_cli.batch.rows import parse_shard
    from joyflash_cli.render.record import weights_sha256

    choices = BatchChoices(
        out_dir=options.out_dir,
        weights_sha256=weights_sha256(files),
        parameters=options.settings.parameters,
        shard=parse_shard(options.shard),
        retry_failed=options.retry_failed,
        fail_fast=options.fail_fast,
        overwrite=options.overwrite,
    )
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


def _make_engine(options: BatchOptions, plan: "BatchPlan", files: "CheckpointFiles") -> "Engine":
    load = options.settings.load
    left = plan.rows.mine("open")
    # Nothing left to do is no reason to start a cluster or to ask for GPUs.
    if options.engine is EngineName.ray and left:
        from joyflash_cli.batch.engines.ray import THIS_MACHINE, ray_engine

        # Ray sends figures about its use to its makers unless it is told not to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        address = options.ray_address or os.environ.get("RAY_ADDRESS") or THIS_MACHINE
        return ray_engine(load, address=address, device=options.device, num_workers=options.workers)
    from joyflash_cli.batch.devices import worker_devices
    from joyflash_cli.batch.engines.local import local_engine
    from joyflash_cli.batch.fitting import fit_workers
    from joyflash_cli.batch.rows import STATE_FOLDER

    devices: tuple[str, ...] = (options.device,)
    if left:
        wanted = worker_devices(options.device, options.workers)[: len(left)]
        devices, fewer = fit_workers(wanted, options.settings, files, prompt=left[0].prompt)
        if fewer:
            say(options, f"batch: {fewer}")
    logs = options.out_dir / STATE_FOLDER / "logs"
    name = f"{socket.gethostname()}-{os.getpid()}"
    return local_engine(load, devices=devices, logs=logs, name=name)
