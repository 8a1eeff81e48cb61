"""What the decoder learns from: a few latents of random clips, mirrored and re-coloured."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.codec.networks import CELL_PX
from joyflash_cli.studio.clips.clips import EYES_OPEN, ClipStore
from joyflash_cli.studio.training.codec import box_weights
from joyflash_cli.studio.training.mouth_networks import CriticConfig
from joyflash_cli.studio.training.tensors import read_shards
from joyflash_cli.studio.training.trainer import OptimiserConfig
from joyflash_cli.types import FRAMES_PER_LATENT, to_signed


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
        blink_share: Share of clips cut where the eyes blink.
        pair_share: Share of clips that are a closed mouth and a smile of one person, where there
            are such; see ``PairReader``.
        predicted_share: Share of clips whose latents are the generator's predictions, where there
            are such.
        predicted_mouth_weight: Of clips that show predictions; ``mouth_weight`` if ``None``. The
            generator is least sure of lips: held to the truth, the decoder would learn to open
            mouths too little. 0 leaves mouths, and the critic, to the other clips.
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
        restraint_weight: Weight, outside the mouth box, of what is drawn over the moved reference,
            beside the error that it is to lessen. What takes away less error than this share of
            its own size is left out: brows and eyes stay the picture's own, crisp, where the
            latents are not sure of them.
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
    blink_share: float = 0.0
    pair_share: float = 0.0
    predicted_share: float = 0.0
    predicted_mouth_weight: float | None = None
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
    restraint_weight: float = 0.0
    critic: CriticConfig = field(default_factory=CriticConfig)
    seed: int = 0


@dataclass(frozen=True)
class DecoderBatch:
    """One batch.

    Attributes:
        frames: ``(B, T, 4, 3, H, W)`` in -1..1.
        seen: What the encoder is shown of them: the same with open eyes. It need not tell of lids,
            for the decoder is told.
        reference: ``(B, 3, H, W)``.
        weight: ``(B, 1, 1, 1, H, W)``, mean 1.
        outside: 1 outside the mouth box, else 0, of the same shape.
        mouths: Centre of each mouth box in pixels, x and y, ``(B, 2)``.
        visemes: Tracks of the same frames, ``(B, T, 4, 6)``.
        lids: How far the eyelids are closed in them, ``(B, T, 4)``, 0 open .. 1.
        predicted: ``(B, T, C, h, w)`` latents the generator predicts for these frames, NaN where
            it was not asked; ``None`` when it never was.
    """

    frames: Tensor
    seen: Tensor
    reference: Tensor
    weight: Tensor
    outside: Tensor
    mouths: Tensor
    visemes: Tensor
    lids: Tensor
    predicted: Tensor | None = None


BatchReader = Callable[[ClipStore, DecoderTrainingConfig, np.random.Generator], DecoderBatch]


def read_decoder_batch(
    store: ClipStore, config: DecoderTrainingConfig, rng: np.random.Generator
) -> DecoderBatch:
    """A random batch, mirrored and re-coloured so that the decoder learns to copy anything."""
    rows = [_read_clip(store, config, rng) for _ in range(config.batch)]
    batch = DecoderBatch(*(torch.stack(values) for values in zip(*rows, strict=True)))
    return replace(batch, weight=batch.weight / batch.weight.mean())


def _read_clip(
    store: ClipStore, config: DecoderTrainingConfig, rng: np.random.Generator
) -> tuple[Tensor, ...]:
    """One clip of a batch, in the order of ``DecoderBatch``."""
    span = config.num_latents * FRAMES_PER_LATENT
    index = int(rng.integers(len(store)))
    lids = store.track("blink", index)
    start = int(rng.integers(0, len(lids) - span))
    blinking = np.flatnonzero(lids > 0.5)
    if rng.random() < config.blink_share and len(blinking):
        start = int(np.clip(rng.choice(blinking) - rng.integers(span), 0, len(lids) - span - 1))
    order = np.arange(span) + start
    # A picture that is to speak has open eyes; what is under the lids could only be guessed.
    reference = int(rng.choice(np.flatnonzero(lids < max(EYES_OPEN, lids.min() + 1e-6))))
    if rng.random() < config.first_latent_share:
        order = np.maximum(np.arange(span) - (FRAMES_PER_LATENT - 1), 0) + start
        reference = start
    clip = store.frames(index)
    pictures = [
        to_signed(clip[order]),
        to_signed(store.open_eyed(index, order)),
        to_signed(clip[reference]),
        box_weights(store, index, mouth_weight=config.mouth_weight, eyes_weight=config.eyes_weight),
        box_weights(store, index, mouth_weight=0.0, eyes_weight=1.0),
    ]
    mouth = mouth_centre(store, index)
    if rng.random() < 0.5:
        mouth[0] = clip.shape[2] - mouth[0]
        pictures = [picture.flip(-1) for picture in pictures]
    if config.crop_px:
        corner = crop_corner(mouth, clip.shape[2], config.crop_px, rng)
        pictures = [_cut(picture, corner, config.crop_px) for picture in pictures]
        mouth = mouth - corner
    gain = torch.from_numpy(rng.uniform(0.75, 1.2, 3) * rng.uniform(0.85, 1.1)).float()
    bias = float(rng.uniform(-0.12, 0.12))
    frames, seen, still = (
        (picture * gain[:, None, None] + bias).clamp(-1, 1) for picture in pictures[:3]
    )
    weight, outside = (picture[None, None, None] for picture in pictures[3:])
    visemes = torch.from_numpy(store.visemes(index)[order])
    closures = torch.from_numpy(lids[order])
    frames, seen, visemes, closures = (
        values.unflatten(0, (config.num_latents, FRAMES_PER_LATENT))
        for values in (frames, seen, visemes, closures)
    )
    return frames, seen, still, weight, outside, mouth, visemes, closures


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


def _put_clip(
    batch: DecoderBatch,
    row: int,
    store: ClipStore,
    index: int,
    config: DecoderTrainingConfig,
    *,
    frames: Tensor,
    reference: Tensor,
    mouth_weight: float,
) -> None:
    """Show a whole clip in a row of a batch, in place."""
    weight = box_weights(store, index, mouth_weight=mouth_weight, eyes_weight=config.eyes_weight)
    batch.frames[row] = batch.seen[row] = frames
    batch.reference[row] = reference
    batch.weight[row, 0, 0, 0] = weight / weight.mean()
    batch.outside[row, 0, 0, 0] = box_weights(store, index, mouth_weight=0.0, eyes_weight=1.0)
    batch.mouths[row] = mouth_centre(store, index)


class PairReader:
    """Puts a closed mouth and a smile of one person, true teeth, in the place of some clips.

    Args:
        directory: Folder written by ``studio.clips.photo_pairs.build_pairs``.
        read_batch: The other reader.

    Raises:
        DataError: If there are no pairs.
    """

    def __init__(self, directory: Path, read_batch: BatchReader) -> None:
        self._pairs = ClipStore(directory)
        self._read_batch = read_batch

    def __call__(
        self, store: ClipStore, config: DecoderTrainingConfig, rng: np.random.Generator
    ) -> DecoderBatch:
        """A random batch of which ``config.pair_share`` are pairs, as pictures that rest."""
        batch = self._read_batch(store, config, rng)
        for row in np.flatnonzero(rng.random(config.batch) < config.pair_share).tolist():
            index = int(rng.integers(len(self._pairs)))
            closed, smiling = to_signed(self._pairs.frames(index))
            _put_clip(
                batch, row, self._pairs, index, config, frames=smiling, reference=closed,
                mouth_weight=config.mouth_weight,
            )  # fmt: skip
            batch.visemes[row] = torch.nan
            batch.lids[row] = 0
            if batch.predicted is not None:
                batch.predicted[row] = torch.nan
        return batch


class PredictionReader:
    """Puts clips that the generator predicted in the place of some clips.

    Args:
        directory: Folder written by ``predictions.build_predictions``.

    Raises:
        DataError: If it holds none.
    """

    def __init__(self, directory: Path) -> None:
        joined = read_shards(directory / "predictions", "predictions.", stage="predictions")
        self._latents = joined["latents"]
        self._clips = joined["clip"].tolist()
        self._references = joined["reference"].tolist()
        self._firsts = joined["first"].tolist()

    def __call__(
        self, store: ClipStore, config: DecoderTrainingConfig, rng: np.random.Generator
    ) -> DecoderBatch:
        """A random batch of which ``config.predicted_share`` are predicted clips."""
        batch = read_decoder_batch(store, config, rng)
        mouth_weight = config.predicted_mouth_weight
        if mouth_weight is None:
            mouth_weight = config.mouth_weight
        latents = self._latents.shape[2:]
        predicted = torch.full((config.batch, config.num_latents, *latents), torch.nan)
        for row in range(config.batch):
            if rng.random() >= config.predicted_share:
                continue
            j, offset = self._widest_of_two(store, config, rng)
            index, rows = self._clips[j], self._rows(j, offset, config)
            reference = store.open_eyed(index, np.array([self._references[j]]))[0]
            _put_clip(
                batch, row, store, index, config, frames=to_signed(store.frames(index)[rows]),
                reference=to_signed(reference), mouth_weight=mouth_weight,
            )  # fmt: skip
            batch.visemes[row] = torch.from_numpy(store.visemes(index)[rows])
            batch.lids[row] = torch.from_numpy(store.track("blink", index)[rows])
            predicted[row] = self._latents[j, offset : offset + config.num_latents].float()
        return batch if predicted.isnan().all() else replace(batch, predicted=predicted)

    def _rows(self, j: int, offset: int, config: DecoderTrainingConfig) -> np.ndarray:
        """Video frames ``(T, 4)`` of a stretch of a predicted clip."""
        first = FRAMES_PER_LATENT * (self._firsts[j] + offset) - 3
        return first + np.arange(config.num_latents * FRAMES_PER_LATENT).reshape(
            -1, FRAMES_PER_LATENT
        )

    def _widest_of_two(
        self, store: ClipStore, config: DecoderTrainingConfig, rng: np.random.Generator
    ) -> tuple[int, int]:
        """A stretch, the one with the wider mouth of two: open mouths are rare and hard."""
        found = []
        for _ in range(2):
            j = int(rng.integers(len(self._clips)))
            offset = int(rng.integers(self._latents.shape[1] - config.num_latents + 1))
            gap = store.lips(self._clips[j])[self._rows(j, offset, config), 0]
            found.append((float(gap.max()), j, offset))
        return max(found)[1:]
