"""What the generator learns from: random clips laid out as the sampler's own windows.

A rolling layout is one of the sampler's iterations in one masked pass: sink and recent context at
timestep 0, the condition frame (MCI), then the window at the levels of PSB, all at the indices of
the sampler (URCR). A clip layout is the bidirectional teacher's: one noise level for all frames.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.conditioning.frames import assemble_image_channels
from joyflash_cli.model.config import TINY, TransformerConfig
from joyflash_cli.sampler.psb import CLEAN, noise_levels, scheduled_iterations
from joyflash_cli.sampler.settings import TINY as TINY_SAMPLER
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.urcr import PassKind, attended_frames, pass_positions
from joyflash_cli.studio.training.latents import LatentClips
from joyflash_cli.studio.training.trainer import OptimiserConfig
from joyflash_cli.types import Conditioning

WARM_UP_SHARE = 0.25
"""Share of rolling layouts from the time before the first block is clean."""


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
class Layout:
    """Which T latent frames a sequence has, at which noise, and who sees whom.

    Attributes:
        frames: Index of each latent frame in its clip, ``(T,)``.
        positions: Temporal index at which it is seen, ``(T,)``.
        sigmas: Noise level of each, 0..1, ``(T,)``; of a batch ``(B, T)``.
        timesteps: What the transformer is told, 0..1000, likewise.
        learns: Whether the frame's prediction enters the loss, ``(T,)``.
        mask: Frame-level attention mask ``(T, T)``, ``None`` when all see all.
    """

    frames: Tensor
    positions: Tensor
    sigmas: Tensor
    timesteps: Tensor
    learns: Tensor
    mask: Tensor | None


def clip_layout(start: int, num_frames: int) -> Layout:
    """Frames ``start ..`` at noise level 1, to be scaled; frame 0 is given, not learnt."""
    frames = torch.arange(start, start + num_frames)
    given = frames == 0
    timesteps = torch.full((num_frames,), 1000.0)
    return Layout(frames, frames, (~given).float(), timesteps, ~given, None)


def rolling_layout(
    rng: np.random.Generator, profile: SamplerSettings, *, num_blocks: int, mci_noise: float
) -> Layout:
    """A random iteration of the sampler over a clip that starts at its reference.

    Args:
        rng: Source of the choices.
        profile: Of the sampler.
        num_blocks: Blocks of the clip.
        mci_noise: Share of sequences whose condition frame is noised (0.7 in the paper).
    """
    iterations, levels = tuple(scheduled_iterations(num_blocks, profile)), noise_levels(profile)
    is_warm_up = rng.random() < WARM_UP_SHARE
    pool = [i for i in iterations if (min(i.levels) == 0) == is_warm_up] or iterations
    window = pool[int(rng.integers(len(pool)))].levels
    start, block = profile.block_start(min(window)), profile.block_frames
    noise = [levels[before] for before, _ in window.values() for _ in range(block)]
    sink, context = seen_frames(profile, "window", start, num_own=len(noise))
    num_condition = int(profile.mci and min(window) > 0)
    if num_condition:
        is_noised = bool(rng.random() < mci_noise) and profile.mci_noise
        noise.insert(0, noise[0] if is_noised else CLEAN)
    own = range(start - num_condition, start - num_condition + len(noise))
    positions = pass_positions(profile, "window", sink=sink, context=context, own=own, start=start)
    num_cached = len(sink) + len(context)
    noise = [CLEAN] * num_cached + noise
    frames = torch.tensor([*sink, *context, *own])
    sigmas = torch.tensor([level.sigma for level in noise])
    learns = torch.arange(len(frames)) >= num_cached + num_condition
    if profile.first_frame_rule == "replace":  # the reference itself, at its block's timestep
        given = frames == 0
        sigmas, learns = torch.where(given, 0.0, sigmas), learns & ~given
    mask = None
    if num_cached:  # all see all, but clean frames in front see only those up to their own block
        blocks = (frames - profile.first_block_frame).div(block, rounding_mode="floor")
        mask = torch.ones(len(frames), len(frames), dtype=torch.bool)
        mask[:num_cached] = blocks[:num_cached, None] >= blocks
        mask[:num_cached, num_cached:] = False
    return Layout(
        frames=frames,
        positions=torch.tensor([*positions.context, *positions.own]),
        sigmas=sigmas,
        timesteps=torch.tensor([level.timestep for level in noise]),
        learns=learns,
        mask=mask,
    )


def seen_frames(
    profile: SamplerSettings, kind: PassKind, start: int, *, num_own: int
) -> tuple[range, range]:
    """Sink and context frames that a pass from latent frame ``start`` on finds and attends."""
    past = range(start)
    sink, rest = past[: profile.sink_frames], past[profile.sink_frames :]
    num_sink, num_context = attended_frames(
        profile,
        kind,
        num_own=num_own,
        num_sink=len(sink),
        num_context=min(len(rest), profile.context_frames),
    )
    return sink[len(sink) - num_sink :], rest[len(rest) - num_context :]


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Attributes:
        layout: Frames, noise of each clip, mask and which frames are learnt.
        clean: Latents of these frames, ``(B, T, C, H, W)``.
        conditioning: Of the same frames.
        token_weights: ``(B, P)``.
        clip_weights: ``(B,)``.
        token_subset: Tokens of a frame that are computed, ``None`` for all.
        mouths: ``(B, T, 4, M)``, NaN or ``None`` where unknown.
    """

    layout: Layout
    clean: Tensor
    conditioning: Conditioning
    token_weights: Tensor
    clip_weights: Tensor
    token_subset: Tensor | None
    mouths: Tensor | None


def make_layout(
    kind: StepKind, config: GeneratorTrainingConfig, rng: np.random.Generator, num_latents: int
) -> tuple[Layout, bool]:
    """A random layout of a kind, and whether it needs clips that start at their reference."""
    if kind.layout == "rolling":
        profile = config.sampler
        num_blocks = (num_latents - profile.first_block_frame) // profile.block_frames
        rolling = rolling_layout(rng, profile, num_blocks=num_blocks, mci_noise=config.mci_noise)
        return rolling, True
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
    level = level.float()
    return Batch(
        layout=replace(layout, sigmas=layout.sigmas * level, timesteps=layout.timesteps * level),
        clean=clips.latents[chosen][:, frames].float(),
        conditioning=Conditioning(image=image[:, frames], audio=audio * heard[:, None, None, None]),
        token_weights=weights / weights.mean(1, keepdim=True),
        clip_weights=clips.clip_weights[chosen],
        token_subset=subset,
        mouths=None if clips.mouths is None else clips.mouths[chosen][:, frames],
    )


def _choose_tokens(weights: Tensor, num_tokens: int, rng: np.random.Generator) -> Tensor:
    """The heaviest tokens (the mouth) and random others, half and half, sorted."""
    order = weights.argsort(descending=True).numpy()
    num_kept = num_tokens // 2
    others = rng.choice(order[num_kept:], num_tokens - num_kept, replace=False)
    return torch.from_numpy(np.sort(np.concatenate([order[:num_kept], others])))
