"""Sync-C and Sync-D of videos: what is measured, and what is said where nothing can be."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from joyflash_cli.measures.clip import Clip, VideoRow
from joyflash_cli.measures.network_weights import weights_path
from joyflash_cli.measures.reader import IdentityNet, MouthReader, Readers
from joyflash_cli.measures.s3fd import S3FD
from joyflash_cli.measures.sync_metric import SyncMetric
from joyflash_cli.measures.syncnet import FEATURES, SyncNet, sync_score
from joyflash_cli.types import AudioClip
from tests.measures.syncnet_reference import random_state
from tests.report.clips import held_out, write_video

KEYS = {"sync_c", "sync_d", "sync_offset_frames"}


class Loudness:
    """A network that is right: bright frames agree with loud sound."""

    def lips(self, frames):
        light = frames.mean((1, 2, 3)).unfold(0, 5, 1).mean(1)
        return light[:, None].expand(-1, FEATURES)

    def sound(self, coefficients):
        # As the log energy of a sound whose amplitude is ``light / 255`` of 8000.
        energy = coefficients[:, 0].mean(1)
        return energy[:, None].expand(-1, FEATURES)


def bright_and_loud(late_frames):
    rng = np.random.default_rng(0)
    energy = np.repeat(rng.uniform(14, 20, 70), 3)
    noise = rng.normal(0, 1, len(energy) * 640)
    amplitude = np.sqrt(np.exp(energy) / 400 / 0.95).repeat(640)
    shown = np.roll(energy, late_frames)
    frames = [np.full((224, 224, 3), round(value * 10), np.uint8) for value in shown]
    return frames, (noise * amplitude / 32768).clip(-1, 1)


@pytest.mark.parametrize("late", [0, 2, -3])
def test_films_that_are_late_have_positive_offsets(late):
    frames, waveform = bright_and_loud(late)

    class Scaled(Loudness):
        def sound(self, coefficients):
            return 10 * super().sound(coefficients)

    score = sync_score(Scaled(), frames, waveform)
    assert score.offset_frames == late
    assert score.confidence > 10


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "other.safetensors"
    save_file(random_state(SyncNet(), 1), path)
    return path


def clip_of(path, **changes):
    torch.manual_seed(0)
    return Clip(
        VideoRow(path.stem, path, **changes), Readers(MouthReader().eval(), IdentityNet().eval())
    )


def film(path, *, num_frames=105, scale=2, sound=True):
    frames, voice = held_out()
    there_and_back = np.concatenate([frames, frames[::-1]])[:num_frames]
    large = there_and_back.repeat(scale, 1).repeat(scale, 2)
    samples = np.concatenate([voice.samples, voice.samples])
    return write_video(path, large, AudioClip(samples, voice.sample_rate_hz) if sound else None)


def test_a_film_is_measured_with_any_weights(tmp_path, weights):
    metric = SyncMetric(weights)
    assert metric.missing() == ""
    found = metric.compute(clip_of(film(tmp_path / "film.mp4")))
    assert set(found.values) == KEYS
    assert not found.reasons
    assert found.values["sync_d"] > 0
    assert found.values["sync_c"] >= 0
    assert -15 <= found.values["sync_offset_frames"] <= 15


def test_s3fd_finds_the_faces_where_its_weights_are(tmp_path, weights, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    clip = clip_of(film(tmp_path / "film.mp4", num_frames=10))
    by_points = SyncMetric(weights)
    before = by_points.settings
    assert "seen for 0.4 s on end" in by_points.compute(clip).reasons["sync_c"]
    blind = S3FD()
    with torch.no_grad():
        for value in blind.parameters():
            value.zero_()
    weights_path("s3fd").parent.mkdir(parents=True)
    save_file(blind.state_dict(), weights_path("s3fd"))
    metric = SyncMetric(weights)
    assert metric.missing() == ""
    assert (before["detector"], metric.settings["detector"]) == ("face points", "S3FD")
    assert metric.settings["syncnet_sha256"] == before["syncnet_sha256"]
    assert metric.compute(clip).reasons["sync_c"] == "no face is made out"


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"num_frames": 80}, "the protocol needs 4 s"),
        ({"scale": 1}, "the protocol needs 100 px"),
        ({"sound": False}, "no sound"),
    ],
)
def test_what_cannot_be_measured_says_why(tmp_path, weights, made, reason):
    found = SyncMetric(weights).compute(clip_of(film(tmp_path / "film.mp4", **made)))
    assert not found.values
    assert set(found.reasons) == KEYS
    assert all(reason in text for text in found.reasons.values())


def test_weights_that_are_not_here_are_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "joyflash weights fetch measures --role syncnet --from" in SyncMetric().missing()
    assert "does not exist" in SyncMetric(tmp_path / "none").missing()
