import json
import sys
import types

import pytest

from joyflash_cli.cli.app import run

FIGURES = {
    "lip_correlation_at_zero_lag": 0.575, "lip_correlation": 0.6, "lip_lag_frames": -1,
    "mouth_amplitude": 1.39, "teeth": 46.6, "open_mouth_psnr_db": None, "num_films": 1,
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch):
    """What ``evaluate_real`` was asked; ``skipped`` in it is what the report will skip."""
    asked = {"skipped": []}

    def evaluate_real(folders, **options):
        asked.update(options, folders=folders)
        options["progress"]("s31/one", 1, 1)
        return {
            **FIGURES, "truth": {"blinks_per_min": 20.0}, "num_people": 1,
            "groups": {"other skin": {**FIGURES, "num_people": 1}},
            "people": {"ann": FIGURES}, "films": {"s31/one": FIGURES},
            "skipped": asked["skipped"], "notes": ["What it says."],
        }  # fmt: skip

    fake = types.ModuleType("joyflash_cli.studio.evaluation.real")
    fake.evaluate_real = evaluate_real
    monkeypatch.setitem(sys.modules, "joyflash_cli.studio.evaluation.real", fake)
    return asked


def test_films_are_measured_and_shown_as_a_table(asked, capsys, tmp_path):
    command = ["evaluate", "tiny", "--real", str(tmp_path), "--clips", "4"]
    assert run([*command, "--real", str(tmp_path / "more"), "--checkpoint", "weights"]) == 0
    assert asked["folders"] == [tmp_path, tmp_path / "more"]
    assert str(asked["checkpoint"]) == "weights"
    assert asked["num_clips"] == 4
    shown = capsys.readouterr()
    assert shown.err == "evaluate: s31/one 1/1\n"
    lines = shown.out.splitlines()
    assert lines[0] == "1 films of 1 people"
    assert lines[2].split() == [
        "lips", "best", "lag", "mismatched", "amplitude", "width", "open", "dB", "inside",
        "teeth", "blinks", "identity", "sharpness",
    ]  # fmt: skip
    first = ["0.57", "0.60", "-1", "-", "1.39", "-", "-", "-", "46.6", "-", "-", "-"]
    assert lines[3].split() == ["everybody", *first]
    assert lines[4].split() == ["true", "films", *["-"] * 9, "20.0", "-", "-"]
    assert lines[5].split() == ["other", "skin", "(1)", *first]
    assert lines[7].split() == ["ann", *first]
    assert lines[-1] == "What it says."


def test_one_json_object(asked, capsys, tmp_path):
    assert run(["evaluate", "tiny", "--real", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mouth_amplitude"] == 1.39


def test_skipped_films_end_with_7_after_the_report(asked, capsys, tmp_path):
    asked["skipped"] = [{"film": "two", "reason": "no face was found"}]
    assert run(["evaluate", "tiny", "--real", str(tmp_path)]) == 7
    shown = capsys.readouterr()
    assert "skipped: two: no face was found" in shown.out
    assert shown.err.endswith(
        "joyflash: error[E-BATCH-ROWS]: 1 films were skipped; no figure holds them "
        "(hint: see skipped in the report)\n"
    )


@pytest.mark.parametrize(
    "more", [["--held-out"], ["--horizon", "9"], ["--assets", "x"], ["--sheets", "x"]]
)
def test_options_of_the_recorded_pack_do_not_go_with_films(more, asked, capsys, tmp_path):
    assert run(["evaluate", "tiny", "--real", str(tmp_path), *more]) == 2
    assert f"{more[0]} does not go with --real" in capsys.readouterr().err
    assert "folders" not in asked


def test_points_take_one_folder(capsys, tmp_path):
    folder = ["--real", str(tmp_path)]
    assert run(["evaluate", "points", *folder, *folder]) == 2
    assert run(["evaluate", "points"]) == 2
    assert capsys.readouterr().err.count("give one --real DIR") == 2


def test_a_folder_without_films_is_refused(capsys, tmp_path):
    assert run(["evaluate", "tiny", "--real", str(tmp_path)]) == 3
    assert "holds no clip" in capsys.readouterr().err
    assert run(["evaluate", "tiny", "--real", str(tmp_path / "gone")]) == 3
    assert "is not a folder" in capsys.readouterr().err
