"""Training of the evaluation's readers on rendered frames, harshly augmented.

Generated and codec-reconstructed frames are softer, noisier and less contrasted than rendered
ones, and average neighbouring frames; the augmentation imitates all of that so that the readers
read such frames too. The networks come from outside: this module knows only what they are fed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.studio.clips.clips import ClipStore
from joyflash_cli.types import to_signed

CropFrames = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Frames ``(B, 3, H, W)``, mouth boxes and eye boxes ``(B, 4)`` to a reader's two crops."""

CropFaces = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The same to masked face crops."""

OnStep = Callable[[int, float], object]

JAW_WEIGHT = torch.tensor([3.0, 1.5, 1.5, 1.0, 1.0, 0.3])
"""What the loss cares about: jaw, width and rounding are measured, the tongue is hardly seen."""


@dataclass(frozen=True)
class ReaderTraining:
    """How the readers are trained.

    Attributes:
        steps: Optimizer steps.
        batch: Frames per step.
        learning_rate: Peak of a one-cycle schedule.
        seed: Of data order and augmentation.
        box_jitter_px: Largest shift of the boxes.
        neighbour_share: Share of frames averaged with a near frame, labels too.
    """

    steps: int = 2500
    batch: int = 96
    learning_rate: float = 2e-3
    seed: int = 0
    box_jitter_px: float = 3.0
    neighbour_share: float = 0.4


def spoil(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Crops ``(B, 3, H, W)`` in -1..1 with other light, blur, block coding and noise."""
    count = len(frames)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        uniform = torch.rand(count, *(shape or (1, 1, 1)), generator=generator)
        return low + (high - low) * uniform

    gain = draw(0.8, 1.2) * draw(0.93, 1.07, 3, 1, 1)
    frames = frames * gain + draw(-0.15, 0.15) + draw(-0.06, 0.06, 3, 1, 1)
    frames = torch.lerp(frames, _blurred(frames, generator), draw(0.0, 1.0))
    frames = torch.where(draw(0.0, 1.0) < 0.35, _block_coded(frames, generator), frames)
    strength = draw(0.0, 0.08) * (draw(0.0, 1.0) < 0.6)
    noise = torch.randn(frames.shape, generator=generator)
    return (frames + strength * noise).clamp(-1.2, 1.2)


def _blurred(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Resampled to a random lower resolution and back."""
    rows, columns = frames.shape[-2:]
    scale = 0.33 + 0.6 * float(torch.rand((), generator=generator))
    low = (round(rows * scale), round(columns * scale))
    small = functional.interpolate(frames, size=low, mode="bilinear", antialias=True)
    return functional.interpolate(small, size=(rows, columns), mode="bilinear")


def _block_coded(frames: Tensor, generator: torch.Generator) -> Tensor:
    """8 x 8 cosine blocks with coarsely quantised high frequencies, like a picture codec."""
    index = torch.arange(8.0)
    basis = torch.cos((index[None] + 0.5) * index[:, None] * torch.pi / 8) / 2
    basis[0] /= 2**0.5
    step = (0.01 + 0.12 * torch.rand((), generator=generator)) * (1 + index[:, None] + index) / 4
    batch, channels, height, width = frames.shape
    blocks = frames.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coded = (basis @ blocks @ basis.T / step).round() * step
    return (basis.T @ coded @ basis).transpose(3, 4).reshape(frames.shape)


class FrameSampler:
    """Random frames of a clip store with labels and jittered boxes."""

    def __init__(self, store: ClipStore, config: ReaderTraining) -> None:
        self.store = store
        self.config = config
        self.rng = np.random.default_rng(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)

    def draw(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Frames in -1..1, labels ``(B, 7)``, mouth boxes, eye boxes and clip indices."""
        rows = [self._one() for _ in range(self.config.batch)]
        frames, *others = (np.stack(column) for column in zip(*rows, strict=True))
        labels, mouths, eyes, clips = map(torch.from_numpy, others)
        return to_signed(frames), labels, mouths, eyes, clips

    def _one(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
        clip = int(self.rng.integers(len(self.store)))
        frames, blink = self.store.frames(clip), self.store.track("blink", clip)
        labels = np.column_stack([self.store.visemes(clip), blink]).astype(np.float32)
        first = int(self.rng.integers(len(frames)))
        frame, label = frames[first].astype(np.float32), labels[first]
        if self.rng.random() < self.config.neighbour_share:
            other = int(np.clip(first + self.rng.integers(-2, 3), 0, len(frames) - 1))
            weight = float(self.rng.uniform(0.0, 0.5))
            frame = (1 - weight) * frame + weight * frames[other].astype(np.float32)
            label = (1 - weight) * label + weight * labels[other]
        mouth = self._jitter(self.store.mouth_box(clip))
        eyes = self._jitter(self.store.eyes_box(clip))
        if self.rng.random() < 0.5:
            size = frame.shape[1]
            frame = frame[:, ::-1]
            mouth, eyes = _mirror(mouth, size), _mirror(eyes, size)
        return frame, label, mouth, eyes, clip

    def _jitter(self, box: np.ndarray) -> np.ndarray:
        box = np.asarray(box, np.float32)
        centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        centre = centre + self.rng.uniform(-1, 1, 2) * self.config.box_jitter_px
        half = half * self.rng.uniform(0.92, 1.12)
        return np.concatenate([centre - half, centre + half]).astype(np.float32)


def _mirror(box: np.ndarray, size: int) -> np.ndarray:
    return np.array([size - box[2], box[1], size - box[0], box[3]], np.float32)


def train_mouth_reader(
    network: nn.Module,
    store: ClipStore,
    *,
    crop: CropFrames,
    config: ReaderTraining,
    on_step: OnStep = lambda step, loss: None,
) -> None:
    """Train a network that maps two crops to visemes and blink, in place.

    Args:
        network: Takes the crops, gives ``(B, 6)`` and ``(B, 1)``.
        store: Clips of the training split.
        crop: The network's own cropping.
        config: Steps and augmentation.
        on_step: Told step and error of the visemes.
    """

    def loss(sampler: FrameSampler) -> tuple[Tensor, Tensor]:
        frames, labels, mouths, eyes, _ = sampler.draw()
        crops = (spoil(part, sampler.generator) for part in crop(frames, mouths, eyes))
        visemes, blink = network(*crops)
        error = functional.smooth_l1_loss(visemes, labels[:, :6], beta=0.1, reduction="none")
        lids = functional.smooth_l1_loss(blink, labels[:, 6:], beta=0.1)
        return (error * JAW_WEIGHT).mean() + lids, error.mean()

    torch.manual_seed(config.seed)
    _train(network, store, loss, config, on_step)


def train_identity(
    network: nn.Module,
    store: ClipStore,
    *,
    crop: CropFaces,
    embedding_dim: int,
    config: ReaderTraining,
    on_step: OnStep = lambda step, loss: None,
) -> None:
    """Train an embedding by telling the store's people apart, in place.

    A cosine classifier with an additive margin; it is thrown away afterwards.

    Args:
        network: Takes face crops, gives unit vectors ``(B, embedding_dim)``.
        store: Clips of the training split, one person a clip.
        crop: The network's own cropping.
        embedding_dim: Width of the vectors.
        config: Steps and augmentation.
        on_step: Told step and loss.
    """
    torch.manual_seed(config.seed)
    centres = nn.Parameter(torch.randn(len(store), embedding_dim))

    def loss(sampler: FrameSampler) -> tuple[Tensor, Tensor]:
        frames, _, mouths, eyes, clips = sampler.draw()
        faces = spoil(crop(frames, mouths, eyes), sampler.generator)
        cosines = network(faces) @ functional.normalize(centres, dim=-1).T
        margin = 0.2 * functional.one_hot(clips, len(store))
        loss = functional.cross_entropy(16.0 * (cosines - margin), clips)
        return loss, loss

    _train(network, store, loss, config, on_step, beside=[centres])


def _train(
    network: nn.Module,
    store: ClipStore,
    loss: Callable[[FrameSampler], tuple[Tensor, Tensor]],
    config: ReaderTraining,
    on_step: OnStep,
    *,
    beside: Sequence[nn.Parameter] = (),
) -> None:
    """One cycle of AdamW; ``loss`` gives what is minimised and what is told."""
    sampler = FrameSampler(store, config)
    parameters = [*network.parameters(), *beside]
    optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=config.steps, pct_start=0.1
    )
    network.train()
    for step in range(config.steps):
        minimised, told = loss(sampler)
        optimiser.zero_grad(set_to_none=True)
        minimised.backward()
        optimiser.step()
        schedule.step()
        on_step(step, float(told.detach()))
    network.eval()
