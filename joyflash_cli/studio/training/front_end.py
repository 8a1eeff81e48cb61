"""Train the audio front end: sound to viseme tracks, and to the lips of people in films."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.config import from_dict, to_dict
from joyflash_cli.encoders.front_end import FrontEnd, FrontEndConfig
from joyflash_cli.errors import CheckpointError, ConfigError, DataError
from joyflash_cli.studio.clips.clips import MARGIN_FRAMES, ClipStore
from joyflash_cli.studio.heads.face_state import VISEMES
from joyflash_cli.studio.speech.speech import SAMPLES_PER_FRAME, Utterance
from joyflash_cli.studio.training.loop import train_network
from joyflash_cli.studio.training.session import ALONE, Session
from joyflash_cli.studio.training.tensors import write_module
from joyflash_cli.studio.training.trainer import NetworkStage, OptimiserConfig, TrainingRun

NUM_LIPS = 2
"""Opening and width of the lips."""


@dataclass(frozen=True)
class FrontEndTrainingConfig:
    """How long and how hard to train.

    Attributes:
        optimiser: Steps and rates.
        batch: Crops a step.
        crop_rows: Rows (25 Hz) of a crop.
        film_batch: Stretches of films a step, where there are films; every person counts alike, up
            to a dozen clips.
        film_weight: Of their loss.
        log_every: Steps between two measurements of the held-out voices.
        seed: Of crops, augmentation and weights.
    """

    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(
            steps=6000,
            learning_rate=2e-3,
            warmup_steps=40,
            betas=(0.9, 0.98),
            weight_decay=0.05,
            ema_decay=0.995,
        )
    )
    batch: int = 24
    crop_rows: int = 90
    film_batch: int = 0
    film_weight: float = 0.7
    log_every: int = 250
    seed: int = 0


FilmVoices = Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]
"""By person, sound and lips of their films: ``(n,)`` at 16 kHz with ``MARGIN_FRAMES`` before and
after the frames, and ``(F, 2)`` opening and width, standardised within the film: how wide a
person's mouth opens is not in the voice."""


def film_voices(store: ClipStore) -> FilmVoices:
    """The films among some clips, each once."""
    voices: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for index in range(len(store)):
        about = store.about(index)
        if about["kind"] == "film" and not about["mirrored"]:
            lips = store.track("lips", index)[:, :NUM_LIPS]
            lips = (lips - lips.mean(0)) / (lips.std(0) + 1e-4)
            voices.setdefault(about["person"], []).append((store.waveform(index), lips))
    return voices


class FrontEndWithLips(nn.Module):
    """A front end beside a linear reading of lips from its hidden rows, which is not kept."""

    def __init__(self, front_end: FrontEnd) -> None:
        super().__init__()
        self.front_end = front_end
        self.lips = nn.Conv1d(front_end.config.hidden, NUM_LIPS, 7, padding=3)
        nn.init.zeros_(self.lips.weight)
        self.dropout = nn.Dropout(0.2)

    def read_lips(self, hidden: Tensor) -> Tensor:
        """``(B, 2, rows)`` of hidden rows ``(B, rows, hidden)``."""
        return self.lips(self.dropout(hidden.transpose(1, 2)))


def film_loss(
    network: FrontEndWithLips,
    films: FilmVoices,
    config: FrontEndTrainingConfig,
    rng: np.random.Generator,
) -> Tensor:
    """Squared error of lips read from random films, at one pace between 0.92 and 1.08."""
    people = list(films.values())
    shares = np.array([min(len(own), 12) ** 0.7 for own in people])
    drawn = rng.choice(len(people), config.film_batch, p=shares / shares.sum())
    sounds, lips = zip(
        *(people[who][int(rng.integers(len(people[who])))] for who in drawn), strict=True
    )
    margin = MARGIN_FRAMES
    tracks = np.stack([np.pad(track, ((margin, margin), (0, 0)), mode="edge") for track in lips])
    rows = round(tracks.shape[1] / float(rng.uniform(0.92, 1.08)))
    sound = functional.interpolate(
        torch.from_numpy(np.stack(sounds))[:, None], size=rows * SAMPLES_PER_FRAME, mode="linear"
    )[:, 0]
    truth = functional.interpolate(torch.from_numpy(tracks).transpose(1, 2), size=rows)
    inside = math.ceil((margin + 2) * rows / tracks.shape[1])
    error = network.read_lips(heard_rows(network.front_end, sound, rng)) - truth
    return error[:, :, inside:-inside].square().mean()


def train_front_end(
    config: FrontEndTrainingConfig,
    *,
    speech: Sequence[Utterance],
    held_out: Sequence[Utterance],
    out_dir: Path,
    films: FilmVoices | None = None,
    start_from: FrontEnd | None = None,
    sizes: FrontEndConfig | None = None,
    session: Session = ALONE,
) -> FrontEnd:
    """Train a front end on viseme tracks and, where there are films, on lips.

    Raises:
        DataError: There is no speech.
        TrainingStopped: When the session asked to stop; the state is saved.
    """
    if not speech:
        raise DataError("no utterance to train on", hint="build the speech file first")
    torch.manual_seed(config.seed)
    model = FrontEndWithLips(FrontEnd(sizes) if start_from is None else start_from)
    spread = np.concatenate([u.visemes for u in speech]).std(0)
    weights = torch.from_numpy(1 / np.maximum(spread, 0.02) ** 2).float()
    margin = model.front_end.context_rows
    run = TrainingRun(out_dir, model, config.optimiser, seed=config.seed, session=session)

    def loss(network: FrontEndWithLips, step: int, streams: Sequence[int]) -> Tensor:
        front_end = network.front_end
        rng = np.random.default_rng([config.seed, step])
        waveform, target = draw_batch(speech, config, rng)
        hidden = heard_rows(front_end, waveform, rng)
        estimate = front_end.visemes(hidden)[:, margin:-margin]
        error = (weights * (estimate - target[:, margin:-margin]).square()).mean()
        if films and config.film_batch:
            error = error + config.film_weight * film_loss(network, films, config, rng)
        return error

    stage = NetworkStage(batch=config.batch, bf16=False, log_every=config.log_every)
    trained = train_network(
        run, loss, stage,
        measure=lambda n: viseme_correlations(n.front_end, held_out) if held_out else {},
    )  # fmt: skip
    return trained.front_end.eval()


def draw_batch(
    utterances: Sequence[Utterance], config: FrontEndTrainingConfig, rng: np.random.Generator
) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B rows visemes"]]:
    """Random crops with their tracks; one pace between 0.9 and 1.1 for the whole batch.

    A pace above 1 plays faster and higher, sound and track alike. Crops may reach over the ends
    of an utterance into silence.
    """
    rows = config.crop_rows
    pace = float(rng.uniform(0.9, 1.1))
    source_rows = int(round(rows * pace))
    waveforms = np.zeros((config.batch, source_rows * SAMPLES_PER_FRAME), np.float32)
    tracks = np.zeros((config.batch, source_rows, len(VISEMES)), np.float32)
    # Longer utterances are drawn more often: every second of speech counts the same.
    lengths = np.array([u.num_frames for u in utterances], float)
    picked = rng.choice(len(utterances), config.batch, p=lengths / lengths.sum())
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


def heard_rows(front_end: FrontEnd, waveform: Tensor, rng: np.random.Generator) -> Tensor:
    """Hidden rows ``(B, rows, hidden)`` of augmented sound ``(B, n)``."""
    with torch.no_grad():
        mel = augment_mel(front_end.log_mel(augment_waveform(waveform, rng)), rng)
    return front_end.features(mel)


def augment_waveform(
    waveform: Float[Tensor, "B n"], rng: np.random.Generator
) -> Float[Tensor, "B n"]:
    """Rooms, noise and levels: a short reverberation for some, noise for most, gain for all."""
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


def viseme_correlations(model: FrontEnd, utterances: Sequence[Utterance]) -> dict[str, float]:
    """Mean correlation over utterances between estimated and true viseme tracks.

    A viseme that never moves in an utterance is left out there.
    """
    values: dict[str, list[float]] = {name: [] for name in VISEMES}
    for utterance in utterances:
        rows, track = utterance.num_frames, utterance.visemes
        features = model.encode(torch.from_numpy(utterance.waveform), rows)
        estimate = features[:rows, -len(VISEMES) :].numpy()
        for channel, name in enumerate(VISEMES):
            if track[:rows, channel].std() > 1e-3 and estimate[:, channel].std() > 1e-6:
                pair = np.corrcoef(estimate[:, channel], track[:rows, channel])
                values[name].append(float(pair[0, 1]))
    return {name: float(np.mean(found)) for name, found in values.items() if found}


def save_front_end(model: FrontEnd, path: Path) -> None:
    """Write the weights (``.safetensors``) and beside them the sizes (``.json``)."""
    write_module(path, model)
    path.with_suffix(".json").write_text(json.dumps(to_dict(model.config), indent=2) + "\n")


def load_front_end(path: Path) -> FrontEnd:
    """Read a front end, its sizes beside it in a ``.json`` file, in evaluation mode.

    Raises:
        CheckpointError: A file is missing or does not fit.
    """
    try:
        sizes = json.loads(path.with_suffix(".json").read_text())
        model = FrontEnd(from_dict(FrontEndConfig, sizes))
        model.load_state_dict(load_file(path))
    except (OSError, ValueError, RuntimeError, ConfigError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is no audio front end: {error}", hint="train or fetch it again"
        ) from error
    return model.eval()
