import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joyflash_cli.studio.heads.face_state import VISEMES
from joyflash_cli.studio.speech.phonemes import CANONICAL, Phoneme, canonical_symbol
from joyflash_cli.studio.speech.visemes import REST_POSE, local_energy, viseme_track

JAW, WIDTH, ROUND, PRESS, TEETH = (VISEMES.index(n) for n in VISEMES[:5])


def speech(*sounds, step=0.12, start=0.4):
    return [
        Phoneme("arpabet", symbol, start + i * step, start + (i + 1) * step)
        for i, symbol in enumerate(sounds)
    ]


@pytest.mark.parametrize(
    ("symbol", "symbol_set", "expected"),
    [
        ("AH0", "arpabet", "ah"), ("IY1", "arpabet", "iy"), ("pau", "arpabet", "sil"),
        ("SIL", "arpabet", "sil"), ("+NSN+", "arpabet", "sil"), ("axr", "arpabet", "er"),
        ("@", "espeak", "ax"), ("u:", "espeak", "uw"), ("I2", "espeak", "ih"),
        ("tS", "espeak", "ch"), ("_:", "espeak", "sil"), ("b", "espeak", "b"),
        ("aI@", "espeak", "ay"), ("ʃ", "ipa", "sh"), ("ˈ", "ipa", "sil"), ("O", "ipa", "ow"),
        ("ɔː", "ipa", "ao"), ("ɡ", "ipa", "g"), (" ", "ipa", "sil"), ("☃", "ipa", "ax"),
    ],
)  # fmt: skip
def test_symbols_of_three_sets_become_one(symbol, symbol_set, expected):
    assert canonical_symbol(symbol, symbol_set) == expected


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(CANONICAL)), st.floats(0.0, 0.4)), min_size=0, max_size=20
    ),
    st.integers(0, 120),
    st.sampled_from([16, 25, 30]),
)
@settings(max_examples=40, deadline=None)
def test_any_speech_gives_a_bounded_finite_track_of_the_asked_length(sounds, frames, fps):
    phonemes, now = [], 0.0
    for symbol, duration in sounds:
        phonemes.append(Phoneme("arpabet", symbol, now, now + duration))
        now += duration
    track = viseme_track(phonemes, frames, fps=fps)
    assert track.shape == (frames, 6)
    assert track.dtype == np.float32
    assert np.isfinite(track).all()
    assert track.max(initial=0) <= 1
    assert track[:, WIDTH].min(initial=0) >= -0.5
    assert np.delete(track, WIDTH, axis=1).min(initial=0) >= 0


def test_silence_is_exactly_the_rest_pose():
    assert (viseme_track([], 30) == REST_POSE).all()
    pause = [*speech("aa", "iy"), Phoneme("arpabet", "pau", 0.64, 1.4)]
    track = viseme_track([*pause, *speech("uw", start=1.4)], 60)
    assert (track[:6] == REST_POSE).all()  # until 0.24 s
    assert (track[19:32] == REST_POSE).all()  # 0.76 to 1.28 s, well inside the pause


@pytest.mark.parametrize("closing", ["p", "b", "m"])
@pytest.mark.parametrize("duration", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("offset", [0.0, 0.01, 0.02, 0.03])
def test_lips_truly_close_between_open_vowels_however_short(closing, duration, offset):
    start = 0.8 + offset
    phonemes = [
        Phoneme("arpabet", "aa", 0.4, start),
        Phoneme("arpabet", closing, start, start + duration),
        Phoneme("arpabet", "aa", start + duration, 1.4),
    ]
    track = viseme_track(phonemes, 50)
    nearest = round((start + duration / 2) * 25 - 0.5)
    frame = nearest - 1 + track[nearest - 1 : nearest + 2, PRESS].argmax()
    assert track[frame, PRESS] > 0.95
    assert track[frame, JAW] < 0.05
    assert track[14, JAW] > 0.8
    assert track[14, PRESS] == 0


@pytest.mark.parametrize("sound", ["f", "v"])
def test_labiodentals_bring_the_lip_to_the_teeth(sound):
    track = viseme_track(speech("aa", sound, "aa"), 30)
    middle = int(0.58 * 25)
    assert track[middle, TEETH] > 0.95
    assert track[middle, JAW] < 0.15


def test_rounding_and_width_tell_vowels_apart():
    track = viseme_track(speech("uw", "iy", "aa", step=0.3), 40)
    uw, iy, aa = track[13], track[21], track[28]
    assert uw[ROUND] > 0.9 > 0.1 > iy[ROUND]
    assert iy[WIDTH] > 0.9
    assert uw[WIDTH] < -0.3
    assert aa[JAW] > 0.8 > 0.3 > max(uw[JAW], iy[JAW])


def test_frames_are_sampled_at_their_centres():
    # Symmetric about 1.02 s, the centre of frame 25: its neighbours must agree.
    track = viseme_track([Phoneme("arpabet", "aa", 0.92, 1.12)], 51)
    assert track[:, JAW].argmax() == 25
    np.testing.assert_allclose(track[22:25, JAW], track[28:25:-1, JAW], atol=1e-5)


def test_energy_scales_the_jaw_and_nothing_else():
    phonemes = speech("eh", "iy", "ow")
    soft = viseme_track(phonemes, 40, energy=np.zeros(400))
    loud = viseme_track(phonemes, 40, energy=np.ones(400))
    plain = viseme_track(phonemes, 40)
    np.testing.assert_allclose(soft[:, JAW], 0.6 * plain[:, JAW], atol=1e-6)
    np.testing.assert_allclose(loud[:, JAW], np.minimum(1.4 * plain[:, JAW], 1), atol=1e-6)
    np.testing.assert_array_equal(soft[:, 1:], loud[:, 1:])


def test_local_energy_follows_loudness_and_not_level():
    time = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 200 * time).astype(np.float32) * (time > 0.5)
    energy = local_energy(tone)
    assert energy.shape == (200,)
    assert energy[:80].max() == 0
    assert energy[120:].min() > 0.95
    np.testing.assert_allclose(local_energy(0.05 * tone)[120:], energy[120:], atol=1e-3)


def test_sounds_outside_the_track_are_ignored():
    late = [Phoneme("arpabet", "aa", 100.0, 101.0), Phoneme("arpabet", "p", -2.0, -1.0)]
    assert (viseme_track(late, 20) == REST_POSE).all()
