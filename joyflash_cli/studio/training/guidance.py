"""Guidance distillation: a student says in one pass what guidance by the voice takes two for.

The first stage of Meng et al., "On Distillation of Guided Diffusion Models" (2023), at one fixed
weight and in the sampler's own rolling windows. The student has the generator's weights to begin
with, so that all it has to learn is the difference that guidance makes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.studio.training.dmd import student_profile
from joyflash_cli.studio.training.generator import (
    measure_held_out_lips,
    noised,
    predicted_tokens,
    token_error,
)
from joyflash_cli.studio.training.generator_batches import (
    Batch,
    GeneratorTrainingConfig,
    draw_kind,
    read_batch,
)
from joyflash_cli.studio.training.latent_reader import LatentReader
from joyflash_cli.studio.training.latents import LatentClips
from joyflash_cli.studio.training.loop import train_network
from joyflash_cli.studio.training.session import ALONE, Session
from joyflash_cli.studio.training.trainer import NetworkStage, OptimiserConfig, TrainingRun


@dataclass(frozen=True)
class GuidanceConfig(NetworkStage):
    """How guidance is distilled; what a step shows is the generator's ``steps`` that roll.

    Attributes:
        weight: Guidance by the voice that goes into the weights; 1 is the plain prediction.
    """

    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(steps=600, learning_rate=2e-4, ema_decay=0.99)
    )
    batch: int = 1
    weight: float = 2.0


@torch.no_grad()
def guided_tokens(teacher: CausalTransformer, batch: Batch, noisy: Tensor, weight: float) -> Tensor:
    """What the sampler makes of the teacher's two passes, ``(B, T, P, N)``.

    ``deaf + weight (heard - deaf)``: clean predictions with and without the voice.
    """
    audio = batch.conditioning.audio
    assert audio is not None
    silent = batch.conditioning.with_frames(audio=torch.zeros_like(audio))
    deaf = predicted_tokens(teacher, batch, noisy, silent)
    return deaf + weight * (predicted_tokens(teacher, batch, noisy, batch.conditioning) - deaf)


def train_guidance(
    config: GuidanceConfig,
    batches: GeneratorTrainingConfig,
    *,
    student: CausalTransformer,
    teacher: CausalTransformer,
    clips: LatentClips,
    held_out: LatentClips,
    out_dir: Path,
    reader: LatentReader | None = None,
    session: Session = ALONE,
) -> CausalTransformer:
    """Train the student in place; the averaged student.

    Args:
        config: Steps and weight.
        batches: Of the generator: its rolling windows are what the student sees.
        student: With the teacher's weights.
        teacher: Frozen.
        clips: Encoded.
        held_out: Encoded clips of other people, for the figures of the log.
        out_dir: Of state and log.
        reader: Reads the lips of held-out clips, if they are to be measured.
        session: Of the run.

    Raises:
        TrainingStopped: When the session asked to stop; the state is saved.
    """
    batches = replace(
        batches,
        audio_dropout=0.0,
        steps=tuple(kind for kind in batches.steps if kind.layout == "rolling"),
    )
    run = TrainingRun(out_dir, student, config.optimiser, seed=config.seed, session=session)

    def loss(
        network: CausalTransformer, step: int, streams: Sequence[int]
    ) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([config.seed, step])
        batch = read_batch(clips, draw_kind(batches, step, rng), batches, rng)
        noisy = noised(batch, context_noise=batches.context_noise, generator=run.generator)
        target = guided_tokens(teacher, batch, noisy, config.weight)
        return token_error(
            predicted_tokens(network, batch, noisy, batch.conditioning), target, batch
        )

    def measure(network: CausalTransformer) -> dict[str, float]:
        return measure_held_out_lips(network, held_out, reader, student_profile(batches.sampler))

    return train_network(run, loss, config, measure=measure)
