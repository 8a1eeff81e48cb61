"""Training of the tiny generator on encoded clips by denoising, in the sampler's own windows.

Teacher-forced denoising: the bidirectional clip layout teaches the score, the rolling layouts of
``layouts`` the causal windows with PSB levels and the condition frame. Distillation (ODE
initialisation, DMD) starts from what this gives.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.model.config import TINY, TransformerConfig
from joyflash_cli.model.embeddings import head_patches
from joyflash_cli.model.transformer import CausalTransformer, TransformerLayer
from joyflash_cli.sampler.profile import TINY as TINY_SAMPLER
from joyflash_cli.sampler.profile import SamplerProfile
from joyflash_cli.sampler.schedule import noise_levels
from joyflash_cli.training.latent_reader import LatentReader, lip_loss
from joyflash_cli.training.latents import LatentClips
from joyflash_cli.training.layouts import Layout, clip_layout, rolling_layout
from joyflash_cli.training.trainer import OptimiserConfig, TrainingRun
from joyflash_cli.types import Conditioning


@dataclass(frozen=True)
class StepKind:
    """One kind of training step.

    Attributes:
        layout: ``clip`` (bidirectional, one noise level) or ``rolling`` (the sampler's windows).
        batch: Clips per step.
        num_frames: Latent frames of a clip layout; a rolling layout's length is the sampler's.
        num_tokens: Tokens of a frame that are computed; 0 is all. The mouth is always kept.
        share_first: Share of the steps in the first half of training.
        share_last: Share in the second half.
    """

    layout: str
    batch: int
    num_frames: int = 3
    num_tokens: int = 28
    share_first: float = 1.0
    share_last: float = 1.0


@dataclass(frozen=True)
class GeneratorTrainingConfig:
    """How the generator is trained.

    Attributes:
        transformer: Sizes; the audio width follows the front end's.
        sampler: The profile whose windows are trained.
        optimiser: Steps and rates.
        steps: Kinds of step and how often each comes.
        audio_dropout: Share of sequences without audio, for guidance.
        on_level_share: Share of clip layouts exactly at a main step's noise level.
        context_noise: Largest sigma mixed into clean context, so that the stream forgives itself.
        mci_noise: Share of noised condition frames (0.7 in the paper).
        lip_weight: Weight of the lip loss of ``latent_reader``; 0 trains without it.
        seed: Of data order and noise.
    """

    transformer: TransformerConfig = TINY
    sampler: SamplerProfile = TINY_SAMPLER
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(steps=5600, learning_rate=1.2e-3, ema_decay=0.9985)
    )
    steps: tuple[StepKind, ...] = (
        StepKind("clip", batch=24, num_frames=3, num_tokens=28, share_first=0.45, share_last=0.2),
        StepKind("clip", batch=6, num_frames=6, num_tokens=0, share_first=0.2, share_last=0.15),
        StepKind("rolling", batch=4, num_tokens=28, share_first=0.25, share_last=0.35),
        StepKind("rolling", batch=2, num_tokens=0, share_first=0.1, share_last=0.3),
    )
    audio_dropout: float = 0.08
    on_level_share: float = 0.35
    context_noise: float = 0.08
    mci_noise: float = 0.7
    lip_weight: float = 0.3
    seed: int = 0


def output_scale(clips: LatentClips, patch: tuple[int, int]) -> Tensor:
    """Root mean square of every number of a token, ``(patch * C,)``, in the head's order."""
    sample = clips.latents[:: max(1, len(clips) // 200)].float()
    return head_patches(sample, patch).flatten(0, -2).square().mean(0).sqrt()


def build_generator(config: GeneratorTrainingConfig, clips: LatentClips) -> CausalTransformer:
    """A fresh transformer that predicts a copy of the reference."""
    model = CausalTransformer(config.transformer)
    model.initialise(torch.Generator().manual_seed(config.seed))
    with torch.no_grad():
        model.output_scale.copy_(output_scale(clips, config.transformer.patch_size[1:]))
        for layer in model.layers:  # open gates: a small model has no depth to lose
            assert isinstance(layer, TransformerLayer)
            layer.modulation[2] += 1
            layer.modulation[5] += 1
    return model


@dataclass(frozen=True)
class Batch:
    """One training batch: clean latents, conditioning, weights and the layout they follow.

    Attributes:
        clean: ``(B, T, C, H, W)``.
        sigmas: Noise level of every latent frame, ``(B, T)``.
        timesteps: What the transformer is told, ``(B, T)``.
        conditioning: Of the same frames.
        token_weights: ``(B, P)``.
        clip_weights: ``(B,)``.
        layout: Frames, mask and which frames are learnt.
        token_subset: Tokens of a frame that are computed, ``None`` for all.
        visemes: ``(B, T, 4, 6)``, ``None`` where unknown.
    """

    clean: Tensor
    sigmas: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    token_weights: Tensor
    clip_weights: Tensor
    layout: Layout
    token_subset: Tensor | None
    visemes: Tensor | None = None


def make_layout(
    kind: StepKind, config: GeneratorTrainingConfig, rng: np.random.Generator, num_latents: int
) -> tuple[Layout, bool]:
    """A random layout of a kind, and whether it needs clips that start at their reference."""
    profile = config.sampler
    if kind.layout == "rolling":
        layout = rolling_layout(
            rng,
            profile,
            num_blocks=num_latents // profile.block_frames,
            mci_noise=config.mci_noise,
        )
        return layout, True
    if rng.random() < 0.2:
        return clip_layout(0, kind.num_frames, 1.0, has_still_first=True), True
    start = int(rng.integers(1, num_latents - kind.num_frames + 1))
    return clip_layout(start, kind.num_frames, 1.0, has_still_first=False), False


def draw_sigma(config: GeneratorTrainingConfig, rng: np.random.Generator) -> float:
    """A noise level of a clip layout: one of the main steps', or any, shifted to high noise."""
    profile = config.sampler
    if rng.random() < config.on_level_share:
        return noise_levels(profile)[2 * int(rng.integers(len(profile.main_steps)))].sigma
    share = rng.uniform()
    return max(profile.shift * share / (1 + (profile.shift - 1) * share), 0.02)


def read_batch(
    clips: LatentClips, kind: StepKind, config: GeneratorTrainingConfig, rng: np.random.Generator
) -> Batch:
    """Random clips laid out as the kind asks."""
    layout, from_start = make_layout(kind, config, rng, clips.latents.shape[1])
    pool = np.nonzero(clips.is_start.numpy())[0] if from_start else np.arange(len(clips))
    chosen = torch.from_numpy(rng.choice(pool, kind.batch))
    frames = layout.frames
    clean = clips.latents[chosen][:, frames].float()
    reference = clips.references[chosen].float()[:, None].expand(-1, len(frames), -1, -1, -1)
    known = torch.ones(kind.batch, len(frames), 1, *clean.shape[-2:])
    if from_start:
        known[:, frames == 0] = 0
    audio = clips.audio[chosen][:, frames].float()
    heard = torch.from_numpy(rng.random(kind.batch) >= config.audio_dropout)
    weights = clips.token_weights[chosen]
    level = torch.ones(kind.batch, 1)
    if kind.layout == "clip":  # a level per clip: less noisy gradients than one per batch
        level = torch.tensor([draw_sigma(config, rng) for _ in range(kind.batch)])[:, None]
    subset = None
    if kind.num_tokens:
        subset = _choose_tokens(clips.token_weights.mean(0), kind.num_tokens, rng)
        weights = weights[:, subset]
    return Batch(
        clean=clean,
        sigmas=layout.sigmas * level.float(),
        timesteps=layout.timesteps * level.float(),
        conditioning=Conditioning(
            image=torch.cat([reference, known], 2), audio=audio * heard[:, None, None, None]
        ),
        token_weights=weights / weights.mean(1, keepdim=True),
        clip_weights=clips.clip_weights[chosen],
        layout=layout,
        token_subset=subset,
        visemes=None if clips.visemes is None else clips.visemes[chosen][:, frames],
    )


def _choose_tokens(weights: Tensor, num_tokens: int, rng: np.random.Generator) -> Tensor:
    """The heaviest tokens (the mouth) and random others, half and half, sorted."""
    order = weights.argsort(descending=True).numpy()
    num_kept = num_tokens // 2
    others = rng.choice(order[num_kept:], num_tokens - num_kept, replace=False)
    return torch.from_numpy(np.sort(np.concatenate([order[:num_kept], others])))


def denoising_loss(
    model: CausalTransformer,
    batch: Batch,
    *,
    context_noise: float,
    generator: torch.Generator,
    reader: LatentReader | None = None,
    lip_weight: float = 0.0,
) -> tuple[Tensor, dict[str, float]]:
    """Weighted squared error of the clean prediction over sigma, plus the lip loss; the parts."""
    layout, clean = batch.layout, batch.clean
    sigma = batch.sigmas[:, :, None, None, None]
    context = (layout.sigmas == 0) & ~layout.learns & (layout.frames > 0)
    level = torch.rand(sigma.shape, generator=generator) * context_noise
    sigma = torch.where(context[None, :, None, None, None], level, sigma)
    noise = torch.randn(clean.shape, generator=generator)
    noisy = (1 - sigma) * clean + sigma * noise
    patch = model.config.patch_size[1:]
    target = head_patches(clean, patch)
    if batch.token_subset is not None:
        target = target[:, :, batch.token_subset]
    mask = None
    if layout.mask is not None:
        count = target.shape[2]
        mask = layout.mask.repeat_interleave(count, 0).repeat_interleave(count, 1)
    output = model.forward_tokens(
        noisy,
        batch.timesteps,
        batch.conditioning,
        positions=layout.frames,
        mask=mask,
        token_subset=batch.token_subset,
    )
    prediction = output.prediction.float()
    learns = layout.learns
    error = (prediction - target).square().mean(-1)
    error = (error * batch.token_weights[:, None]).mean(-1)
    error = error[:, learns] * batch.clip_weights[:, None]
    scale = batch.sigmas[:, learns].clamp(min=0.1)
    loss = (error / scale).mean()
    figures = {"error": float(error.detach().mean())}
    if reader is not None and lip_weight:
        lips = _lip_loss(reader, prediction[:, learns], batch, patch) * scale
        loss = loss + lip_weight * lips.mean()
        figures["lips"] = float(lips.detach().mean())
    return loss, figures


def _lip_loss(
    reader: LatentReader, prediction: Tensor, batch: Batch, patch: tuple[int, int]
) -> Tensor:
    """``lip_loss`` of the learnt frames; weighed by sigma, as noise leaves the lips open."""
    image = batch.conditioning.image
    assert image is not None
    assert batch.visemes is not None
    reference = head_patches(image[:, batch.layout.learns, : batch.clean.shape[2]], patch)
    tokens = reader.tokens
    if batch.token_subset is not None:
        tokens = torch.searchsorted(batch.token_subset, tokens)
    return lip_loss(
        reader,
        prediction[:, :, tokens],
        reference[:, :, reader.tokens],
        batch.visemes[:, batch.layout.learns],
    )


@torch.no_grad()
def measure_denoising(
    model: CausalTransformer, clips: LatentClips, *, num_clips: int = 16
) -> dict[str, float]:
    """Error relative to the latents' energy at a few noise levels, with right and wrong audio."""
    generator = torch.Generator().manual_seed(1)
    chosen = np.nonzero(clips.is_start.numpy())[0][:num_clips]
    clean = clips.latents[chosen][:, 6:12].float()
    noise = torch.randn(clean.shape, generator=generator)
    reference = clips.references[chosen].float()[:, None].expand(-1, 6, -1, -1, -1)
    image = torch.cat([reference, torch.ones_like(clean[:, :, :1])], 2)
    audio = clips.audio[chosen][:, 6:12].float()
    patch = model.config.patch_size[1:]
    weights = (clips.token_weights[chosen] > 1.5).float()[:, None, :, None]
    energy = (head_patches(clean, patch).square() * weights).sum()
    figures = {}
    for sigma in (1.0, 0.8333, 0.625):
        for name, heard in (("", audio), ("_wrong", audio.roll(1, 0))):
            with torch.autocast("cpu", torch.bfloat16):
                output = model(
                    (1 - sigma) * clean + sigma * noise,
                    torch.full(clean.shape[:2], 1000 * sigma),
                    Conditioning(image=image, audio=heard),
                    positions=torch.arange(6, 12),
                )
            error = (
                head_patches(output.prediction.float() - clean, patch).square() * weights
            ).sum()
            figures[f"mouth_{sigma}{name}"] = float(error / energy)
    return figures


def train_generator(
    config: GeneratorTrainingConfig,
    *,
    clips: LatentClips,
    held_out: LatentClips,
    out_dir: Path,
    resume: bool = False,
    start_from: dict[str, Tensor] | None = None,
    reader: LatentReader | None = None,
    on_log: Callable[[dict], None] | None = None,
    log_every: int = 200,
) -> CausalTransformer:
    """Train, and return the averaged transformer."""
    model = build_generator(config, clips)
    if start_from is not None:
        model.load_state_dict(start_from)
    run = TrainingRun(out_dir, model, config.optimiser, seed=config.seed)
    if resume:
        run.resume()
    first = np.array([kind.share_first for kind in config.steps])
    last = np.array([kind.share_last for kind in config.steps])
    while run.step < config.optimiser.steps:
        rng = np.random.default_rng([config.seed, run.step])
        shares = first if run.step < config.optimiser.steps / 2 else last
        kind = config.steps[int(rng.choice(len(shares), p=shares / shares.sum()))]
        batch = read_batch(clips, kind, config, rng)
        with torch.autocast("cpu", torch.bfloat16):
            loss, figures = denoising_loss(
                model,
                batch,
                context_noise=config.context_noise,
                generator=run.generator,
                reader=reader,
                lip_weight=config.lip_weight,
            )
        run.update(loss, **figures)
        if run.step % log_every == 0 or run.step == config.optimiser.steps:
            line = run.log(**measure_denoising(run.averaged, held_out))
            if on_log is not None:
                on_log(line)
    run.save()
    return run.averaged
