"""The variants of the ablation: trained from one start at one small budget, then exported.

Start, teacher, ODE pairs and ODE initialisation are shared by all variants of a place of the
reference; only the distillation differs. Everything that is on disk already is used again, so an
interrupted study goes on where it was.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from joyflash_cli.studio.training.distillation_stages import (
    ode,
    ode_pairs,
    save_weights,
    start_dmd,
    teacher,
)
from joyflash_cli.studio.training.dmd import student_profile, train_dmd
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
from joyflash_cli.studio.training.trainer import check_counts


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

    @property
    def start_name(self) -> str:
        """Of what all variants share: another budget makes another start."""
        return f"teacher-{self.teacher_steps}-pairs-{self.pairs}-ode-{self.ode_steps}"


@dataclass(frozen=True)
class Study:
    """The training side of an ablation."""

    run: RunConfig
    budget: StudyBudget
    session: Session = field(default_factory=Session)

    @property
    def _session(self) -> Session:
        return replace(self.session, resumes=True)

    def run_at(self, place: ReferencePlace) -> RunConfig:
        """The run with a folder of its own for a place of the reference."""
        run, budget = self.run, self.budget
        latents = run.path(run.latents_dir)
        check_counts(budget, "steps", "teacher_steps", "pairs", "ode_steps")
        return replace(
            run,
            work_dir=str(run.path(f"ablation/{place}-{budget.start_name}")),
            latents_dir=str(latents.absolute()),
            reference=place,
            dataset=replace(run.dataset, checkpoint=budget.checkpoint),
            weights=DistillationWeights(teacher_start=CHECKPOINT, exported=DMD_RESULT),
            teacher=replace(
                run.teacher,
                optimiser=replace(run.teacher.optimiser, steps=budget.teacher_steps),
            ),
            ode_pairs=replace(run.ode_pairs, num_pairs=budget.pairs),
            ode=replace(run.ode, optimiser=replace(run.ode.optimiser, steps=budget.ode_steps)),
        )

    def prepare(self, place: ReferencePlace) -> RunConfig:
        """Train what all variants of a place share, unless it is there, and return its run."""
        run = self.run_at(place)
        stages = ((TEACHER_RESULT, (teacher,)), (ODE_RESULT, (ode_pairs, ode)))
        for result, functions in stages:
            if not run.path(result).exists():
                for function in functions:
                    function(run, self._session)
        return run

    def train(self, place: ReferencePlace, name: str, ablation: Ablation, seed: int) -> Path:
        """Weights of a variant, trained unless they are there."""
        run = self.prepare(place)
        folder = run.path(f"variants/{name}-steps-{self.budget.steps}-seed-{seed}")
        path = folder / "generator.safetensors"
        if not path.exists():
            config = replace(run.dmd, ablation=ablation, steps=self.budget.steps, seed=seed)
            training = start_dmd(replace(run, dmd=config), self._session, out_dir=folder)
            train_dmd(training)
            weights = training.generator.averaged_weights()
            save_weights(weights, path, self.session.processes)
        return path

    def export(
        self, place: ReferencePlace, weights: Path, sampling: Ablation, out_dir: Path
    ) -> Path:
        """A checkpoint directory of a variant as it is to be sampled."""
        run = self.run_at(place)
        profile = sampling.profile(student_profile(read_geometry(run).sampler))
        export_around(run, weights, profile, out_dir)
        return out_dir
