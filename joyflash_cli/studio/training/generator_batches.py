"""What the generator learns from: random clips laid out as the sampler's own windows."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.conditioning.frames import assemble_image_channels
from joyflash_cli.model.config import TINY, TransformerConfig
from joyflash_cli.sampler.psb import noise_levels
from joyflash_cli.sampler.settings import TINY as TINY_SAMPLER
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.studio.training.latents import LatentClips
from joyflash_cli.studio.training.layouts import Layout, clip_layout, rolling_layout
from joyflash_cli.studio.training.trainer import OptimiserConfig
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
        film_share: Share of films of people, where there are such; ``None`` is by their number.
        lip_weight: Weight of the lip loss of ``latent_reader``; 0 trains without it.
        seed: Of data order and noise.
    """

    transformer: TransformerConfig = TINY
    sampler: SamplerSettings = TINY_SAMPLER
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
    film_share: float | None = None
    lip_weight: float = 0.3
    seed: int = 0


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
        mouths: ``(B, T, 4, M)``, NaN or ``None`` where unknown.
    """

    clean: Tensor
    sigmas: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    token_weights: Tensor
    clip_weights: Tensor
    layout: Layout
    token_subset: Tensor | None
    mouths: Tensor | None = None


def make_layout(
    kind: StepKind, config: GeneratorTrainingConfig, rng: np.random.Generator, num_latents: int
) -> tuple[Layout, bool]:
    """A random layout of a kind, and whether it needs clips that start at their reference."""
    profile = config.sampler
    if kind.layout == "rolling":
        layout = rolling_layout(
            rng,
            profile,
            num_blocks=(num_latents - profile.first_block_frame) // profile.block_frames,
            mci_noise=config.mci_noise,
        )
        return layout, True
    if rng.random() < 0.2:
        return clip_layout(0, kind.num_frames), True
    start = int(rng.integers(1, num_latents - kind.num_frames + 1))
    return clip_layout(start, kind.num_frames), False


def draw_kind(config: GeneratorTrainingConfig, step: int, rng: np.random.Generator) -> StepKind:
    """The kind of a training step, by the shares of its half of the training."""
    is_early = step < config.optimiser.steps / 2
    shares = np.array([k.share_first if is_early else k.share_last for k in config.steps])
    return config.steps[int(rng.choice(len(shares), p=shares / shares.sum()))]


def draw_sigma(config: GeneratorTrainingConfig, rng: np.random.Generator) -> float:
    """A noise level of a clip layout: one of the main steps', or any, shifted to high noise."""
    profile = config.sampler
    if rng.random() < config.on_level_share:
        return noise_levels(profile)[2 * int(rng.integers(len(profile.main_steps)))].sigma
    share = rng.uniform()
    return max(profile.shift * share / (1 + (profile.shift - 1) * share), 0.02)


def choose_clips(
    clips: LatentClips, pool: np.ndarray, count: int, film_share: float | None,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Indices of random clips of a pool, of which a share are films."""
    films = clips.is_film.numpy()[pool]
    if film_share is None or not films.any() or films.all():
        return rng.choice(pool, count)
    weights = np.where(films, film_share / films.sum(), (1 - film_share) / (~films).sum())
    return rng.choice(pool, count, p=weights)


def read_batch(
    clips: LatentClips, kind: StepKind, config: GeneratorTrainingConfig, rng: np.random.Generator
) -> Batch:
    """Random clips laid out as the kind asks."""
    layout, from_start = make_layout(kind, config, rng, clips.latents.shape[1])
    pool = np.nonzero(clips.is_start.numpy())[0] if from_start else np.arange(len(clips))
    chosen = torch.from_numpy(choose_clips(clips, pool, kind.batch, config.film_share, rng))
    frames = layout.frames
    clean = clips.latents[chosen][:, frames].float()
    image = assemble_image_channels(
        clips.references[chosen].float(), 0, clips.latents.shape[1], convention="avatar"
    )
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
        conditioning=Conditioning(image=image[:, frames], audio=audio * heard[:, None, None, None]),
        token_weights=weights / weights.mean(1, keepdim=True),
        clip_weights=clips.clip_weights[chosen],
        layout=layout,
        token_subset=subset,
        mouths=None if clips.mouths is None else clips.mouths[chosen][:, frames],
    )


def _choose_tokens(weights: Tensor, num_tokens: int, rng: np.random.Generator) -> Tensor:
    """The heaviest tokens (the mouth) and random others, half and half, sorted."""
    order = weights.argsort(descending=True).numpy()
    num_kept = num_tokens // 2
    others = rng.choice(order[num_kept:], num_tokens - num_kept, replace=False)
    return torch.from_numpy(np.sort(np.concatenate([order[:num_kept], others])))
