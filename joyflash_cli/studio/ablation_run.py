"""``joyflash evaluate ablation``: train the variants of a table, measure them, write the table."""

import itertools
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyflash_cli.config import from_dict
from joyflash_cli.errors import UsageError
from joyflash_cli.files import write_whole

if TYPE_CHECKING:
    from joyflash_cli.measures.reader import Readers
    from joyflash_cli.studio.evaluation.ablation import AblationRow
    from joyflash_cli.studio.evaluation.pack import HeldOutPack
    from joyflash_cli.studio.training.study import Study


@dataclass(frozen=True)
class AblationRequest:
    """What the user asked for.

    Attributes:
        table: Of the paper.
        config: Run whose clips and rates are used.
        steps: Distillation steps of every variant.
        start_steps: Steps of teacher and ODE initialisation, and number of ODE pairs; the run's own
            numbers if ``None``.
        seeds: Trainings of every variant.
        horizon_s: Length of the long stream.
        clips: Held-out clips measured; all if ``None``.
        checkpoint: Profile or directory that everything starts from.
        output: Folder of the table.
    """

    table: int
    config: Path
    steps: int
    start_steps: int | None
    seeds: int
    horizon_s: float
    clips: int | None
    checkpoint: str
    output: Path


Tell = Callable[[str], Any]


def run_ablation(
    request: AblationRequest, tell: Tell, should_stop: Callable[[], bool]
) -> tuple[Path, Path] | None:
    """Train and measure what is missing, and write the table.

    Every variant that was trained and every report that was written is used again, also by another
    table, so the command can be stopped at any time and run again.

    Args:
        request: What the user asked for.
        tell: Told in sentences how it goes.
        should_stop: Asked between steps and after each measurement.

    Returns:
        The JSON file and the Markdown file; ``None`` when it was stopped.

    Raises:
        UsageError: For an unknown table or a missing configuration.
    """
    from joyflash_cli.studio.evaluation import ablation
    from joyflash_cli.studio.training.run_config import load_run_config
    from joyflash_cli.studio.training.session import Session, TrainingStopped
    from joyflash_cli.studio.training.study import Study, StudyBudget

    rows, places = ablation.ablation_rows(request.table), ablation.PLACES
    if not request.config.is_file():
        raise UsageError(f"{request.config} does not exist", hint="give --config FILE")
    run = load_run_config(request.config)
    budget = StudyBudget(
        steps=request.steps,
        teacher_steps=request.start_steps or run.teacher.optimiser.steps,
        pairs=request.start_steps or run.ode_pairs.num_pairs,
        ode_steps=request.start_steps or run.ode.optimiser.steps,
        checkpoint=request.checkpoint,
    )
    measured: dict[str, dict[str, list]] = {place: {} for place in places}
    session = Session(
        should_stop=should_stop,
        on_log=lambda line: tell(json.dumps(line)),
        resumes=True,
        save_every_s=run.save_every_s,
    )
    study = Study(run, budget, session)
    try:
        for place, row in itertools.product(places, rows):
            measured[place][row.name] = []
            for seed in range(request.seeds):
                figures = _measure(study, request, place, row, seed, tell)
                measured[place][row.name].append(figures)
                if should_stop():
                    tell("stopped after a measurement; run the command again to go on")
                    return None
    except TrainingStopped as stopped:
        tell(f"{stopped}; run the command again to go on")
        return None
    shown = asdict(budget) | {
        "seeds": request.seeds, "horizon_s": request.horizon_s, "clips": request.clips or "all",
    }  # fmt: skip
    report = ablation.table_report(request.table, rows, measured, budget=shown)
    return ablation.write_table(report, request.output)


@cache
def _measuring_material() -> tuple["HeldOutPack", "Readers"]:
    """Clips and readers, decoded once for all variants."""
    from joyflash_cli.measures.reader import load_readers
    from joyflash_cli.studio.evaluation.pack import load_pack

    return load_pack(), load_readers()


def _measure(
    study: "Study",
    request: AblationRequest,
    place: Any,
    row: "AblationRow",
    seed: int,
    tell: Tell,
) -> dict[str, float | None]:
    """Figures of one row and seed, from disk where they are."""
    from joyflash_cli.studio.evaluation.ablation import figures_of
    from joyflash_cli.studio.evaluation.generation import CheckpointRenderer
    from joyflash_cli.studio.evaluation.report import rounded
    from joyflash_cli.studio.evaluation.variant import measure_variant
    from joyflash_cli.studio.training.rollout import Ablation

    trained, sampled = (from_dict(Ablation, switches) for switches in (row.training, row.sampling))
    sampling = "-".join(row.sampling) or "full"
    training = "-".join(row.training) or "full"
    clips = request.clips or "all"
    name = (
        f"{training}-sampled-{sampling}-steps-{request.steps}-seed-{seed}"
        f"-horizon-{request.horizon_s:g}-clips-{clips}.json"
    )
    path = study.run_at(place).path(f"measured/{name}")
    # Reports of earlier versions lack what the clips get as videos.
    if not path.exists() or "videos" not in json.loads(path.read_text()):
        tell(f"table {request.table}, {place}: {row.name}, seed {seed}")
        weights = study.train(place, training, trained, seed)
        with tempfile.TemporaryDirectory() as folder:
            variant = study.export(place, weights, sampled, Path(folder) / "variant")
            report = measure_variant(
                CheckpointRenderer(variant),
                *_measuring_material(),
                horizon_s=request.horizon_s,
                seed=seed,
                num_clips=request.clips,
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(rounded(report)))
    return figures_of(json.loads(path.read_text()))
