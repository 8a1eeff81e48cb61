"""Distribution matching distillation of the streaming generator (paper §3.1, §3.3, §4.1).

Three networks: the frozen real score (the teacher, guided), the fake score (the critic, trained on
what the generator makes) and the generator. The generator is rolled out by ``rollout``, its latents
are noised to one level per sample, and the difference of the two scores says where to go.

Everything random in a step comes from the seed and the step number, so a resumed run repeats the
uninterrupted one bit for bit, and data order needs no state of its own.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from joyflash_cli.errors import CheckpointError, ConfigError
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.passes import StreamSetup
from joyflash_cli.sampler.profile import SamplerProfile
from joyflash_cli.training.ablation import Ablation
from joyflash_cli.training.batches import RolloutBatch, draw_rollout_batch
from joyflash_cli.training.latents import LatentClips
from joyflash_cli.training.losses import Guidance, dmd_gradient, dmd_loss, flow_matching_loss
from joyflash_cli.training.ode_pairs import given_frames
from joyflash_cli.training.rollout import RolloutConfig, draw_plan, roll_out
from joyflash_cli.training.scores import (
    Segment,
    draw_sigmas,
    guided_prediction,
    known_kept,
    noised,
    predict,
)
from joyflash_cli.training.state import load_tree, save_tree
from joyflash_cli.training.trainer import OptimiserConfig, TrainingRun

GENERATOR_ROLE, CRITIC_ROLE = 0, 1

FirstFrame = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From latents up to and with a frame to that frame as the first of a clip, ``(B, C, H, W)``, and
the image conditioning of a clip that starts there, ``(B, T, C, H, W)``."""


def _rates(learning_rate: float) -> OptimiserConfig:
    # Self-Forcing's values where the paper gives none: weight decay, clipping and average.
    return OptimiserConfig(
        learning_rate=learning_rate, warmup_steps=0, flat_share=1.0, betas=(0.9, 0.999),
        weight_decay=0.01, clip_norm=10.0, ema_decay=0.99,
    )  # fmt: skip


@dataclass(frozen=True)
class DmdConfig:
    """How the generator is distilled.

    The critic is updated in every step and the generator in every fifth, as in Self-Forcing, whose
    learning rates and batch the paper shares. The paper's own words are the reverse ("the fake
    score model is updated once every 5 generator updates"): that is ``generator_every = 1``,
    ``critic_every = 5``.

    Attributes:
        steps: Steps in all.
        generator: Rates of the generator; its number of steps is derived.
        fake_score: Rates of the critic; its number of steps is derived.
        generator_every: Steps from one generator update to the next.
        critic_every: Steps from one critic update to the next.
        batch: Clips per update, over all processes.
        rollout: Lengths, branches and coins.
        ablation: What the variant leaves out, in training.
        score_frames: Longest clip the scores see: the last frames of a longer rollout.
        guidance: Of the real score; Self-Forcing's 3.0 is an effective weight of 4.
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
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    ablation: Ablation = field(default_factory=Ablation)
    score_frames: int = 21
    guidance: Guidance = field(default_factory=lambda: Guidance.added(3.0))
    timestep_limits: tuple[float, float] = (20.0, 980.0)
    seed: int = 0
    bf16: bool = True
    log_every: int = 20

    def __post_init__(self) -> None:
        """Refuse intervals that never come."""
        for name in ("steps", "generator_every", "critic_every", "batch", "score_frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 1 is needed")


def score_segment(
    latents: Tensor,
    batch: RolloutBatch,
    profile: SamplerProfile,
    *,
    max_frames: int,
    first_frame: FirstFrame | None = None,
) -> tuple[Segment, Tensor]:
    """What of a rollout the scores see, and where its gradient counts.

    Of a long rollout they see the end. A score network whose latent 0 is always a single picture
    (Wan) needs ``first_frame``: the slice then begins with the picture encoded anew, and its first
    block gets no gradient (Rolling-Forcing). Without it the slice is taken as it is.

    Returns:
        The segment, and a mask of the shape of its latents.
    """
    if profile.first_frame_rule == "prefix":
        latents = torch.cat([batch.reference_latent[:, None], latents], dim=1)
    total = latents.shape[1]
    start = max(0, total - max_frames)
    conditioning = batch.source.frames(start, total)
    seen, block = latents[:, start:], profile.block_frames
    counts = torch.ones_like(seen, dtype=torch.bool)
    if start and first_frame is not None:
        with torch.no_grad():
            first, image = first_frame(latents[:, : start + 1])
        seen = torch.cat([first[:, None], seen[:, 1:]], dim=1)
        conditioning = conditioning.with_frames(image=image)
        counts[:, :block] = False
    segment = Segment(
        latents=seen,
        conditioning=conditioning,
        positions=torch.arange(start, total, device=seen.device),
        given=given_frames(profile, total - start, start).to(seen.device),
    )
    return segment, counts & segment.learnt


def weights_digest(module: nn.Module) -> str:
    """Fingerprint of all weights."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


class DmdTraining:
    """The state of a distillation: two trained networks, one frozen, and files.

    Args:
        config: How.
        generator: The causal student, from the ODE initialisation.
        fake_score: Bidirectional, of the generator's size (paper: the small teacher).
        real_score: Bidirectional, frozen (paper: the large teacher).
        clips: Pictures and voices.
        profile: The sampler's.
        out_dir: For state and metrics.
        streams: Which samples of the batch this process computes; all by default.
        first_frame: See ``score_segment``.
        save_every_s: A kill loses at most this much.
    """

    def __init__(
        self,
        config: DmdConfig,
        *,
        generator: CausalTransformer,
        fake_score: CausalTransformer,
        real_score: CausalTransformer,
        clips: LatentClips,
        profile: SamplerProfile,
        out_dir: Path,
        streams: Sequence[int] | None = None,
        first_frame: FirstFrame | None = None,
        save_every_s: float = 300.0,
    ) -> None:
        self.config = config
        self.profile = config.ablation.profile(profile)
        self.rollout = config.ablation.rollout(config.rollout)
        self.clips = clips
        self.out_dir = out_dir
        self.streams = tuple(range(config.batch) if streams is None else streams)
        self.first_frame = first_frame
        self.real_score = real_score.eval().requires_grad_(False)
        self.real_digest = weights_digest(real_score)
        self.generator = self._run(generator, config.generator, config.generator_every)
        self.fake_score = self._run(fake_score, config.fake_score, config.critic_every)
        self.device = generator.patch_embedding.weight.device
        self.step = 0
        self.save_every_s = save_every_s
        self._started = self._saved = time.monotonic()

    def _run(self, module: nn.Module, optimiser: OptimiserConfig, every: int) -> TrainingRun:
        updates = math.ceil(self.config.steps / every)
        return TrainingRun(
            self.out_dir, module, replace(optimiser, steps=updates), seed=self.config.seed,
            save_every_s=math.inf,
        )  # fmt: skip

    @property
    def state_path(self) -> Path:
        """File of the resumable state."""
        return self.out_dir / "state.safetensors"

    def save(self) -> None:
        """Write the resumable state: complete or absent."""
        state = {
            "step": self.step,
            "real_score": self.real_digest,
            "generator": self.generator.state(),
            "fake_score": self.fake_score.state(),
        }
        save_tree(self.state_path, state)
        self._saved = time.monotonic()

    def resume(self) -> bool:
        """Go on from the saved state; false when there is none.

        Raises:
            CheckpointError: If the state is damaged or belongs to another real score.
        """
        if not self.state_path.exists():
            return False
        state = load_tree(self.state_path)
        if state["real_score"] != self.real_digest:
            raise CheckpointError(
                f"{self.state_path} was trained against another real score",
                hint="restore the teacher's weights, or train without --resume",
            )
        self.generator.load_state(state["generator"])
        self.fake_score.load_state(state["fake_score"])
        self.step = state["step"]
        return True

    def take_step(self) -> None:
        """One step: the generator when it is its turn, then the critic when it is its turn."""
        if self.step % self.config.generator_every == 0:
            loss, figures = self.generator_loss()
            self.generator.update(loss, **figures)
        if self.step % self.config.critic_every == 0:
            self.fake_score.update(self.critic_loss())
        self.step += 1
        if time.monotonic() - self._saved > self.save_every_s:
            self.save()

    def generator_loss(self) -> tuple[Tensor, dict[str, float]]:
        """The DMD loss of a rollout with gradients, and figures for the log."""
        segment, counts, seed = self._rolled(GENERATOR_ROLE)
        with torch.no_grad():
            sigmas, noise = self._score_noise(segment, seed)
            noisy = noised(segment, noise, sigmas)
            with self._autocast():
                fake = predict(self.fake_score.module, segment, noisy, sigmas)
                real = guided_prediction(
                    self.real_score, segment, noisy, sigmas, self.config.guidance
                )
            gradient = dmd_gradient(
                segment.latents, known_kept(segment, fake.clean), known_kept(segment, real.clean)
            )
        loss = dmd_loss(segment.latents, gradient, counts)
        return loss, {"gradient": float(gradient.abs().mean())}

    def critic_loss(self) -> Tensor:
        """Flow matching of the fake score on a rollout without gradients."""
        with torch.no_grad():
            segment, _, seed = self._rolled(CRITIC_ROLE)
            sigmas, noise = self._score_noise(segment, seed)
            noisy = noised(segment, noise, sigmas)
        with self._autocast():
            flow = predict(self.fake_score.module, segment, noisy, sigmas).flow
        return flow_matching_loss(flow, segment.latents, noise, segment.learnt)

    def _rolled(self, role: int) -> tuple[Segment, Tensor, int]:
        """A fresh rollout as the scores see it, where it counts, and a seed for their noise."""
        rng = np.random.default_rng([self.config.seed, self.step, role])
        plan = draw_plan(rng, self.profile, self.rollout)
        batch = draw_rollout_batch(
            self.clips, rng, size=self.config.batch, num_blocks=plan.num_blocks,
            profile=self.profile,
        ).of(self.streams).to(self.device)  # fmt: skip
        seeds = rng.integers(2**62, size=2)
        setup = StreamSetup.build(
            self.generator.module,
            self.profile,
            source=batch.source,
            noise=SeededNoise(
                int(seeds[0]), batch.latent_shape, streams=self.streams, device=self.device
            ),
            reference_latent=batch.reference_latent,
        )
        with self._autocast():
            latents = roll_out(
                setup, plan, rng, latent_shape=batch.latent_shape, batch_size=len(batch),
                mci_noise_share=self.rollout.mci_noise_share,
            ).latents  # fmt: skip
        segment, counts = score_segment(
            latents, batch, self.profile, max_frames=self.config.score_frames,
            first_frame=self.first_frame,
        )  # fmt: skip
        return segment, counts, int(seeds[1])

    def _score_noise(self, segment: Segment, seed: int) -> tuple[Tensor, Tensor]:
        """Noise level of each sample and noise, the same for a sample on whatever process."""
        sigmas = draw_sigmas(
            self.config.batch, torch.Generator().manual_seed(seed), shift=self.profile.shift,
            limits=self.config.timestep_limits,
        )[list(self.streams)]  # fmt: skip
        shape = segment.latents.shape
        noise = SeededNoise(
            seed, (shape[2], shape[3], shape[4]), streams=self.streams, device=self.device
        )
        return sigmas.to(self.device), noise.initial(0, shape[1])

    def _autocast(self) -> torch.autocast:
        # Passes without gradients come first; their cached casts of the weights have no graph and
        # would be used again by the passes that learn.
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.bf16, cache_enabled=False
        )

    def log(self) -> dict:
        """Append the mean figures since the last call to ``metrics.jsonl`` and return them."""
        line: dict = {"step": self.step, "elapsed_s": round(time.monotonic() - self._started, 1)}
        for name, run in (("generator", self.generator), ("fake_score", self.fake_score)):
            line |= {f"{name}_{figure}": value for figure, value in run.take_means().items()}
        with (self.out_dir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        return line


def train_dmd(
    training: DmdTraining,
    *,
    resume: bool = False,
    on_log: Callable[[dict], None] | None = None,
) -> CausalTransformer:
    """Run the distillation to its end, and return the generator's average."""
    if resume:
        training.resume()
    config = training.config
    while training.step < config.steps:
        training.take_step()
        if training.step % config.log_every == 0 or training.step == config.steps:
            line = training.log()
            if on_log is not None:
                on_log(line)
    training.save()
    return training.generator.averaged
