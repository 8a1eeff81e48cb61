"""What the decoder learns from: a few latents of random clips, mirrored and re-coloured."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.codec.latent_networks import CELL_PX
from joyflash_cli.codec.warp import FRAMES_PER_LATENT
from joyflash_cli.data.clips import ClipStore
from joyflash_cli.training.codec import box_weights, to_signed
from joyflash_cli.training.mouth_critic import CriticConfig
from joyflash_cli.training.trainer import OptimiserConfig


@dataclass(frozen=True)
class DecoderTrainingConfig:
    """How the decoder is trained.

    Attributes:
        optimiser: Steps and rates.
        batch: Clips per step.
        crop_px: Side of the square around the mouth that is looked at, a multiple of 16; 0 is the
            whole frame. Mouths are what is hard, and small pictures are quick.
        num_latents: Consecutive latents per clip, so that the decoder's memory is trained.
        first_latent_share: Share of clips that begin a stream: latent 0 is the still reference.
        learns_latents: Whether the encoder is trained as well.
        noise: Largest noise on the latents in units of their spread; makes the decoder forgive
            the generator.
        predicted_share: Share of clips whose latents are the generator's predictions, where there
            are such.
        mouth_weight: Loss weight inside the mouth box; ``eyes_weight`` likewise.
        gradient_weight: Weight of the loss on picture gradients.
        motion_weight: Weight of the loss on differences between consecutive frames.
        joint_weight: How many times more such a difference counts between two latents.
        moved_weight: Weight of the moved reference's own error, which teaches the flow.
        coarse_weight: Weight of the coarse frames' own error, which teaches the latents.
        spread_weight: Weight of what keeps the latents' spread at one.
        viseme_weight: Weight of the linear reading of visemes from the mouth's latents, so that a
            small change of the lips is no small change of the latents.
        copy_weight: Reward for copying where drawing gains nothing.
        critic: The adversary that sees mouths.
        seed: Of batches and noise.
    """

    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(
            steps=6000,
            learning_rate=8e-4,
            warmup_steps=100,
            betas=(0.9, 0.98),
            weight_decay=0.01,
            flat_share=0.4,
            ema_decay=0.995,
        )
    )
    batch: int = 4
    crop_px: int = 0
    num_latents: int = 3
    first_latent_share: float = 0.1
    learns_latents: bool = False
    noise: float = 0.25
    predicted_share: float = 0.0
    mouth_weight: float = 8.0
    eyes_weight: float = 3.0
    gradient_weight: float = 0.5
    motion_weight: float = 0.5
    joint_weight: float = 1.0
    moved_weight: float = 0.15
    coarse_weight: float = 0.3
    spread_weight: float = 0.01
    viseme_weight: float = 0.02
    copy_weight: float = 0.002
    critic: CriticConfig = field(default_factory=CriticConfig)
    seed: int = 0


@dataclass(frozen=True)
class DecoderBatch:
    """One batch.

    Attributes:
        frames: ``(B, T, 4, 3, H, W)`` in -1..1.
        reference: ``(B, 3, H, W)``.
        weight: ``(B, 1, 1, 1, H, W)``, mean 1.
        mouths: Centre of each mouth box in pixels, x and y, ``(B, 2)``.
        visemes: Tracks of the same frames, ``(B, T, 4, 6)``.
        predicted: ``(B, T, C, h, w)`` latents the generator predicts for these frames, NaN where
            it was not asked; ``None`` when it never was.
    """

    frames: Tensor
    reference: Tensor
    weight: Tensor
    mouths: Tensor
    visemes: Tensor
    predicted: Tensor | None = None


def read_decoder_batch(
    store: ClipStore, config: DecoderTrainingConfig, rng: np.random.Generator
) -> DecoderBatch:
    """A random batch, mirrored and re-coloured so that the decoder learns to copy anything."""
    frames, references, weights, mouths, visemes = [], [], [], [], []
    span = config.num_latents * FRAMES_PER_LATENT
    for index in rng.integers(0, len(store), config.batch):
        clip = store.frames(index)
        start = int(rng.integers(0, len(clip) - span))
        order = np.arange(span) + start
        reference = int(rng.integers(len(clip)))
        if rng.random() < config.first_latent_share:
            order = np.maximum(np.arange(span) - (FRAMES_PER_LATENT - 1), 0) + start
            reference = start
        taken, still = to_signed(clip[order]), to_signed(clip[reference])
        weight = box_weights(
            store, index, mouth_weight=config.mouth_weight, eyes_weight=config.eyes_weight
        )
        mouth = mouth_centre(store, index)
        if rng.random() < 0.5:
            taken, still, weight = taken.flip(-1), still.flip(-1), weight.flip(-1)
            mouth[0] = taken.shape[-1] - mouth[0]
        if config.crop_px:
            corner = crop_corner(mouth, taken.shape[-1], config.crop_px, rng)
            taken, still, weight = (_cut(x, corner, config.crop_px) for x in (taken, still, weight))
            mouth = mouth - corner
        gain = torch.from_numpy(rng.uniform(0.75, 1.2, 3) * rng.uniform(0.85, 1.1)).float()
        bias = float(rng.uniform(-0.12, 0.12))
        frames.append((taken * gain[:, None, None] + bias).clamp(-1, 1))
        references.append((still * gain[:, None, None] + bias).clamp(-1, 1))
        weights.append(weight)
        mouths.append(mouth)
        visemes.append(torch.from_numpy(np.array(store.visemes(index)[order])))
    stacked = torch.stack(frames).unflatten(1, (config.num_latents, FRAMES_PER_LATENT))
    weight = torch.stack(weights)[:, None, None, None]
    tracks = torch.stack(visemes).unflatten(1, (config.num_latents, FRAMES_PER_LATENT))
    return DecoderBatch(
        stacked, torch.stack(references), weight / weight.mean(), torch.stack(mouths), tracks
    )


def crop_corner(mouth: Tensor, size_px: int, crop_px: int, rng: np.random.Generator) -> Tensor:
    """Upper left corner, x and y, of a square that holds the mouth, on the latents' cells."""
    shifted = mouth + torch.from_numpy(rng.uniform(-8, 8, 2)).float()
    corner = ((shifted - crop_px / 2) / CELL_PX).round() * CELL_PX
    return corner.clamp(0, size_px - crop_px)


def _cut(pictures: Tensor, corner: Tensor, crop_px: int) -> Tensor:
    x, y = (int(number) for number in corner)
    return pictures[..., y : y + crop_px, x : x + crop_px]


def mouth_centre(store: ClipStore, index: int) -> Tensor:
    """Centre of a clip's mouth box in pixels, x and y."""
    x0, y0, x1, y1 = (float(number) for number in store.mouth_box(index))
    return torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2])
