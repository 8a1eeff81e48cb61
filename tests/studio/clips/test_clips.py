"""Clip shards: resumable, read back as written, splits kept apart."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyflash_cli.errors import DataError
from joyflash_cli.studio.clips.clips import (
    MARGIN_FRAMES,
    ClipsConfig,
    ClipStore,
    HeadAssets,
    cut_speech,
    identity_index,
    load_heads,
    render_clip,
    sample_head,
)
from joyflash_cli.studio.clips.motion import MotionConfig, sample_motion
from joyflash_cli.studio.clips.shards import write_shard
from joyflash_cli.studio.heads.face_state import is_held_out


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
    visemes, waveform = cut_speech(
        _utterance(num_frames), np.random.default_rng(seed), num_frames=20, fps=25
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
            "lips": rng.random((5, 3), np.float32),
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
        assert np.array_equal(store.lips(index), expected["lips"])
        assert store.about(index)["identity"] == index


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="joyflash train clips"):
        ClipStore(tmp_path)


@given(st.integers(0, 10_000))
def test_motion_is_bounded_and_scaled(seed):
    still = sample_motion(50, np.random.default_rng(seed), config=MotionConfig(scale=0.0))
    assert np.ptp(still["yaw"]) == 0
    moving = sample_motion(50, np.random.default_rng(seed), config=MotionConfig(scale=1.0))
    assert np.ptp(moving["yaw"]) <= 2 * MotionConfig().sway_yaw
    assert moving["blink"].min() >= 0
    assert moving["blink"].max() <= 1


class _Head:
    """A head that shows how it was asked for."""

    mouth_box = eyes_box = (1, 2, 3, 4)

    def __init__(self, kind, options):
        self.kind, self.options = kind, options
        self.size_px = options["size_px"]

    def render(self, state):
        return np.full((self.size_px, self.size_px, 3), 120, np.uint8)

    def points(self, state):
        """Lips apart by as much as the jaw is open, with eyes ten apart."""
        pair = np.array([[0.0, 0.0], [10.0, 0.0]])
        inner, lid = pair + [[1, 0], [-1, 0]], pair + [0.0, 0.5]
        lip = np.zeros(2)
        lips = [lip, lip + 10 * state.visemes[0]]
        return np.concatenate([pair, inner, pair, lid, pair / 2, lips])


@pytest.fixture
def makers(monkeypatch):
    """Head makers that only note their arguments."""
    from joyflash_cli.studio.heads import drawn, ict, makehuman

    def maker(kind):
        return lambda *args, **options: _Head(kind, options)

    monkeypatch.setattr(drawn, "sample_drawn", maker("drawn"))
    monkeypatch.setattr(ict, "sample_ict", maker("ict"))
    monkeypatch.setattr(makehuman, "sample_makehuman", maker("makehuman"))
    return HeadAssets(makehuman=object(), ict=object())


def _kinds(config, assets, *, photo=False):
    rngs = (np.random.default_rng(seed) for seed in range(400))
    return [sample_head(config, rng, assets=assets, photo=photo)[0] for rng in rngs]


def test_heads_are_mixed_by_their_shares(makers):
    kinds = _kinds(ClipsConfig(drawn_share=0.2, ict_share=0.3, size_px=8), makers)
    assert kinds.count("drawn") / 400 == pytest.approx(0.2, abs=0.06)
    assert kinds.count("ict") / 400 == pytest.approx(0.3, abs=0.07)
    assert kinds.count("makehuman") / 400 == pytest.approx(0.5, abs=0.08)


def test_the_share_of_drawn_heads_means_the_same_with_and_without_ict_heads(makers):
    without = _kinds(ClipsConfig(drawn_share=0.25, size_px=8), makers)
    beside = _kinds(ClipsConfig(drawn_share=0.25, ict_share=0.3, size_px=8), makers)
    assert [k == "drawn" for k in without] == [k == "drawn" for k in beside]
    assert "ict" not in without


def test_photos_are_never_drawn_and_keep_the_other_shares(makers):
    config = ClipsConfig(drawn_share=0.2, ict_share=0.4, size_px=8)
    kinds = _kinds(config, makers, photo=True)
    assert set(kinds) == {"ict", "makehuman"}
    assert kinds.count("ict") / 400 == pytest.approx(0.5, abs=0.08)


def test_photos_get_a_background_of_their_own(makers):
    config = ClipsConfig(drawn_share=0.0, size_px=8)
    plain = sample_head(config, np.random.default_rng(0), assets=makers)[1]
    photo = sample_head(config, np.random.default_rng(0), assets=makers, photo=True)[1]
    assert "surroundings" not in plain.options
    assert photo.options["surroundings"].background.shape == (8, 8, 3)


@dataclasses.dataclass
class _Spoken(_Utterance):
    voice: str = "somebody"
    text: str = "Hello."


def _clip(assets, index, **shares):
    speech = [_Spoken(**vars(_utterance(40)))]
    config = ClipsConfig(num_frames=3, size_px=16, **shares)
    return render_clip(index, config, assets=assets, speech=speech)


def test_a_clip_says_whether_it_looks_like_a_photo(makers):
    clips = [_clip(makers, i, photo_share=0.5) for i in range(20)]
    photos = [clip for clip in clips if clip["about"]["photo"]]
    assert 4 <= len(photos) <= 16
    assert all(clip["about"]["kind"] != "drawn" for clip in photos)
    assert any((clip["frames"] != 120).any() for clip in photos)
    assert all((clip["frames"] == 120).all() for clip in clips if not clip["about"]["photo"])


def test_the_share_of_photos_leaves_the_other_clips_as_they_were(makers):
    for index in range(6):
        mixed, plain = _clip(makers, index, photo_share=0.5), _clip(makers, index)
        if not mixed["about"]["photo"]:
            assert mixed["about"] == plain["about"]
            np.testing.assert_array_equal(mixed["visemes"], plain["visemes"])
            np.testing.assert_array_equal(mixed["waveform"], plain["waveform"])


def test_a_mix_without_ict_heads_needs_no_ict_pack(monkeypatch, tmp_path):
    from joyflash_cli.studio.heads import makehuman_pack

    monkeypatch.setattr(makehuman_pack, "load_makehuman", lambda folder: "pack")
    assert load_heads(ClipsConfig(), tmp_path) == HeadAssets("pack", None)
    with pytest.raises(DataError, match="ict_facekit_mit.npz"):
        load_heads(ClipsConfig(ict_share=0.1), tmp_path)


def test_clips_know_how_far_lips_and_lids_are_open(makers):
    clip = _clip(makers, 0)
    assert clip["lips"].shape == (3, 3)
    assert clip["lips"].dtype == np.float32
    np.testing.assert_allclose(clip["lips"][:, 0], np.hypot(*[clip["visemes"][:, 0]] * 2))
    np.testing.assert_allclose(clip["lips"][:, 1:], np.tile([0.5, 0.5], (3, 1)))
