"""The variants of the ablation: trained from one start at one small budget, then exported.

Start, teacher, ODE pairs and ODE initialisation are shared by all variants of a place of the
reference; only the distillation differs. Everything that is on disk already is used again, so an
interrupted study goes on where it was.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from joyflash_cli.studio.training.distillation_stages import distil, ode, ode_pairs, teacher
from joyflash_cli.studio.training.dmd import student_profile
from joyflash_cli.studio.training.export import export_around
from joyflash_cli.studio.training.latents import ReferencePlace
from joyflash_cli.studio.training.rollout import Ablation
from joyflash_cli.studio.training.run_config import (
    CHECKPOINT,
    DMD_RESULT,
    ODE_RESULT,
    TEACHER_RESULT,
    DistillationWeights,
    RunConfig,
)
from joyflash_cli.studio.training.run_parts import read_geometry
from joyflash_cli.studio.training.session import Session
from joyflash_cli.studio.training.trainer import NetworkStage, check_counts

N = TypeVar("N", bound=NetworkStage)


@dataclass(frozen=True)
class StudyBudget:
    """What every variant is given.

    Attributes:
        steps: Of the distillation.
        teacher_steps: Of adapting the teacher to the place of the reference.
        pairs: ODE pairs.
        ode_steps: Of the ODE initialisation.
        checkpoint: Profile or checkpoint directory that everything starts from; it must be the one
            that encoded the run's clips.
    """

    steps: int = 400
    teacher_steps: int = 400
    pairs: int = 128
    ode_steps: int = 200
    checkpoint: str = "tiny"


@dataclass(frozen=True)
class Study:
    """The training side of an ablation."""

    run: RunConfig
    budget: StudyBudget
    session: Session = Session(resumes=True)

    def run_at(self, place: ReferencePlace) -> RunConfig:
        """The run with a folder of its own for a place of the reference."""
        run, budget = self.run, self.budget
        check_counts(budget, "steps", "teacher_steps", "pairs", "ode_steps")
        start = f"teacher-{budget.teacher_steps}-pairs-{budget.pairs}-ode-{budget.ode_steps}"

        def of_steps(stage: N, steps: int) -> N:
            return replace(stage, optimiser=replace(stage.optimiser, steps=steps))

        return replace(
            run,
            work_dir=str(run.path(f"ablation/{place}-{start}")),
            latents_dir=str(run.path(run.latents_dir).absolute()),
            reference=place,
            dataset=replace(run.dataset, checkpoint=budget.checkpoint),
            weights=DistillationWeights(teacher_start=CHECKPOINT, exported=DMD_RESULT),
            teacher=of_steps(run.teacher, budget.teacher_steps),
            ode_pairs=replace(run.ode_pairs, num_pairs=budget.pairs),
            ode=of_steps(run.ode, budget.ode_steps),
        )

    def prepare(self, place: ReferencePlace) -> RunConfig:
        """Train what all variants of a place share, unless it is there, and return its run."""
        run = self.run_at(place)
        if not run.path(TEACHER_RESULT).exists():
            teacher(run, self.session)
        if not run.path(ODE_RESULT).exists():
            ode_pairs(run, self.session)
            ode(run, self.session)
        return run

    def train(self, place: ReferencePlace, name: str, ablation: Ablation, seed: int) -> Path:
        """Weights of a variant, trained unless they are there."""
        run, steps = self.prepare(place), self.budget.steps
        path = run.path(f"variants/{name}-steps-{steps}-seed-{seed}/generator.safetensors")
        if not path.exists():
            config = replace(run.dmd, ablation=ablation, steps=steps, seed=seed)
            distil(replace(run, dmd=config), self.session, path)
        return path

    def export(
        self, place: ReferencePlace, weights: Path, sampling: Ablation, out_dir: Path
    ) -> Path:
        """A checkpoint directory of a variant as it is to be sampled."""
        run = self.run_at(place)
        profile = sampling.profile(student_profile(read_geometry(run).sampler))
        export_around(run, weights, profile, out_dir)
        return out_dir
