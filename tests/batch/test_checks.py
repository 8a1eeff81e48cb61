"""What a row must be before anything is loaded, and names that must stay plain names."""

import pytest

from joyflash_cli.batch.checks import MAX_NAME_BYTES, RowRules, check_row
from joyflash_cli.batch.rows import RawRow


@pytest.fixture
def rules(tmp_path) -> RowRules:
    (tmp_path / "face.png").write_bytes(b"x")
    (tmp_path / "talk.wav").write_bytes(b"x")
    return RowRules(folder=tmp_path, profile="tiny", hears_text=False)


def check(rules: RowRules, **values):
    given = {"id": "a", "image": "face.png", "audio": "talk.wav", **values}
    return check_row(RawRow(3, 4, {k: v for k, v in given.items() if v is not None}), rules)


def test_a_good_row(rules, tmp_path):
    row, problems = check(rules, seed="7")
    assert problems == []
    assert (row.number, row.line, row.id, row.seed) == (3, 4, "a", 7)
    assert (row.image, row.audio) == (str(tmp_path / "face.png"), str(tmp_path / "talk.wav"))
    assert row.output == "a.mp4"


@pytest.mark.parametrize(
    "output",
    ["-y.mp4", "a b;$(touch pwn).mp4", "it's \"quoted\".mp4", "sub/folder/ä 👩‍🚀.MP4", "a\\b.mkv",
     "`id`.webm", "%d.mp4", "~.mp4", "..a.mp4"],
)  # fmt: skip
def test_odd_names_are_plain_names(rules, output):
    row, problems = check(rules, output=output)
    assert problems == []
    assert row.output == output


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("../a.mp4", "leaves the output folder"),
        ("x/../../a.mp4", "leaves the output folder"),
        ("/tmp/a.mp4", "leaves the output folder"),
        ("a.avi", "ends in .avi"),
        ("a", "has no suffix"),
        (".mp4", "has no suffix"),
        (".joyflash/a.mp4", "belongs to the batch"),
        ("./.joyflash/a.mp4", "belongs to the batch"),
        ("a\0.mp4", "control character"),
        ("a\n.mp4", "control character"),
        ("x" * MAX_NAME_BYTES + ".mp4", "more than 240 bytes"),
    ],
)
def test_outputs_that_cannot_be(rules, output, told):
    row, problems = check(rules, output=output)
    assert row is None
    assert [told in problem.text for problem in problems] == [True]


@pytest.mark.parametrize("column", ["image", "audio", "output"])
@pytest.mark.parametrize("end", [".exe", "\0.mp4", "/../../x.mp4", "." + "x" * 5_000, ".\u202e"])
def test_a_problem_is_one_short_line(rules, column, end):
    _, problems = check(rules, **{column: "n" * 5_000 + end})
    assert problems
    assert all(len(str(problem)) < 1_000 for problem in problems)
    assert all(str(problem).isprintable() for problem in problems)


@pytest.mark.parametrize("seed", ["abc", "-2", str(1 << 63), str(1 << 64), "1.0", "٣", " 1", "1e3"])
def test_seeds_that_cannot_be(rules, seed):
    row, problems = check(rules, seed=seed)
    assert row is None
    assert "is not an integer of 0 <= seed < 2**63" in problems[0].text


@pytest.mark.parametrize("seed", ["0", 0, str((1 << 63) - 1), "", None])
def test_seeds_that_can(rules, seed):
    row, _ = check(rules, seed=seed)
    assert row.seed == int(seed or 0)


def test_everything_wrong_is_told_at_once(rules, tmp_path):
    row, problems = check(
        rules, id="", image="http://example.com/x.png", audio="concat:talk.wav", output="a.exe",
        prompt="smile", seed="x",
    )  # fmt: skip
    assert row is None
    assert [problem.text for problem in problems] == [
        "has no id",
        "image 'http://example.com/x.png' does not exist; URLs are not fetched",
        "audio 'concat:talk.wav' does not exist",
        "output 'a.exe' ends in .exe; .mp4, .m4v, .mkv, .mov, .webm can be written",
        "profile tiny has no text control; leave the prompt empty",
        "seed 'x' is not an integer of 0 <= seed < 2**63",
    ]
    assert all((problem.number, problem.line) == (3, 4) for problem in problems)


@pytest.mark.parametrize(
    ("image", "told"),
    [("", "has no image"), ("sub", "is a folder"), ("/dev/zero", "not a plain file"),
     ("a\0b", "does not exist"), ("x" * 5000, "does not exist"), ("\ud800", "does not exist")],
)  # fmt: skip
def test_files_that_are_none(rules, tmp_path, image, told):
    (tmp_path / "sub").mkdir()
    row, problems = check(rules, image=image)
    assert row is None
    assert told in problems[0].text or "character that does not exist" in problems[0].text


@pytest.mark.parametrize("row_id", ["a\nb", "a\x1b[2J", "x" * 201, "a\u2028b"])
def test_ids_that_would_spoil_a_terminal(rules, row_id):
    assert check(rules, id=row_id, output="a.mp4")[0] is None


def test_an_id_may_look_like_an_option_or_a_folder(rules):
    assert check(rules, id="-y")[0].output == "-y.mp4"
    assert check(rules, id="people/anna")[0].output == "people/anna.mp4"
    assert check(rules, id="../anna")[0] is None


def test_absolute_paths_are_kept(rules, tmp_path):
    row, _ = check(rules, image=str(tmp_path / "face.png"))
    assert row.image == str(tmp_path / "face.png")
