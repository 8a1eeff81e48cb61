"""Distribution matching distillation of the streaming generator (paper §3.1, §3.3, §4.1).

Three networks: the frozen real score (the teacher, guided), the fake score (the critic, trained on
what the generator makes) and the generator. The generator is rolled out by ``rollout``, its latents
are noised to one level per sample, and the difference of the two scores says where to go.

Everything random in a step comes from the seed and the step number, so a resumed run repeats the
uninterrupted one bit for bit, and data order needs no state of its own.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from joyflash_cli.codec.protocol import Codec
from joyflash_cli.errors import CheckpointError
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.studio.training.batches import draw_rollout_batch
from joyflash_cli.studio.training.latent_reader import LatentReader, spoken_gradient
from joyflash_cli.studio.training.latents import LatentClips
from joyflash_cli.studio.training.loop import run_loop
from joyflash_cli.studio.training.rollout import Ablation, RolloutConfig, draw_plan, roll_out
from joyflash_cli.studio.training.scores import (
    Guidance,
    Segment,
    dmd_gradient,
    dmd_loss,
    draw_noise,
    flow_matching_loss,
    guided_prediction,
    known_kept,
    noised,
    predict,
    score_segment,
)
from joyflash_cli.studio.training.session import ALONE, Session, split_streams
from joyflash_cli.studio.training.sharding import whole
from joyflash_cli.studio.training.tensors import to_device
from joyflash_cli.studio.training.trainer import OptimiserConfig, TrainingRun, check_counts

GENERATOR_ROLE, CRITIC_ROLE = 0, 1


def _rates(learning_rate: float) -> OptimiserConfig:
    # Self-Forcing's values where the paper gives none: weight decay, clipping and average.
    return OptimiserConfig(
        learning_rate=learning_rate, warmup_steps=0, schedule="constant", betas=(0.9, 0.999),
        weight_decay=0.01, clip_norm=10.0, ema_decay=0.99, ema_from_step=200,
    )  # fmt: skip


@dataclass(frozen=True)
class DmdConfig:
    """How the generator is distilled.

    A step updates the critic, and every fifth step the generator as well, in the order of
    Self-Forcing, whose learning rates and batch the paper shares: five critic updates to one of
    the generator. The paper's own words are the reverse ("The fake score model is updated once
    every 5 generator updates", §4.1). A critic that lags behind the generator is what makes DMD
    unstable, so we read the sentence as swapped; to take it literally set ``generator_every = 1``
    and ``critic_every = 5``. Its 10,000 steps are counted here as it counts them, whichever of
    the networks they update.

    Attributes:
        steps: Steps in all.
        generator: Rates of the generator; its number of steps is derived.
        fake_score: Rates of the critic; its number of steps is derived.
        generator_every: Steps from one generator update to the next.
        critic_every: Steps from one critic update to the next.
        batch: Clips per update, over all processes.
        accumulate: Parts that a process splits its clips into, to save memory.
        rollout: Lengths, branches and coins.
        ablation: What the variant leaves out, in training.
        score_frames: Longest clip the scores see: the last frames of a longer rollout.
        reencode_first: Whether such a slice begins with its first picture encoded anew, for score
            networks whose latent 0 is always a single picture (Wan).
        guidance: Of the real score; Self-Forcing's 3.0 is an effective weight of 4.
        lip_share: Size of the lips' gradient beside that of the scores, where mouths are known: a
            reader of latents asks for the voice's own movement, in time and as wide as in truth.
        timestep_limits: Noise levels at which the scores are compared.
        seed: Of everything.
        bf16: Whether the networks run in bfloat16.
        log_every: Steps between two lines of the log.
    """

    steps: int = 10_000
    generator: OptimiserConfig = field(default_factory=lambda: _rates(2e-6))
    fake_score: OptimiserConfig = field(default_factory=lambda: _rates(4e-7))
    generator_every: int = 5
    critic_every: int = 1
    batch: int = 1
    accumulate: int = 1
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    ablation: Ablation = field(default_factory=Ablation)
    score_frames: int = 21
    reencode_first: bool = False
    guidance: Guidance = field(default_factory=lambda: Guidance(4.0, 4.0))
    lip_share: float = 0.0
    timestep_limits: tuple[float, float] = (20.0, 980.0)
    seed: int = 0
    bf16: bool = True
    log_every: int = 20

    def __post_init__(self) -> None:
        """Refuse intervals that never come."""
        check_counts(self, "steps", "generator_every", "critic_every", "batch", "score_frames")


def student_profile(profile: SamplerSettings) -> SamplerSettings:
    """The profile of a distilled generator: the real score's guidance is in its weights."""
    return replace(profile, audio_guidance=1.0, audio_free_weight=1.0)


def weights_digest(module: nn.Module) -> str:
    """Fingerprint of all weights; every process that holds a part of them has to call it."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        numbers = whole(value).detach().cpu().contiguous().flatten()
        digest.update(numbers.view(torch.uint8).numpy().data)
    return digest.hexdigest()


class DmdTraining:
    """The state of a distillation: two trained networks, one frozen, and files.

    The generator is the causal student from the ODE initialisation. Both scores are bidirectional;
    the fake score has the generator's size, the real score is sharded already where there are
    several processes. The ``codec`` is for ``reencode_first``, the ``reader`` of mouths for
    ``lip_share``.
    """

    def __init__(
        self,
        config: DmdConfig,
        *,
        generator: CausalTransformer,
        fake_score: CausalTransformer,
        real_score: CausalTransformer,
        clips: LatentClips,
        profile: SamplerSettings,
        out_dir: Path,
        session: Session = ALONE,
        codec: Codec | None = None,
        reader: LatentReader | None = None,
    ) -> None:
        self.config = config
        self.profile = config.ablation.profile(student_profile(profile))
        self.rollout = config.ablation.rollout(config.rollout)
        self.clips = clips
        self.codec = codec
        self.reader = reader if config.lip_share else None
        self.real_score = real_score.eval().requires_grad_(False)
        self.real_digest = weights_digest(real_score)

        def trained(
            network: CausalTransformer, rates: OptimiserConfig, every: int
        ) -> TrainingRun[CausalTransformer]:
            rates = replace(rates, steps=math.ceil(config.steps / every))
            return TrainingRun(out_dir, network, rates, seed=config.seed, session=session)

        self.generator = trained(generator, config.generator, config.generator_every)
        self.fake_score = trained(fake_score, config.fake_score, config.critic_every)
        self.device = generator.patch_embedding.weight.device
        self.metrics = self.generator.metrics
        self.parts = split_streams(session.processes.own(config.batch), config.accumulate)
        self.step = 0

    @property
    def averaged(self) -> CausalTransformer:
        """The generator with averaged weights."""
        return self.generator.averaged

    def state(self) -> dict:
        """Everything that ``load_state`` needs to go on bit for bit."""
        return {
            "step": self.step,
            "real_score": self.real_digest,
            "generator": self.generator.state(),
            "fake_score": self.fake_score.state(),
        }

    def load_state(self, state: dict) -> None:
        """Put back what ``state`` gave.

        Raises:
            CheckpointError: If it belongs to another real score.
        """
        if state["real_score"] != self.real_digest:
            raise CheckpointError(
                f"{self.metrics.directory} was trained against another real score",
                hint="restore the teacher's weights, or train without --resume",
            )
        self.generator.load_state(state["generator"])
        self.fake_score.load_state(state["fake_score"])
        self.step = state["step"]

    def take_step(self) -> None:
        """One step: the generator when it is its turn, then the critic when it is its turn."""
        share = 1 / len(self.parts)
        if self.step % self.config.generator_every == 0:
            strength = 0.0
            for streams in self.parts:
                loss, size = self.generator_loss(streams)
                self.generator.backward(loss, share=share)
                strength += share * size
            self.generator.apply(gradient=strength)
        if self.step % self.config.critic_every == 0:
            for streams in self.parts:
                self.fake_score.backward(self.critic_loss(streams), share=share)
            self.fake_score.apply()
        self.step += 1

    def generator_loss(self, streams: Sequence[int]) -> tuple[Tensor, float]:
        """The DMD loss of a rollout with gradients, and the mean size of its gradient.

        ``streams`` are samples of the batch; the loss of a batch is the mean over equal parts.
        """
        segment, counts, mouths, sigmas, noise = self._rolled(GENERATOR_ROLE, streams)
        with torch.no_grad():
            noisy = noised(segment, noise, sigmas)
            with self._autocast():
                fake = predict(self.fake_score.module, segment, noisy, sigmas)
                real = guided_prediction(
                    self.real_score, segment, noisy, sigmas, self.config.guidance
                )
            gradient = dmd_gradient(
                segment.latents, known_kept(segment, fake.clean), known_kept(segment, real.clean)
            )
            if self.reader is not None and mouths is not None:
                gradient = gradient + self._lip_gradient(segment, mouths, gradient)
        return dmd_loss(segment.latents, gradient, counts), float(gradient.abs().mean())

    @torch.enable_grad()
    def _lip_gradient(self, segment: Segment, mouths: Tensor, beside: Tensor) -> Tensor:
        """The lips' gradient, scaled to its share of the scores'."""
        reader, image = self.reader, segment.conditioning.image
        assert reader is not None
        assert image is not None
        references = image[:, -1, : segment.latents.shape[2]]
        patch = self.generator.module.config.patch_size[1:]
        gradient = spoken_gradient(reader, segment.latents, references, mouths, patch)
        size = gradient.square().mean().sqrt().clamp(min=1e-12)
        return gradient * (self.config.lip_share * beside.square().mean().sqrt() / size)

    def critic_loss(self, streams: Sequence[int]) -> Tensor:
        """Flow matching of the fake score on a rollout without gradients."""
        with torch.no_grad():
            segment, _, _, sigmas, noise = self._rolled(CRITIC_ROLE, streams)
            noisy = noised(segment, noise, sigmas)
        with self._autocast():
            flow = predict(self.fake_score.module, segment, noisy, sigmas).flow
        return flow_matching_loss(flow, segment.latents, noise, segment.learnt)

    def _rolled(
        self, role: int, streams: Sequence[int]
    ) -> tuple[Segment, Tensor, Tensor | None, Tensor, Tensor]:
        """A fresh rollout as the scores see it, where it counts, mouths; noise levels and noise."""
        rng = np.random.default_rng([self.config.seed, self.step, role])
        plan = draw_plan(rng, self.profile, self.rollout)
        batch = draw_rollout_batch(
            self.clips, rng, size=self.config.batch, num_blocks=plan.num_blocks,
            profile=self.profile, streams=streams,
        )  # fmt: skip
        batch = to_device(batch, self.device)
        seeds = rng.integers(2**62, size=2)
        with self._autocast():
            stream = batch.stream(
                self.generator.module, self.profile, seed=int(seeds[0]), streams=streams,
                dtype=torch.bfloat16 if self.config.bf16 else None,
            )  # fmt: skip
            latents = roll_out(stream, plan, rng, mci_noise_share=self.rollout.mci_noise_share)
        segment, counts = score_segment(
            latents, batch, self.profile, max_frames=self.config.score_frames, codec=self.codec
        )
        mouths = None if batch.mouths is None else batch.mouths[:, segment.positions]
        sigmas, noise = draw_noise(
            segment, streams, seed=int(seeds[1]), batch=self.config.batch,
            shift=self.profile.shift, limits=self.config.timestep_limits,
        )  # fmt: skip
        return segment, counts, mouths, sigmas, noise

    def _autocast(self) -> torch.autocast:
        return self.generator.autocast(bf16=self.config.bf16)

    def log(self, **figures: float | str) -> dict:
        """Write the mean figures since the last call and return them."""
        line: dict = {"step": self.step}
        for name, run in (("generator", self.generator), ("fake_score", self.fake_score)):
            line |= {f"{name}_{figure}": value for figure, value in run.take_means().items()}
        return self.metrics.write(line | figures)


def train_dmd(training: DmdTraining) -> DmdTraining:
    """Run the distillation to its end; the averaged generator is the result.

    Raises:
        TrainingStopped: When the session asked to stop; the state is saved.
    """
    config = training.config
    run_loop(training, training.take_step, steps=config.steps, log_every=config.log_every)
    return training
