"""Rows, comparisons and sentences of the ablation tables; the files that are written."""

import json
import math

import pytest

from joyflash_cli.errors import UsageError
from joyflash_cli.studio.evaluation.ablation import (
    FIGURES,
    FULL,
    ablation_rows,
    as_markdown,
    compare,
    figures_of,
    mean_and_spread,
    table_report,
    verdict_sentence,
    write_table,
)


def figures(**changes):
    return {name: 0.5 for name in FIGURES} | changes


def seeds(*values, figure="lip_correlation"):
    return [figures(**{figure: value}) for value in values]


def test_rows_are_the_papers():
    assert [row.name for row in ablation_rows(2)] == [
        "w/o main-branch", "w/o auxiliary-branch", "w/o sub-step", FULL,
    ]  # fmt: skip
    assert [row.name for row in ablation_rows(3)] == ["w/o MCI training", "w/o add-noise", FULL]
    assert [row.name for row in ablation_rows(4)] == [
        "w/o sink frames", "w/o URC", "N-thread=100", FULL,
    ]  # fmt: skip
    no_sink = ablation_rows(4)[0]
    assert no_sink.paper == (5.03, 8.43, 0.65, 0.58, 0.37)
    assert no_sink.sampling == {"sink": False}
    assert not no_sink.training  # table 4 is about inference
    with pytest.raises(UsageError, match="table 5"):
        ablation_rows(5)


def test_every_switch_exists():
    from joyflash_cli.sampler.settings import PAPER
    from joyflash_cli.studio.training.rollout import Ablation

    for table in (2, 3, 4):
        for row in ablation_rows(table):
            assert set(row.claims) <= set(FIGURES)
            variants = [Ablation(**switches) for switches in (row.training, row.sampling)]
            changed = variants != [Ablation(), Ablation()]
            assert changed == (row.name != FULL)
            assert variants[1].profile(PAPER).main_steps == PAPER.main_steps


def test_mean_and_sample_deviation():
    assert mean_and_spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
    mean, spread = mean_and_spread([0.4, None])
    assert mean == 0.4
    assert math.isnan(spread)
    assert mean_and_spread([None]) is None


@pytest.mark.parametrize(
    ("figure", "row", "verdict"),
    [
        ("lip_correlation", (0.2, 0.3), "worse"),
        ("lip_correlation", (0.8, 0.9), "better"),
        ("lip_correlation", (0.3, 0.8), "no difference"),
        ("border_flicker", (1.8, 1.9), "worse"),
        ("drift_colour_300", (0.1, 0.1), "better"),
        ("drift_identity_60", (0.1, 0.1), "worse"),
    ],
)
def test_a_difference_counts_beyond_the_spread(figure, row, verdict):
    full = seeds(0.5, 0.6, figure=figure)
    found = compare(seeds(*row, figure=figure), full)
    assert found[figure] == verdict
    other = next(name for name in FIGURES if name != figure)
    assert found[other] == "no difference"


def test_one_seed_decides_nothing_and_rounding_is_no_difference():
    full = seeds(0.5, 0.6, 0.7)
    steady = compare(seeds(0.502, 0.602, 0.702), full)
    assert steady["lip_correlation"] == "no difference"
    alone = compare(seeds(0.3), seeds(0.6))
    assert alone["lip_correlation"] == "undecided"
    row = ablation_rows(3)[0]
    assert "one seed decides nothing" in verdict_sentence(row, alone, "here")


def test_what_was_not_measured_is_not_compared():
    row = [figures(drift_colour_300=None)]
    assert "drift_colour_300" not in compare(row, seeds(0.5))


def test_sentences_say_whether_it_holds():
    row, full = ablation_rows(3)[0], seeds(0.60, 0.61)
    assert row.claims == ("lip_correlation", "border_flicker")

    def sentence(**changes):
        runs = [figures(**{k: v + i / 100 for k, v in changes.items()}) for i in range(2)]
        return verdict_sentence(row, compare(runs, full), "here")

    assert sentence(lip_correlation=0.3, border_flicker=0.9).endswith("it holds.")
    assert sentence(lip_correlation=0.3).endswith("it holds in part.")
    assert sentence(lip_correlation=0.9).endswith("it does not hold.")
    equal, same = ablation_rows(4)[2], seeds(0.60, 0.61)
    assert "here there is none: it holds" in verdict_sentence(equal, compare(same, full), "here")
    assert "does not hold" in verdict_sentence(equal, compare(seeds(0.1, 0.11), full), "here")
    nothing = [{name: None for name in FIGURES}]
    assert "not measured" in verdict_sentence(row, compare(nothing, full), "here")


def test_a_short_study_judges_claims_about_five_minutes_after_one():
    row = ablation_rows(4)[0]
    unmeasured = {name: None for name in FIGURES if name.endswith("_300")}
    full = [figures(**unmeasured, drift_identity_60=0.9 + i / 100) for i in range(2)]
    without = [figures(**unmeasured, drift_identity_60=0.5 + i / 100) for i in range(2)]
    sentence = verdict_sentence(row, compare(without, full), "here")
    assert "identity drift 60 s worse" in sentence
    assert "300 s" not in sentence


def test_figures_come_from_the_report():
    drift = {"60": {"colour": 1.0, "sharpness": 0.9, "identity": 0.8}}
    report = {
        "lip_correlation": 0.7, "identity_similarity": 0.9, "sharpness": 1.1,
        "border_flicker": 1.05, "drift": drift,
    }  # fmt: skip
    found = figures_of(report)
    assert set(found) == set(FIGURES)
    assert found["drift_sharpness_60"] == 0.9
    assert found["drift_sharpness_300"] is None
    assert found["identity"] == 0.9
    assert figures_of(report | {"videos": {"sync_c": 3.5}})["video_sync_c"] == 3.5


def test_a_table_shows_ours_beside_the_papers(tmp_path):
    rows = ablation_rows(2)
    beyond = {name: None for name in FIGURES if name.endswith("_300")}
    found = {
        row.name: [
            figures(lip_correlation=0.1 * i + 0.01 * s, **beyond) | {"video_face_clarity": 0.5}
            for s in range(3)
        ]
        for i, row in enumerate(rows, 3)
    }
    report = table_report(2, rows, {"first-frame": found}, budget={"steps": 7, "seeds": 3})
    json_path, markdown_path = write_table(report, tmp_path / "new")
    assert json.loads(json_path.read_text()) == report
    part = report["references"]["first-frame"]
    assert part["rows"]["w/o main-branch"]["mean"]["lip_correlation"] == pytest.approx(0.31)
    assert part["rows"]["w/o main-branch"]["spread"]["lip_correlation"] == pytest.approx(0.01)
    assert len(part["verdicts"]) == 3
    text = markdown_path.read_text()
    assert text == as_markdown(report)
    (row,) = [line for line in text.splitlines() if line.startswith("| w/o main-branch")]
    assert row.startswith("| w/o main-branch | 4.09 | 9.32 | 0.76 | 0.82 | 0.52 | 0.310 ± 0.010 |")
    assert "steps 7" in text
    assert "| film: clarity |" in text
    assert "film: Sync-C" not in text
    assert "300 s" not in text  # nothing was measured there
    assert json_path.name == "ablation-table-2.json"
