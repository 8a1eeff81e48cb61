"""Mouths of rendered heads: lightness against the cheeks, and the command that measures them."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from joyflash_cli.cli.app import app
from joyflash_cli.errors import UsageError
from joyflash_cli.studio.evaluation import mouths
from joyflash_cli.studio.evaluation.mouths import measure_heads, mouth_lightness
from joyflash_cli.studio.heads.drawn import sample_drawn


@pytest.fixture
def face():
    """Grey skin of 100, a mouth of 50 with a tenth of it at 150, and its points."""
    picture = np.full((64, 64, 3), 100, np.uint8)
    picture[40:50, 22:42] = 50
    picture[40:41, 22:42] = 150
    mask = np.zeros((64, 64), np.float32)
    mask[40:50, 22:42] = 1
    eyes = np.array([[10.0, 20.0], [54.0, 20.0]])
    inner = np.array([[24.0, 20.0], [40.0, 20.0]])
    corners = np.array([[20.0, 45.0], [44.0, 45.0]])
    lips = np.array([[32.0, 40.0], [32.0, 50.0]])
    points = np.concatenate([eyes, inner, inner, inner, corners, lips])
    return picture, mask, points


def test_lightness_is_relative_to_the_cheeks(face):
    brightest, mean = mouth_lightness(*face)
    assert brightest == pytest.approx(1.5, abs=0.01)
    assert mean == pytest.approx(0.6, abs=0.01)


def test_a_mouth_that_hardly_shows_is_not_judged(face):
    picture, mask, points = face
    assert mouth_lightness(picture, 0 * mask, points) is None


@pytest.fixture
def drawn_only(monkeypatch):
    """Drawn heads in place of those that need packs."""
    monkeypatch.setattr(mouths, "load_heads", lambda config, folder: None)
    monkeypatch.setattr(
        mouths,
        "sample_head",
        lambda config, rng, assets: ("", sample_drawn(rng, size_px=64, split=config.split)),
    )
    monkeypatch.setattr(mouths, "STATES_PER_HEAD", 6)


def test_every_kind_of_head_is_measured(drawn_only, tmp_path):
    told = []
    report = measure_heads(tmp_path, num_heads=2, progress=lambda *what: told.append(what))
    assert set(report) == {"makehuman", "ict", "drawn"}
    assert told[-1] == ("drawn", 2, 2)
    for figures in report.values():
        assert 0.05 < figures["gap_p95"] < 0.5
        assert 0 < figures["lightness_mean"] <= figures["lightness_p95"]


def test_the_command_prints_the_figures(drawn_only, tmp_path):
    arguments = ["evaluate", "heads", "--assets", str(tmp_path), "--clips", "2", "-q", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["drawn"]["open_mouths"] > 0


def test_without_packs_the_command_says_what_to_give():
    error = CliRunner().invoke(app, ["evaluate", "heads"]).exception
    assert isinstance(error, UsageError)
    assert "--assets DIR" in error.hint
