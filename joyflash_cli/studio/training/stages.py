"""The stages of ``joyflash train``, each from one configuration file to files on disk.

Every stage reads what the ones before it wrote below the work directory and goes on where it was
stopped when run again with ``resume``.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError

from joyflash_cli.errors import (
    ConfigError,
    DataError,
    OutputError,
    UsageError,
)
from joyflash_cli.files import is_disk_full, room_hint, write_reason
from joyflash_cli.studio.training import distillation_stages, embedded_stages
from joyflash_cli.studio.training.run_config import RunConfig, load_run_config
from joyflash_cli.studio.training.session import Session, join_processes
from joyflash_cli.weights.tensors import as_os_error

Stage = Callable[[RunConfig, Session], None]

STAGES: dict[str, Stage] = {
    "sources": embedded_stages.check_sources,
    "points": embedded_stages.points,
    "speech": embedded_stages.speech,
    "clips": embedded_stages.clips,
    "photo-clips": embedded_stages.photo_clips,
    "film-clips": embedded_stages.film_clips,
    "unpack": embedded_stages.unpack,
    "front-end": embedded_stages.front_end,
    "codec": embedded_stages.codec,
    "latents": embedded_stages.latents,
    "lip-reader": embedded_stages.lip_reader,
    "generator": embedded_stages.generator,
    "guidance": embedded_stages.guidance,
    "dataset": distillation_stages.dataset,
    "teacher": distillation_stages.teacher,
    "ode-pairs": distillation_stages.ode_pairs,
    "ode": distillation_stages.ode,
    "dmd": distillation_stages.dmd,
    # The decoder learns to draw what the distilled generator says.
    "predictions": embedded_stages.predictions,
    "decoder": embedded_stages.decoder,
    "export": embedded_stages.export,
}
"""In the order of the pipeline."""

DISTILLATION = ("dataset", "teacher", "ode-pairs", "ode", "dmd")
"""Stages that run in as many processes as there are."""


@contextlib.contextmanager
def surroundings_told(folder: Path) -> Iterator[None]:
    """Within it, a stage runs; what it can meet outside of itself is told in one line: no bug.

    Args:
        folder: Of the run; made if it is not there, and named where the system does not say which
            file it was.

    Raises:
        OutputError: ``E-OUTPUT-FULL`` for a full disk, else for what cannot be written.
        DataError: For a file of an earlier stage that is not there.
        ConfigError: For a package that is not installed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename or str(error)} is missing",
            hint="run the stages before this one first",
        ) from error
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The package {error.name} is not installed", hint="pip install 'joyflash[train]'"
        ) from error
    except (OSError, SafetensorError) as error:
        known = error if isinstance(error, OSError) else as_os_error(error)
        if is_disk_full(known):
            raise OutputError(
                f"{known.filename or folder} cannot be written: {write_reason(known)}",
                hint=f"{room_hint(known)}, then run the same command again; --resume goes on from "
                "the last state",
                code="E-OUTPUT-FULL",
            ) from error
        if known is None or known.filename is None:
            raise
        raise OutputError(
            f"{known.filename}: {known.strerror}", hint=f"work_dir is {folder}"
        ) from error


def run_stage(
    stage: str,
    config_path: Path,
    *,
    assets_dir: Path | None = None,
    resume: bool = False,
    report: Callable[[dict], None] = lambda line: None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: bool = False,
) -> None:
    """Run one stage.

    Args:
        stage: One of ``STAGES``.
        config_path: TOML file of a ``RunConfig``.
        assets_dir: Folder of the source packs, instead of the file's.
        resume: Go on from the stage's saved state.
        report: Called with a small dictionary of figures now and then.
        should_stop: Asked after every step of a training; true saves its state and ends.
        progress: Whether trainings draw a bar on stderr.

    Raises:
        UsageError: If there is no such stage.
        OutputError: ``E-OUTPUT-FULL`` when the disk is full; what was saved before stays.
        DataError: If an earlier stage has not run.
        TrainingStopped: When ``should_stop`` said so; the state is saved.
    """
    if stage not in STAGES:
        raise UsageError(
            f"There is no training stage {stage!r}.", hint=f"stages: {', '.join(STAGES)}"
        )
    run = load_run_config(config_path)
    if assets_dir is not None:
        run = replace(run, assets_dir=str(assets_dir))
    torch.set_num_threads(run.threads)
    session = Session(
        should_stop=should_stop,
        on_log=report,
        resumes=resume,
        save_every_s=run.save_every_s,
        save_every_steps=run.save_every_steps,
        tensorboard=run.tensorboard,
        progress=progress,
    )
    with surroundings_told(run.path("")):
        if stage not in DISTILLATION:
            STAGES[stage](run, session)
            return
        with join_processes(run.device) as processes:
            STAGES[stage](run, replace(session, processes=processes))
