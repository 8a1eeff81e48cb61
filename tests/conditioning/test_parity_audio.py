"""The recorded audio and picture cases of two public reference models."""

import json
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from parity_audio import run_audio, run_livetalk_audio  # noqa: E402

TOLERANCE = 2e-5


def load(name):
    directory = TESTS / "data" / "parity" / name
    case = json.loads((directory / "case.json").read_text(encoding="utf-8"))
    return directory, case, load_file(directory / "io.safetensors")


@pytest.mark.parametrize(
    ("name", "run"), [("audio", run_audio), ("livetalk_audio", run_livetalk_audio)]
)
def test_recorded_case(name, run):
    assert run(*load(name)) < TOLERANCE


def test_a_wrong_frame_rate_is_noticed():
    """The comparison can fail: a case read at another frame rate is far off."""
    directory, case, io = load("audio")
    assert run_audio(directory, case | {"fps": 24}, io) > 0.01


def test_a_tensor_nobody_compares_is_noticed():
    directory, case, io = load("audio")
    assert run_audio(directory, case, io | {"extra": io["waveform"]}) == float("inf")
