"""Videos of another frame rate than the model's: which frame stands where, and no drift."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.media.outputs.tracks import Retiming, exact_fps, samples_until
from joyflash_cli.media.outputs.writer import open_muxer
from joyflash_cli.types import AudioClip

from .videos import noise_frames, tone

RATE_HZ = 16_000


def numbered(first: int, count: int) -> np.ndarray:
    return np.arange(first, first + count, dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 2, 2, 3), np.uint8
    )


def levels(frames: np.ndarray) -> list[int]:
    return frames[:, 0, 0, 0].tolist()


def shown(fps, output_fps, num_samples: int, blocks: list[int]) -> list[int]:
    """Of frames that cover so many samples, given block by block, each with its sound."""
    retiming = Retiming(exact_fps(fps), exact_fps(output_fps))
    total = math.ceil(Fraction(num_samples * Fraction(fps), RATE_HZ))
    given_frames, given_samples = 0, 0
    found: list[int] = []
    while given_frames < total:
        count = min(blocks[min(given_frames, len(blocks) - 1)], total - given_frames)
        given_frames += count
        until = samples_until(given_frames, RATE_HZ, Fraction(fps))
        until = num_samples if given_frames == total else min(until, num_samples)
        sound = AudioClip(np.zeros((until - given_samples, 1), np.float32), RATE_HZ)
        found += levels(retiming.due(numbered(given_frames - count, count), sound))
        given_samples = until
    return found


@given(
    fps=st.sampled_from([16, 25, 30]),
    output_fps=st.sampled_from([1, 8, 12.5, 24, 25, 30, 50, 60, 240]),
    num_samples=st.integers(1, 5 * RATE_HZ),
)
def test_every_frame_is_the_newest_that_was_due(fps, output_fps, num_samples):
    found = shown(fps, output_fps, num_samples, [9, 12])
    rate = Fraction(output_fps)
    assert len(found) == math.ceil(num_samples * rate / RATE_HZ)
    assert found == [math.floor(j * fps / rate) for j in range(len(found))]


def test_without_sound_every_given_frame_is_shown():
    retiming = Retiming(Fraction(25), Fraction(50))
    found = [level for first in (0, 3) for level in levels(retiming.due(numbered(first, 3)))]
    assert found == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize(("output_fps", "num_frames"), [(30, 60), (10, 20), (29.97, 60), (60, 120)])
def test_the_file_has_the_rate_and_the_length_of_the_sound(tmp_path, output_fps, num_frames):
    path = tmp_path / "a.mp4"
    audio = tone(1.99, 44_100, 1)
    options = {"size": (64, 48), "fps": output_fps, "given_fps": 25, "audio": audio}
    with open_muxer(path, **options) as muxer:
        muxer.write(noise_frames(50)[:20])
        muxer.write(noise_frames(50)[20:], None)
        # All of the sound was given when the file was opened, so its end cuts nothing here.
        assert muxer.num_frames == num_frames
        info = muxer.finish()
    assert info == probe(path)
    assert info.fps == pytest.approx(output_fps, abs=1e-3)
    assert abs(info.audio_s - info.video_s) <= 1 / output_fps + 1e-6


def test_what_is_left_midway_is_discarded(tmp_path):
    with open_muxer(tmp_path / "a.mp4", size=(64, 48), fps=30, given_fps=25) as muxer:
        muxer.write(noise_frames(5))
    assert list(tmp_path.iterdir()) == []
