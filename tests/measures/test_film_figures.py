from dataclasses import replace

import numpy as np
import pytest
from synthetic import smooth_track

from joyflash_cli.errors import DataError
from joyflash_cli.measures.film import MOUTH_SHAPE, FilmReading
from joyflash_cli.measures.film_figures import (
    Figures,
    combined,
    compare,
    count_blinks,
    figures_of,
    mismatched_curve,
)
from joyflash_cli.studio.evaluation.figure_tables import FILM


def reading(seed: int = 0, *, num_frames: int = 75, fps: float = 25.0) -> FilmReading:
    """A film whose mouth picture shows its opening, so that pictures of equal mouths are equal."""
    rng = np.random.default_rng(seed)
    opening = 0.15 * smooth_track(rng, num_frames).astype(float)
    levels = (opening * 800)[:, None, None, None] + np.zeros((1, *MOUTH_SHAPE, 3))
    inside = np.where(opening > 0.06, 90.0, np.nan)
    return FilmReading(
        fps=fps,
        seen=np.ones(num_frames, bool),
        opening=opening,
        width=0.5 + 0.1 * smooth_track(rng, num_frames).astype(float),
        lids=np.full(num_frames, 0.3),
        mouths=levels.round().astype(np.uint8),
        inside=np.stack([inside, inside / 2], -1),
        skin=np.full(num_frames, 120.0),
        skin_colour=np.array([140.0, 115, 100]),
        colour=np.full((num_frames, 3), 100.0),
        sharpness=np.full(num_frames, 0.1),
        changes=np.ones(num_frames - 1),
        identity=np.tile([1.0, 0, 0], (num_frames, 1)),
    )


def test_a_film_beside_itself_is_perfect():
    true = reading()
    found = compare(true, true).table()
    assert found["lip_correlation_at_zero_lag"] == pytest.approx(1)
    assert found["width_correlation"] == pytest.approx(1)
    assert found["lip_lag_frames"] == 0
    assert found["mouth_amplitude"] == pytest.approx(1)
    assert found["open_mouth_psnr_db"] == 99
    assert found["teeth"] == 0
    assert found["open_mouths"] == len(true.open_frames) > 5


@pytest.mark.parametrize("fps", [25.0, 50.0])
def test_a_late_picture_has_a_positive_lag(fps):
    true = reading(num_frames=150, fps=fps)
    late = replace(true, opening=np.roll(true.opening, 2), width=np.roll(true.width, -1))
    found = compare(late, true).table()
    assert found["lip_lag_frames"] == 2
    assert found["width_lag_frames"] == -1
    assert found["lip_correlation"] == pytest.approx(1)
    assert found["lip_correlation_at_zero_lag"] < 0.95


def test_size_of_movement_is_told_apart_from_its_timing():
    true = reading()
    wide = replace(true, opening=1.4 * true.opening)
    found = compare(wide, true).table()
    assert found["lip_correlation"] == pytest.approx(1)
    assert found["mouth_amplitude"] == pytest.approx(1.4)
    assert compare(true, replace(true, opening=true.opening * 0)).values["mouth_amplitude"] is None


def test_teeth_and_likeness_are_those_of_equal_mouths():
    true = reading()
    late = {
        name: np.roll(getattr(true, name), 3, axis=0) for name in ("opening", "width", "mouths")
    }
    shifted = replace(true, inside=np.roll(true.inside, 3, axis=0), **late)
    assert compare(shifted, true).values["open_mouth_psnr_db"] == 99
    bright = replace(true, inside=true.inside + 40, mouths=true.mouths + 10)
    found = compare(bright, true).values
    assert found["teeth"] == pytest.approx(40)
    assert found["open_mouth_psnr_db"] == pytest.approx(28.13, abs=0.01)


def test_a_mouth_that_stays_closed_has_no_figures_of_open_ones():
    true = reading()
    closed = replace(true, opening=true.opening * 0, inside=np.full_like(true.inside, np.nan))
    found = compare(closed, true).joined(figures_of(closed)).table()
    assert found["open_mouth_psnr_db"] is found["teeth"] is found["inside_lightness_p95"] is None
    assert found["open_mouths"] == found["mouth_movement"] == found["lip_correlation"] == 0


@pytest.mark.parametrize("fps", [25.0, 50.0])
def test_blinks_are_short_and_deep(fps):
    lids = np.full(round(4 * fps), 0.3)
    frames = round(fps / 25)
    for start_s, length, depth in ((0.4, 5, 0.1), (1.2, 2, 0.2), (2.0, 5, 0.25), (2.6, 20, 0.1)):
        start = round(start_s * fps)
        lids[start : start + length * frames] = depth  # a blink, a short one, a half one, a look
    assert count_blinks(lids, fps) == 2
    film = replace(reading(num_frames=len(lids), fps=fps), lids=lids)
    assert figures_of(film).values["blinks_per_min"] == pytest.approx(30)


def test_lightness_is_over_the_skin_and_drift_over_the_start():
    film = reading()
    aged = replace(
        film,
        sharpness=np.linspace(0.1, 0.05, 75),
        colour=film.colour + np.linspace(0, 9, 75)[:, None] * [0, 1, 0],
    )
    found = figures_of(aged).values
    assert found["inside_lightness_p95"] == pytest.approx(0.75)
    assert found["inside_lightness_mean"] == pytest.approx(0.375)
    assert found["sharpness_drift"] == pytest.approx(0.714, abs=0.01)
    assert found["colour_drift"] == pytest.approx(4.5, abs=0.1)
    assert found["identity_similarity"] == found["border_flicker"] == pytest.approx(1)


def test_lips_that_follow_loudness_agree_with_the_sound():
    film = reading()
    loud = np.repeat(film.opening / 0.15, 640) ** 2
    waveform = 0.3 * loud * np.random.default_rng(0).normal(size=len(loud))
    found = figures_of(film, waveform).table()
    assert found["sound_correlation"] > 0.7
    assert abs(found["sound_lag_frames"]) <= 1
    assert "sound_correlation" not in figures_of(film).table()


def test_every_figure_stands_in_the_table():
    film = reading()
    made = compare(film, film).joined(figures_of(film, np.ones(75 * 640)))
    at_other_lags = {"width_correlation", "width_lag_frames", "sound_correlation_at_zero_lag"}
    assert set(made.table()) <= {measure.name for measure in FILM} | at_other_lags


def test_another_sentence_agrees_less():
    true, others = reading(0), [reading(1), reading(2, num_frames=60)]
    curve = mismatched_curve(true, others)
    assert curve.shape == (11,)
    assert curve[5] < 0.5 < compare(true, true).table()["lip_correlation_at_zero_lag"]


def test_means_leave_out_what_is_unknown_and_seek_one_lag():
    early, late = np.eye(11)[3], np.eye(11)[6]
    found = combined(
        [
            Figures({"teeth": 10.0, "blinks": None}, {"lip": early}, weight=1),
            Figures({"teeth": 40.0, "blinks": 8.0}, {"lip": 0.8 * late}, weight=2),
        ]
    )
    assert found.values == {"teeth": 30.0, "blinks": 8.0}
    assert found.num_films == 2
    table = found.table()
    assert table["lip_lag_frames"] == 1
    assert table["lip_correlation"] == pytest.approx(1.6 / 3)


def test_a_film_of_half_a_second_is_refused():
    with pytest.raises(DataError, match=r"0\.48 s; at least 1 s"):
        figures_of(reading(num_frames=12))
