"""The drawings: what they hold, and that long tracks stay small."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from joyflash_cli.measures.table import PAGE, gain, mean_gain
from joyflash_cli.measures.words import number, plain, seconds
from joyflash_cli.report import charts
from joyflash_cli.report.charts import MAX_POINTS, Range

COLUMN = {column.name: column for column in PAGE}


def test_a_plot_is_well_formed():
    values = np.sin(np.arange(3000) / 50)
    drawn = charts.plot(
        charts.line(values, Range(-1, 1), style="curve"),
        charts.area(-values, values, Range(-1, 1), style="wave"),
        charts.bars(np.abs(values), Range(0, 1), style="bar"),
        charts.dots(np.linspace(0, 1, 5), np.zeros(5), Range(-1, 1), style="dot"),
        charts.borders(np.linspace(0, 1, 5)),
        charts.level(0.0, Range(-1, 1)),
        label="a wave",
    )
    paths = ElementTree.fromstring(drawn).findall("path")
    assert len(paths) == 6
    assert len(drawn) < 80_000
    with pytest.raises(ValueError, match="escaping"):
        charts.plot(label="<b>")


def test_values_stand_at_their_height():
    drawn = charts.line(np.array([0.0, 1.0, 5.0]), Range(0, 1), style="x")
    assert [part.split()[1] for part in drawn.split('d="M')[1].split('"')[0].split("L")] == [
        "100.0", "0.0", "0.0",
    ]  # fmt: skip


def test_long_tracks_are_shortened_without_losing_peaks():
    values = np.zeros(10_000)
    values[1234] = -3.0
    assert len(charts.shortened(values)) == MAX_POINTS
    assert charts.shortened(values).sum() == pytest.approx(-3.0 * MAX_POINTS / 10_000, rel=0.1)
    assert charts.shortened(values, peaks=True).min() == -3.0
    assert charts.borders(np.linspace(0, 1, 500)) == ""


@pytest.mark.parametrize(
    ("name", "before", "after", "verdict"),
    [
        ("identity", 0.90, 0.95, 1), ("identity", 0.95, 0.90, -1), ("identity", 0.95, 0.951, 0),
        ("colour_change", 4.0, 2.0, 1), ("sharpness", 0.8, 1.1, 1), ("sharpness", 0.9, 1.2, -1),
        ("sound_lag_frames", -3, 1, 1), ("video_s", 1.0, 9.0, 0), ("identity", None, 0.9, 0),
    ],
)  # fmt: skip
def test_which_is_better(name, before, after, verdict):
    assert gain(COLUMN[name], before, after) == verdict


def test_early_and_late_do_not_cancel():
    assert mean_gain(COLUMN["sound_lag_frames"], [(0.0, -3.0), (0.0, 3.0)]) == -1


def test_words():
    assert [number(v) for v in (None, 0, 1234.5, 12.34, 1.234, 0.01234, 0.00123)] == [
        "–", "0", "1234", "12.3", "1.23", "0.01", "0.0012",
    ]  # fmt: skip
    assert [seconds(v) for v in (None, 8.84, 125, 7440)] == [
        "–",
        "8.8 s",
        "2 min 05 s",
        "2 h 04 min",
    ]
    assert plain([1, 2.5, None]) == "1, 2.50, "
