"""Training of the fine mouth: what the coarse drawing lacks, on clips of twice its size.

The codec itself is frozen. Reconstruction alone would answer every uncertain tooth with a blur; the
critic of the decoder's training judges here as well, at the fine size.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from joyflash_cli.codec.fine_mouth import SCALE, FineMouth, composed, window_of
from joyflash_cli.codec.tiny import TinyCodec
from joyflash_cli.codec.warp import FRAMES_PER_LATENT, Drawing
from joyflash_cli.data.clips import EYES_OPEN, ClipStore
from joyflash_cli.training.codec import to_signed
from joyflash_cli.training.mouth_critic import (
    CriticConfig,
    MouthCritic,
    balanced_adversarial_loss,
    critic_loss,
)
from joyflash_cli.training.session import Session, run_loop
from joyflash_cli.training.trainer import OptimiserConfig, TrainingRun


@dataclass(frozen=True)
class FineMouthConfig:
    """How the fine mouth is trained.

    Attributes:
        optimiser: Steps and rates.
        num_clips: Rendered heads, and people of photographs, at the fine size.
        batch: Clips per step.
        noise: Largest noise on the latents in units of their spread.
        open_share: Share of stretches chosen where lips are wide apart.
        gradient_weight: Weight of the loss on picture gradients.
        critic: The adversary.
        seed: Of batches and noise.
    """

    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(
            steps=1500, learning_rate=1e-3, warmup_steps=50, betas=(0.9, 0.98), flat_share=0.4,
            ema_decay=0.99,
        )
    )  # fmt: skip
    num_clips: int = 100
    batch: int = 4
    noise: float = 0.3
    open_share: float = 0.5
    gradient_weight: float = 1.0
    critic: CriticConfig = field(default_factory=lambda: CriticConfig(share=0.1))
    seed: int = 0


@dataclass(frozen=True)
class FineBatch:
    """Frames ``(B, 4, 3, H, W)`` and open-eyed reference ``(B, 3, H, W)`` in -1..1, fine size."""

    frames: Tensor
    reference: Tensor


def read_fine_batch(
    store: ClipStore, config: FineMouthConfig, rng: np.random.Generator
) -> FineBatch:
    """Random stretches of one latent, re-coloured and mirrored."""
    rows = []
    for _ in range(config.batch):
        index = int(rng.integers(len(store)))
        clip, lids = store.frames(index), store.track("blink", index)
        gap = store.track("lips", index)[:, 0]
        start = int(rng.integers(0, len(clip) - FRAMES_PER_LATENT))
        if rng.random() < config.open_share:
            wide = np.flatnonzero(gap >= np.quantile(gap, 0.8))
            start = int(np.clip(rng.choice(wide) - 1, 0, len(clip) - FRAMES_PER_LATENT))
        reference = int(rng.choice(np.flatnonzero(lids < max(EYES_OPEN, lids.min() + 1e-6))))
        chosen = to_signed(clip[[*range(start, start + FRAMES_PER_LATENT), reference]])
        if rng.random() < 0.5:
            chosen = chosen.flip(-1)
        gain = torch.from_numpy(rng.uniform(0.8, 1.15, 3) * rng.uniform(0.85, 1.1)).float()
        chosen = chosen * gain[:, None, None] + float(rng.uniform(-0.1, 0.1))
        rows.append(chosen.clamp(-1, 1))
    stacked = torch.stack(rows)
    return FineBatch(stacked[:, :FRAMES_PER_LATENT], stacked[:, FRAMES_PER_LATENT])


@torch.no_grad()
def draw_coarse(
    codec: TinyCodec, batch: FineBatch, *, noise: float, generator: torch.Generator
) -> tuple[Drawing, Tensor, Tensor]:
    """The codec's drawing of a batch, with what ``composed`` makes of it."""
    small = functional.avg_pool2d(batch.frames.flatten(0, 1), SCALE).unflatten(0, (-1, 4))
    reference = functional.avg_pool2d(batch.reference, SCALE)
    with torch.autocast("cpu", torch.bfloat16):
        latents = codec.encode_latent(small, reference)
        level = torch.rand(len(latents), 1, 1, 1, generator=generator).square() * noise
        spread = latents.square().mean((0, 2, 3), keepdim=True).sqrt()
        latents = latents + torch.randn(latents.shape, generator=generator) * spread * level
        lids = latents.new_zeros(len(latents), 1, FRAMES_PER_LATENT)
        drawing, _ = codec.draw(latents[:, None], codec.start_decoding(reference), lids)
    drawing = replace(drawing, features=drawing.features.float())
    return drawing, *composed(drawing, batch.reference)


class FineMouthTraining:
    """The fine mouth, its critic and their loss, as ``session.run_loop`` wants them."""

    def __init__(
        self,
        codec: TinyCodec,
        fine: FineMouth,
        config: FineMouthConfig,
        *,
        store: ClipStore,
        held_out: ClipStore,
        out_dir: Path,
        session: Session,
    ) -> None:
        torch.manual_seed(config.seed)
        self.codec = codec.eval().requires_grad_(False)
        self.config, self.store, self.held_out = config, store, held_out
        self.fine = TrainingRun(out_dir, fine, config.optimiser, seed=config.seed, session=session)
        rates = OptimiserConfig(
            steps=config.optimiser.steps,
            learning_rate=config.critic.learning_rate,
            schedule="constant",
            betas=(0.5, 0.9),
            weight_decay=0.0,
        )
        self.critic = TrainingRun(
            out_dir / "critic", MouthCritic(config.critic), rates, seed=config.seed, session=session
        )

    @property
    def step(self) -> int:
        """Steps so far."""
        return self.fine.step

    @property
    def directory(self) -> Path:
        """Of the run."""
        return self.fine.directory

    @property
    def averaged(self) -> FineMouth:
        """The averaged network."""
        return self.fine.averaged

    def save(self) -> None:
        """Write the resumable state."""
        self.fine.save()
        self.critic.save()

    def resume(self) -> bool:
        """Go on from the saved state; false when there is none."""
        return self.critic.resume() and self.fine.resume()

    def log(self, **figures: float | str) -> dict:
        """Write the mean figures since the last call and the held-out ones."""
        return self.fine.log(**self._measure(), **figures)

    @torch.no_grad()
    def _measure(self) -> dict[str, float]:
        """PSNR in dB of held-out mouth windows, without the fine mouth and with it."""
        rng = np.random.default_rng(1)
        generator = torch.Generator().manual_seed(1)
        before, after = [], []
        for _ in range(8):
            batch = read_fine_batch(self.held_out, self.config, rng)
            drawing, base, moved = draw_coarse(self.codec, batch, noise=0.0, generator=generator)
            base, moved, truth = (window_of(x) for x in (base, moved, batch.frames.flatten(1, 2)))
            drawn = self.averaged(window_of(drawing.features), base, moved)
            before.append((base - truth).square().mean())
            after.append((base + drawn - truth).square().mean())
        return {
            name: float(-10 * torch.log10(torch.stack(errors).mean() / 4))
            for name, errors in (("coarse_psnr_db", before), ("fine_psnr_db", after))
        }

    def take_step(self) -> None:
        """One update of the network, and of its critic."""
        config = self.config
        batch = read_fine_batch(self.store, config, np.random.default_rng([config.seed, self.step]))
        drawing, base, moved = draw_coarse(
            self.codec, batch, noise=config.noise, generator=self.fine.generator
        )
        base, moved, truth = (window_of(x) for x in (base, moved, batch.frames.flatten(1, 2)))
        with self.fine.autocast(bf16=True):
            drawn = self.fine.module(window_of(drawing.features), base, moved)
        made = base + drawn
        error = made - truth
        loss = error.abs().mean() + config.gradient_weight * (
            error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        )
        figures = {"pixels": float(error.detach().abs().mean())}
        settings, critic = config.critic, self.critic
        if settings.share:
            views = [x.unflatten(1, (-1, 3)).flatten(0, 1) for x in (truth, made)]
            judged = critic_loss(critic.module, *views)
            critic.backward(judged)
            critic.apply()
            figures["critic"] = float(judged.detach())
            if critic.step > settings.warmup_steps:
                critic.module.requires_grad_(False)
                loss = loss + balanced_adversarial_loss(
                    critic.module, views[1], loss, self.fine.module.to_drawn.weight, settings.share
                )
                critic.module.requires_grad_(True)
        self.fine.backward(loss)
        self.fine.apply(**figures)


def train_fine_mouth(
    codec: TinyCodec,
    fine: FineMouth,
    config: FineMouthConfig,
    *,
    clips_dir: Path,
    held_out_dir: Path,
    out_dir: Path,
    resume: bool = False,
    session: Session | None = None,
    log_every: int = 100,
) -> FineMouth:
    """Train on clips of ``SCALE`` times the codec's size; the averaged network."""
    session = session if session is not None else Session()
    training = FineMouthTraining(
        codec, fine, config, store=ClipStore(clips_dir), held_out=ClipStore(held_out_dir),
        out_dir=out_dir, session=session,
    )  # fmt: skip
    if resume:
        training.resume()
    run_loop(training, steps=config.optimiser.steps, log_every=log_every, session=session)
    return training.averaged
