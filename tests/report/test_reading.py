"""What is measured on a clip, against what is known of it."""

import numpy as np
import pytest

from joyflash_cli.measures import sync
from joyflash_cli.measures.reader import load_readers
from joyflash_cli.media.outputs.playback import frame_levels, iterate_frames
from joyflash_cli.report.reading import figures_of, read_clip, rgb_to_lab
from joyflash_cli.report.sources import ClipSource
from joyflash_cli.studio.evaluation.pack import load_pack
from joyflash_cli.types import AudioClip
from report.clips import held_out, write_video


@pytest.fixture(scope="module")
def readers():
    return load_readers()


def reading_of(path, readers):
    return read_clip(ClipSource(path.stem, path), readers)


def noise(num_frames, height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (num_frames, height, width, 3)).astype(np.uint8)


def test_colours_in_lab():
    """Published values of the sRGB primaries under D65."""
    colours = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]], float)
    known = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]
    assert rgb_to_lab(colours) == pytest.approx(np.array(known), abs=0.05)


def test_a_head_of_the_embedded_profile_is_read(tmp_path, readers):
    frames, sound = held_out()
    reading = reading_of(write_video(tmp_path / "a.mp4", frames, sound, profile="tiny"), readers)
    (clip,) = [clip for clip in load_pack().clips if clip.name == "clip-00"]
    assert reading.not_measured == {}
    assert sync.correlation(reading.tracks.mouth, clip.visemes[:, 0]) > 0.9
    figures = figures_of(reading)
    assert figures["sound_correlation"] > 0.5
    assert abs(figures["sound_lag_frames"]) <= 2
    assert 0.5 < figures["identity"] <= 1.0
    assert figures["border_flicker"] is not None
    assert len(reading.moments) == 8
    assert reading.moment_s[0] == 0.0
    assert reading.moments[0].shape == (160, 160, 3)
    assert reading.first_crop.shape == (64, 64, 3)


def test_what_the_readers_do_not_know_is_not_measured(tmp_path, readers):
    path = write_video(tmp_path / "wide.mp4", noise(60, 64, 96))
    reading = reading_of(path, readers)
    assert set(reading.not_measured) == {"mouth", "identity", "sound", "flicker"}
    assert "96 x 64" in reading.not_measured["mouth"]
    figures = figures_of(reading)
    missing = ("sound_correlation", "sound_lag_frames", "silence_movement", "identity",
               "border_flicker")  # fmt: skip
    assert [figures[name] for name in missing] == [None] * 5
    assert figures["colour_change"] is not None


@pytest.mark.parametrize(("profile", "reason"), [(None, "no face"), ("wan-14b", "not by wan-14b")])
def test_other_square_videos_are_not_read(tmp_path, readers, profile, reason):
    path = write_video(tmp_path / "a.mp4", noise(5, 64, 64), profile=profile)
    assert reason in reading_of(path, readers).not_measured["mouth"]


def test_drift_is_seen(tmp_path, readers):
    """The last second is bluer and blurred; nothing else changes."""
    still = np.repeat(noise(1, 64, 96), 75, axis=0)
    still[50:] = still[50:].mean((1, 2), keepdims=True).astype(np.uint8)
    still[50:, :, :, 2] += 40
    figures = figures_of(reading_of(write_video(tmp_path / "a.mp4", still), readers))
    assert figures["colour_change"] > 10
    assert figures["sharpness"] < 0.2


def test_short_clips_get_no_correlation(tmp_path, readers):
    frames, sound = held_out()
    path = write_video(tmp_path / "a.mp4", frames[:40], sound, profile="tiny")
    assert figures_of(reading_of(path, readers))["sound_correlation"] is None


def test_a_file_that_is_no_video_is_a_finding(tmp_path, readers):
    path = tmp_path / "a.mp4"
    path.write_text("#EXTM3U\nsecret.mp4\n")
    reading = reading_of(path, readers)
    assert "cannot be read" in reading.problem
    assert reading.tracks is None
    assert set(figures_of(reading).values()) == {None}


def test_frames_and_levels_are_those_that_were_written(tmp_path):
    tone = np.sin(2 * np.pi * 440 * np.arange(48_000) / 24_000).astype(np.float32)
    tone *= 0.5
    tone[:24_000] *= 0.2
    path = write_video(
        tmp_path / "a.mp4", np.full((50, 32, 32, 3), 90, np.uint8), AudioClip(tone[:, None], 24_000)
    )
    parts = list(iterate_frames(path, batch=16))
    assert [len(part) for part in parts] == [16, 16, 16, 2]
    assert np.abs(np.concatenate(parts).astype(int) - 90).max() <= 3
    levels = frame_levels(path, fps=25, num_frames=50)
    assert levels[3:22, 0] == pytest.approx(np.full(19, 0.1), abs=0.03)
    assert levels[28:47, 0] == pytest.approx(np.full(19, 0.5), abs=0.05)
    assert levels[28:47, 1] == pytest.approx(np.full(19, 0.125), abs=0.02)
