"""Sync-C and Sync-D: against another implementation, and what must be true of any network."""

import json

import numpy as np
import pytest
import torch

from joyflash_cli.errors import DataError
from joyflash_cli.measures.mfcc import mfcc
from joyflash_cli.measures.syncnet import (
    FEATURES,
    MAX_SHIFT,
    SyncNet,
    score_of,
    shifted_distances,
    sync_score,
)
from tests.measures.syncnet_reference import (
    RECORDED,
    SEED,
    SHOWN,
    other_numbers,
    random_clip,
    random_state,
)


def random_features(num_windows, seed=0):
    return torch.randn(num_windows, FEATURES, generator=torch.Generator().manual_seed(seed))


def scored(lips, sound):
    return score_of(shifted_distances(lips, sound).mean(0))


def assert_same(numbers, seed):
    frames, sound = random_clip(seed)
    network = SyncNet().eval()
    network.load_state_dict(random_state(network, seed))
    waveform = sound / 32768
    np.testing.assert_allclose(mfcc(waveform)[:20], numbers["coefficients"], atol=1e-9)
    with torch.inference_mode():
        seen = torch.tensor(frames[:10, ..., ::-1].copy()).permute(0, 3, 1, 2).float()
        lips = network.lips(seen)[:, :SHOWN].numpy()
    expected = np.array(numbers["lips"])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(lips / scale, expected[: len(lips)] / scale, atol=1e-5)
    score = sync_score(network, frames, waveform)
    assert score.distance == pytest.approx(numbers["distance"], rel=1e-5)
    assert score.confidence == pytest.approx(numbers["confidence"], abs=1e-5 * numbers["distance"])
    assert score.offset_frames == numbers["offset_frames"]


def test_another_implementation_said_the_same_of_random_weights():
    assert_same(json.loads(RECORDED.read_text()), SEED)


def test_another_implementation_says_the_same_of_other_weights():
    pytest.importorskip("python_speech_features")
    try:
        numbers = other_numbers(3)
    except ImportError as error:
        pytest.skip(str(error))
    assert_same(numbers, 3)


def test_windows_do_not_depend_on_where_runs_are_cut():
    network = SyncNet().eval()
    network.load_state_dict(random_state(network, 5))
    frames, sound = random_clip(5, 24)  # one whole run and a part of another
    with torch.inference_mode():
        seen = torch.tensor(frames[..., ::-1].copy()).permute(0, 3, 1, 2).float()
        whole = network.lips(seen)[:19]
    from joyflash_cli.measures.syncnet import _sound_features

    heard = _sound_features(network, sound / 32768, 19)
    expected, found = scored(whole, heard), sync_score(network, iter(frames), sound / 32768)
    assert found.distance == pytest.approx(expected.distance, rel=1e-5)
    assert found.offset_frames == expected.offset_frames


def test_distances_are_those_of_a_plain_loop():
    lips, sound = random_features(40), random_features(40, 1)
    found = shifted_distances(lips, sound)
    for t in (0, 7, 39):
        for k in range(2 * MAX_SHIFT + 1):
            at = t + k - MAX_SHIFT
            heard = sound[at] if 0 <= at < 40 else torch.zeros(FEATURES)
            expected = ((lips[t] - heard + 1e-6) ** 2).sum().sqrt()
            assert float(found[t, k]) == pytest.approx(float(expected), rel=1e-5)


def test_identical_features_are_at_the_smallest_distance_there_is():
    features = random_features(200)
    score = scored(features, features)
    assert score.distance == pytest.approx(1e-6 * FEATURES**0.5, rel=1e-3)
    assert score.offset_frames == 0
    assert score.confidence > 40


@pytest.mark.parametrize("late", [-15, -2, 2, 15])
def test_a_picture_that_is_late_has_a_positive_offset(late):
    film = random_features(240)
    sound = film[20:220]
    lips = film[20 - late : 220 - late]  # 2 frames are 80 ms
    assert scored(lips, sound).offset_frames == late


def test_a_shift_beyond_fifteen_frames_is_not_found():
    film = random_features(240)
    score = scored(film[:200], film[20:220])
    assert score.confidence < 2
    assert score.distance > 40


def test_random_features_are_as_far_apart_as_chance():
    score = scored(random_features(400), random_features(400, 1))
    assert score.distance == pytest.approx(45.3, abs=1.5)
    unit = torch.nn.functional.normalize
    near = scored(unit(random_features(400)), unit(random_features(400, 1)))
    assert near.distance == pytest.approx(2**0.5, abs=0.06)


def test_a_constant_sound_agrees_with_no_shift_but_for_the_ends():
    lips = random_features(400)
    means = shifted_distances(lips, random_features(1).expand(400, -1)).mean(0)
    without_ends = shifted_distances(lips, random_features(1).expand(400, -1))[15:-15].mean(0)
    assert float(without_ends.max() - without_ends.min()) < 1e-3
    # What zeros beyond the ends do is all that such a clip's confidence is made of.
    assert score_of(means).confidence < 0.5


def test_zeros_beyond_the_ends_give_short_clips_a_false_confidence():
    lips, sound = random_features(400), random_features(1).expand(400, -1)
    short, long = scored(lips[:20], sound[:20]), scored(lips, sound)
    assert short.confidence > 5 * long.confidence


def test_time_in_another_order_is_no_agreement():
    features = random_features(400)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    assert scored(features, features[order]).confidence < 1.5


def test_a_clip_without_one_window_is_refused():
    network = SyncNet().eval()
    frames, sound = random_clip(0, 5)
    with pytest.raises(DataError, match="5 frames with sound are too short"):
        sync_score(network, frames, sound / 32768)
    with pytest.raises(DataError, match="too short"):
        sync_score(network, [], np.zeros(0))
