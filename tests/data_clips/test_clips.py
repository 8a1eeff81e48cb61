"""Clip shards: resumable, read back as written, splits kept apart."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyflash_cli.data.clips import (
    MARGIN_FRAMES,
    ClipsConfig,
    ClipStore,
    cut_speech,
    identity_index,
    write_shard,
)
from joyflash_cli.data.face_state import is_held_out
from joyflash_cli.data.motion import MotionConfig, sample_motion
from joyflash_cli.errors import DataError


@dataclasses.dataclass
class _Utterance:
    waveform: np.ndarray
    visemes: np.ndarray


def _utterance(num_frames: int) -> _Utterance:
    time = np.arange(num_frames * 640, dtype=np.float32)
    return _Utterance(time, np.repeat(np.arange(num_frames, dtype=np.float32)[:, None], 6, 1))


@given(st.integers(0, 100_000))
def test_identities_of_the_splits_never_meet(index):
    assert not is_held_out(identity_index(index, split="train"))
    assert is_held_out(identity_index(index, split="held-out"))
    assert identity_index(index + 1, split="train") > identity_index(index, split="train")


@given(st.integers(5, 200), st.integers(0, 1000))
def test_sound_and_visemes_are_cut_at_the_same_moment(num_frames, seed):
    config = ClipsConfig(num_frames=20)
    visemes, waveform = cut_speech(
        _utterance(num_frames), np.random.default_rng(seed), config=config
    )
    assert visemes.shape == (20, 6)
    assert len(waveform) == (20 + 2 * MARGIN_FRAMES) * 640
    first_sample = waveform[MARGIN_FRAMES * 640]
    assert first_sample == visemes[0, 0] * 640  # sample 640 f begins frame f


def test_shards_read_back_as_written(tmp_path):
    rng = np.random.default_rng(0)

    def clip(i):
        return {
            "frames": rng.integers(0, 255, (5, 16, 16, 3), dtype=np.uint8),
            "visemes": rng.random((5, 6), np.float32),
            "blink": rng.random(5, np.float32),
            "waveform": rng.random(100, np.float32),
            "mouth_box": np.array([1, 2, 3, 4], np.int32),
            "eyes_box": np.array([1, 2, 3, 4], np.int32),
            "about": {"identity": i},
        }

    clips = [clip(i) for i in range(5)]
    write_shard(tmp_path / "shard-0000", clips[:3])
    write_shard(tmp_path / "shard-0001", clips[3:])
    (tmp_path / "shard-0002.frames.npy").write_bytes(b"half a shard")
    store = ClipStore(tmp_path)
    assert len(store) == 5
    for index, expected in enumerate(clips):
        assert np.array_equal(store.frames(index), expected["frames"])
        assert np.array_equal(store.waveform(index), expected["waveform"])
        assert store.about(index)["identity"] == index


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="joyflash train clips"):
        ClipStore(tmp_path)


@given(st.integers(0, 10_000))
def test_motion_is_bounded_and_scaled(seed):
    still = sample_motion(50, np.random.default_rng(seed), config=MotionConfig(scale=0.0))
    assert np.ptp(still.yaw) == 0
    moving = sample_motion(50, np.random.default_rng(seed), config=MotionConfig(scale=1.0))
    assert np.ptp(moving.yaw) <= 2 * MotionConfig().sway_yaw
    assert moving.blink.min() >= 0
    assert moving.blink.max() <= 1
