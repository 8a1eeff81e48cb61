"""The product against numbers recorded from three public reference models."""

import json
from pathlib import Path

import parity
import pytest
from safetensors.torch import load_file, save_file

CASES = Path(__file__).parent / "data" / "parity"
# The records differ from a float64 run of the references by 2e-6 to 4e-6.
TOLERANCE = 2e-5


@pytest.mark.parametrize(
    "name",
    [
        "avatarforcing_block",
        "avatarforcing_nocache",
        "avatarforcing_rolling",
        "rollingforcing_rolling",
        "livetalk_blockwise",
        "scheduler",
    ],
)
def test_case_agrees(name):
    lines: list[str] = []
    error = parity.run_case(CASES / name, echo=lines.append)
    assert error < TOLERANCE
    assert len(lines) > 1


def test_wrong_record_is_noticed(tmp_path):
    folder = _copy(tmp_path)
    io = load_file(folder / "io.safetensors")
    io["shift5.add_noise"][0, 0, 0, 0] += 0.25
    save_file(io, folder / "io.safetensors")
    assert parity.run_case(folder) == pytest.approx(0.25, abs=1e-3)


def test_record_that_nobody_compares_is_an_error(tmp_path):
    folder = _copy(tmp_path)
    io = load_file(folder / "io.safetensors")
    save_file(io | {"mystery": io["clean"].clone()}, folder / "io.safetensors")
    with pytest.raises(ValueError, match="mystery"):
        parity.run_case(folder)


def test_unknown_kind_is_an_error(tmp_path, capsys):
    folder = _copy(tmp_path)
    case = json.loads((folder / "case.json").read_text())
    (folder / "case.json").write_text(json.dumps(case | {"case": "mystery"}))
    assert parity.main([str(tmp_path)]) == 2
    assert "mystery" in capsys.readouterr().err


def test_last_line_is_the_largest_error(tmp_path, capsys):
    _copy(tmp_path)
    assert parity.main([str(tmp_path)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert float(last.removeprefix("max_abs_error=")) < TOLERANCE


def _copy(tmp_path: Path) -> Path:
    """A scheduler case that may be spoilt, in a folder whose name says nothing."""
    folder = tmp_path / "some_case"
    folder.mkdir()
    for path in (CASES / "scheduler").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder
