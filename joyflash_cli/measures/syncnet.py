"""Sync-C and Sync-D: how well lips and sound agree for SyncNet (Chung and Zisserman, 2016).

The network has the published layers under their published names, so that its published weights
fit. Distances, confidence and offset follow the protocol under which papers print them: windows of
5 frames at 25 a second beside 0.2 s of sound, shifts of up to 15 frames either way, the sound's
features filled up with zeros at both ends.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.errors import DataError
from joyflash_cli.measures.mfcc import SAMPLE_RATE_HZ, mfcc

FPS = 25
FACE_PX = 224
WINDOW_FRAMES = 5
MAX_SHIFT = 15
"""Frames by which the sound is moved against the picture, either way."""

FEATURES = 1024
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FPS
_STEPS_PER_FRAME, _WINDOW_STEPS = 4, 20
_BATCH = 16


class _Layer(NamedTuple):
    """A convolution with its normalisation, and what pools it: kernel, stride, padding."""

    channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...] | int = 1
    padding: tuple[int, ...] | int = 0
    pool: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | int] | None = None


_SOUND = (
    _Layer(64, (3, 3), 1, 1, ((1, 1), (1, 1), 0)),
    _Layer(192, (3, 3), 1, 1, ((3, 3), (1, 2), 0)),
    _Layer(384, (3, 3), 1, 1),
    _Layer(256, (3, 3), 1, 1),
    _Layer(256, (3, 3), 1, 1, ((3, 3), (2, 2), 0)),
    _Layer(512, (5, 4)),
)
_LIPS = (
    _Layer(96, (5, 7, 7), (1, 2, 2), 0, ((1, 3, 3), (1, 2, 2), 0)),
    _Layer(256, (1, 5, 5), (1, 2, 2), (0, 1, 1), ((1, 3, 3), (1, 2, 2), (0, 1, 1))),
    _Layer(256, (1, 3, 3), 1, (0, 1, 1)),
    _Layer(256, (1, 3, 3), 1, (0, 1, 1)),
    _Layer(256, (1, 3, 3), 1, (0, 1, 1), ((1, 3, 3), (1, 2, 2), 0)),
    _Layer(512, (1, 6, 6)),
)


class SyncNet(nn.Module):
    """Features of lips and of sound in one space; modules are called as in the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = _tower(1, _SOUND, (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d))
        self.netfcaud = _head()
        self.netcnnlip = _tower(3, _LIPS, (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d))
        self.netfclip = _head()

    def lips(self, frames: Tensor) -> Tensor:
        """Features ``(F - 4, 1024)`` of every window of 5 frames.

        Args:
            frames: ``(F, 3, 224, 224)`` float, blue first, 0..255.
        """
        # Only the first layer looks across time: a run of frames is all of its windows at once.
        seen = self.netcnnlip(frames.transpose(0, 1)[None])
        return self.netfclip(seen[0, :, :, 0, 0].T)

    def sound(self, coefficients: Tensor) -> Tensor:
        """Features ``(B, 1024)`` of windows ``(B, 13, 20)``: 0.2 s each."""
        return self.netfcaud(self.netcnnaud(coefficients[:, None]).flatten(1))


def _tower(channels: int, layers: tuple[_Layer, ...], kinds: tuple) -> nn.Sequential:
    convolution, normalisation, pooling = kinds
    modules: list[nn.Module] = []
    for layer in layers:
        modules += [
            convolution(channels, layer.channels, layer.kernel, layer.stride, layer.padding),
            normalisation(layer.channels),
            nn.ReLU(),
        ]
        if layer.pool is not None:
            modules.append(pooling(*layer.pool))
        channels = layer.channels
    return nn.Sequential(*modules)


def _head() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, FEATURES)
    )


@dataclass(frozen=True)
class SyncScore:
    """How a clip's lips and sound agree.

    Attributes:
        confidence: Sync-C: the median over shifts of the mean distance less its minimum; higher
            is better.
        distance: Sync-D: that minimum; lower is better.
        offset_frames: Frames of 1/25 s by which the picture is late; negative when it is early.
    """

    confidence: float
    distance: float
    offset_frames: int


@torch.inference_mode()
def sync_score(network: SyncNet, faces: Iterable[np.ndarray], waveform: np.ndarray) -> SyncScore:
    """Sync-C and Sync-D of a clip that is cut out already.

    Args:
        network: With trained weights, in evaluation mode.
        faces: Frames ``(224, 224, 3)`` uint8 RGB at 25 a second, as ``sync_crops`` cuts them.
        waveform: ``(samples,)`` at 16 kHz in -1..1 from frame 0.

    Raises:
        DataError: When the clip is too short for one window.
    """
    runs = [network.lips(run) for run in _runs(faces)]
    lips = torch.cat(runs) if runs else torch.zeros(0, FEATURES)
    num_frames = min(len(lips) + WINDOW_FRAMES - 1, len(waveform) // SAMPLES_PER_FRAME)
    # The published protocol leaves the last full window out.
    num_windows = num_frames - WINDOW_FRAMES
    if num_windows < 1:
        raise DataError(
            f"{max(num_frames, 0)} frames with sound are too short for lips to be compared with it"
        )
    sound = _sound_features(network, waveform, num_windows)
    return score_of(shifted_distances(lips[:num_windows], sound).mean(0))


def shifted_distances(lips: Tensor, sound: Tensor) -> Tensor:
    """Distances ``(T, 31)`` of lips ``(T, D)`` to sound ``(T, D)`` that is shifted by -15..15.

    Beyond its ends the sound's features are zero.
    """
    padded = functional.pad(sound, (0, 0, MAX_SHIFT, MAX_SHIFT))
    shifts = range(2 * MAX_SHIFT + 1)
    return torch.stack(
        [functional.pairwise_distance(lips, padded[k : k + len(lips)]) for k in shifts], 1
    )


def score_of(mean_distances: Tensor) -> SyncScore:
    """The score of distances ``(31,)``, one a shift."""
    least, place = mean_distances.min(0)
    confidence = mean_distances.median() - least
    return SyncScore(float(confidence), float(least), MAX_SHIFT - int(place))


def _runs(faces: Iterable[np.ndarray]) -> Iterator[Tensor]:
    """Runs ``(n, 3, 224, 224)`` that share 4 frames, so that every window is in just one."""
    held: list[np.ndarray] = []
    for face in faces:
        held.append(face)
        if len(held) == _BATCH + WINDOW_FRAMES - 1:
            yield _blue_first(held)
            held = held[_BATCH:]
    if len(held) >= WINDOW_FRAMES:
        yield _blue_first(held)


def _blue_first(faces: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(faces)[..., ::-1].copy()).permute(0, 3, 1, 2).float()


@torch.inference_mode()
def _sound_features(network: SyncNet, waveform: np.ndarray, num_windows: int) -> Tensor:
    coefficients = torch.from_numpy(mfcc(waveform)).float().T
    windows = coefficients.unfold(1, _WINDOW_STEPS, _STEPS_PER_FRAME).transpose(0, 1)
    parts = windows[:num_windows].split(8 * _BATCH)
    return torch.cat([network.sound(part) for part in parts])
