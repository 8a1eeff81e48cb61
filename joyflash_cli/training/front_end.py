"""Pre-train the audio front end: sound to viseme tracks, before any picture is involved."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from joyflash_cli.data.face_state import VISEMES
from joyflash_cli.data.speech import SAMPLES_PER_FRAME, Utterance
from joyflash_cli.encoders.front_end import FrontEnd, FrontEndConfig
from joyflash_cli.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrontEndTraining:
    """How long and how hard to train.

    Attributes:
        steps: Optimiser steps.
        batch_size: Crops a step.
        crop_rows: Rows (25 Hz) of a crop.
        learning_rate: Peak of AdamW; warm-up, flat, then linear to zero.
        weight_decay: Of AdamW.
        seed: Of crops, augmentation and weights.
    """

    steps: int = 1200
    batch_size: int = 24
    crop_rows: int = 90
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    seed: int = 0


def pretrain_front_end(
    utterances: Sequence[Utterance],
    training: FrontEndTraining,
    *,
    config: FrontEndConfig | None = None,
    report: Callable[[int, float], None] | None = None,
) -> FrontEnd:
    """Train a new front end on viseme tracks.

    Args:
        utterances: Training speech.
        training: Length and rates.
        config: Sizes of the front end.
        report: Called with step and loss every 50 steps.

    Returns:
        The trained front end in evaluation mode.

    Raises:
        DataError: There is no speech.
    """
    if not utterances:
        raise DataError("no utterance to train on", hint="build the speech file first")
    torch.manual_seed(training.seed)
    rng = np.random.default_rng(training.seed)
    model = FrontEnd(config)
    spread = np.concatenate([u.visemes for u in utterances]).std(0)
    weights = torch.from_numpy(1 / np.maximum(spread, 0.02) ** 2).float()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=training.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=training.weight_decay,
    )
    margin, started = model.context_rows, time.monotonic()
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * _rate_factor(step, training.steps)
        waveform, target = draw_batch(utterances, training, rng)
        mel = augment_mel(model.log_mel(augment_waveform(waveform, rng)), rng)
        estimate = model.visemes(model.features(mel))[:, margin:-margin]
        error = estimate - target[:, margin:-margin]
        loss = (weights * error.square()).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            log.info("step %d loss %.4f %.0f s", step, loss.item(), time.monotonic() - started)
            if report is not None:
                report(step, loss.item())
    return model.eval()


def draw_batch(
    utterances: Sequence[Utterance], training: FrontEndTraining, rng: np.random.Generator
) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B rows visemes"]]:
    """Random crops with their tracks; one pace between 0.9 and 1.1 for the whole batch.

    A pace above 1 plays faster and higher, sound and track alike. Crops may reach over the ends
    of an utterance into silence.
    """
    rows = training.crop_rows
    pace = float(rng.uniform(0.9, 1.1))
    source_rows = int(round(rows * pace))
    waveforms = np.zeros((training.batch_size, source_rows * SAMPLES_PER_FRAME), np.float32)
    tracks = np.zeros((training.batch_size, source_rows, len(VISEMES)), np.float32)
    # Longer utterances are drawn more often: every second of speech counts the same.
    lengths = np.array([u.num_frames for u in utterances], float)
    picked = rng.choice(len(utterances), training.batch_size, p=lengths / lengths.sum())
    for row, index in enumerate(picked):
        utterance = utterances[index]
        start = int(rng.integers(-12, max(utterance.num_frames - source_rows + 12, -11)))
        first, last = max(start, 0), min(start + source_rows, utterance.num_frames)
        samples = utterance.waveform[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME]
        at = (first - start) * SAMPLES_PER_FRAME
        waveforms[row, at : at + len(samples)] = samples
        tracks[row, first - start : last - start] = utterance.visemes[first:last]
    sound = functional.interpolate(
        torch.from_numpy(waveforms)[:, None], size=rows * SAMPLES_PER_FRAME, mode="linear"
    )[:, 0]
    track = functional.interpolate(
        torch.from_numpy(tracks).transpose(1, 2), size=rows, mode="linear"
    ).transpose(1, 2)
    return sound, track


def augment_waveform(
    waveform: Float[Tensor, "B n"], rng: np.random.Generator
) -> Float[Tensor, "B n"]:
    """Rooms, noise and levels: a short reverberation for some, noise for most, gain for all.

    Args:
        waveform: ``(B, n)`` at 16 kHz.
        rng: Source of chance.
    """
    batch, length = waveform.shape
    result = waveform.clone()
    for row in range(batch):
        if rng.random() < 0.25:
            tail = int(16_000 * rng.uniform(0.05, 0.25))
            decay = np.exp(-6 * np.arange(tail) / tail) * rng.normal(0, 1, tail)
            impulse = np.concatenate([[1.0], decay * rng.uniform(0.2, 0.8) / np.sqrt(tail / 8)])
            size = length + tail
            response = torch.fft.rfft(torch.from_numpy(impulse).float(), size)
            result[row] = torch.fft.irfft(torch.fft.rfft(result[row], size) * response, size)[
                :length
            ]
    level = waveform.square().mean(1, keepdim=True).sqrt() + 1e-4
    noise = torch.from_numpy(rng.standard_normal((batch, length), np.float32))
    # Half of the noises are dull: a running sum that forgets, as of rooms and engines.
    dull = noise[:, 3:] + noise[:, 2:-1] + noise[:, 1:-2] + noise[:, :-3]
    is_dull = torch.from_numpy(rng.random(batch) < 0.5)[:, None]
    noise = torch.where(is_dull, functional.pad(dull, (0, 3)) / 2, noise)
    ratio_db = torch.from_numpy(rng.uniform(8, 50, (batch, 1))).float()
    silent = torch.from_numpy((rng.random((batch, 1)) > 0.25).astype(np.float32))
    result = result + silent * noise * level * 10 ** (-ratio_db / 20)
    gain_db = torch.from_numpy(rng.uniform(-12, 12, (batch, 1))).float()
    return (result * 10 ** (gain_db / 20)).clamp(-1, 1)


def augment_mel(
    log_mel: Float[Tensor, "B mels T"], rng: np.random.Generator
) -> Float[Tensor, "B mels T"]:
    """Microphones and sound cards: a smooth random tone curve of some decibels per crop."""
    batch, mels, _ = log_mel.shape
    knots = torch.from_numpy(rng.normal(0, 0.14, (batch, 1, 6))).float()
    curve = functional.interpolate(knots, size=mels, mode="linear", align_corners=True)
    return log_mel + curve.transpose(1, 2)


def viseme_correlations(
    model: FrontEnd, utterances: Sequence[Utterance], *, mismatched: bool = False
) -> dict[str, float]:
    """Mean correlation over utterances between estimated and true viseme tracks.

    Args:
        model: A front end.
        utterances: Held-out speech.
        mismatched: Compare with the next utterance's track instead: what chance gives.

    Returns:
        Correlation by viseme name; a viseme that never moves in an utterance is left out there.

    Raises:
        DataError: There is no speech.
    """
    if not utterances:
        raise DataError("no utterance to evaluate", hint="check the split of the speech file")
    values: dict[str, list[float]] = {name: [] for name in VISEMES}
    tracks = [u.visemes for u in utterances]
    if mismatched:
        tracks = tracks[1:] + tracks[:1]
    for utterance, track in zip(utterances, tracks, strict=True):
        rows = min(utterance.num_frames, len(track))
        features = model.encode(torch.from_numpy(utterance.waveform), utterance.num_frames)
        estimate = features[:rows, -len(VISEMES) :].numpy()
        for channel, name in enumerate(VISEMES):
            if track[:rows, channel].std() > 1e-3 and estimate[:, channel].std() > 1e-6:
                pair = np.corrcoef(estimate[:, channel], track[:rows, channel])
                values[name].append(float(pair[0, 1]))
    return {name: float(np.mean(found)) for name, found in values.items() if found}


def _rate_factor(step: int, steps: int) -> float:
    """Warm-up over 3 %, flat to 40 %, then linear to zero."""
    done = (step + 1) / steps
    return min(1.0, done / 0.03, (1 - done) / 0.6 + 1e-3)
