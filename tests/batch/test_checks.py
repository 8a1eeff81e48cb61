"""What a row must be before anything is loaded, and names that must stay plain names."""

import pytest

from joyflash_cli.batch.checks import MAX_NAME_BYTES, RowRules, check_row
from joyflash_cli.batch.rows import RawRow, Row, same_everywhere


@pytest.fixture
def rules(tmp_path) -> RowRules:
    (tmp_path / "face.png").write_bytes(b"x")
    (tmp_path / "talk.wav").write_bytes(b"x")
    return RowRules(folder=tmp_path, profile="tiny", hears_text=False)


def check(rules: RowRules, **values) -> Row:
    given = {"id": "a", "image": "face.png", "audio": "talk.wav", **values}
    return check_row(RawRow(3, 4, {k: v for k, v in given.items() if v is not None}), rules)


def test_a_good_row(rules, tmp_path):
    row = check(rules, seed="7")
    assert (row.state, row.error) == ("open", "")
    assert (row.number, row.line, row.id, row.seed) == (3, 4, "a", 7)
    assert (row.image, row.audio) == ("face.png", "talk.wav")
    assert (row.image_path, row.audio_path) == (tmp_path / "face.png", tmp_path / "talk.wav")
    assert row.output == "a.mp4"


@pytest.mark.parametrize(
    "output",
    ["-y.mp4", "a b;$(touch pwn).mp4", "it's \"quoted\".mp4", "sub/folder/ä 👩‍🚀.MP4", "a\\b.mkv",
     "`id`.webm", "%d.mp4", "~.mp4", "..a.mp4"],
)  # fmt: skip
def test_odd_names_are_plain_names(rules, output):
    row = check(rules, output=output)
    assert row.error == ""
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
    row = check(rules, output=output)
    assert row.output == ""
    assert told in row.error
    assert (row.state, row.error_code) == ("failed", "E-MANIFEST-ROW")


@pytest.mark.parametrize("output", ["CON.mp4", "x/nul.a.mp4", "lpt1/a.mp4", "Aux .mp4", "com³.mkv"])
def test_names_of_devices_elsewhere_cannot_be(rules, output):
    row = check(rules, output=output)
    assert "is the name of a device on Windows" in row.error
    assert row.output == output


@pytest.mark.parametrize(
    "output", ["console.mp4", "com.mp4", "com10.mp4", "a.con.mp4", "nul-1.mp4"]
)
def test_names_like_those_of_devices_can(rules, output):
    assert check(rules, output=output).state == "open"


@pytest.mark.parametrize(
    ("one", "other"),
    [("a.mp4", "A.MP4"), ("é.mp4", "e\u0301.mp4"), ("É.mp4", "e\u0301.mp4"), ("x/a.mp4", "X/a.mp4"),
     ("x./a.mp4", "x/a.mp4"), ("straße.mp4", "STRASSE.mp4"), ("Å.mp4", "\u212b.mp4")],
)  # fmt: skip
def test_names_that_are_one_file_somewhere(one, other):
    assert same_everywhere(one) == same_everywhere(other)


def test_names_that_are_two_files_everywhere():
    assert same_everywhere("a.mp4") != same_everywhere("a.mkv")
    assert same_everywhere("./a.mp4") != same_everywhere("b.mp4")


@pytest.mark.parametrize("column", ["image", "audio", "output"])
@pytest.mark.parametrize("end", [".exe", "\0.mp4", "/../../x.mp4", "." + "x" * 5_000, ".\u202e"])
def test_a_problem_is_one_short_line(rules, column, end):
    row = check(rules, **{column: "n" * 5_000 + end})
    assert 0 < len(row.error) < 1_000
    assert row.error.isprintable()


@pytest.mark.parametrize("seed", ["abc", "-2", str(1 << 63), str(1 << 64), "1.0", "٣", " 1", "1e3"])
def test_seeds_that_cannot_be(rules, seed):
    assert "is not an integer of 0 <= seed < 2**63" in check(rules, seed=seed).error


@pytest.mark.parametrize("seed", ["0", 0, str((1 << 63) - 1), "", None])
def test_seeds_that_can(rules, seed):
    row = check(rules, seed=seed)
    assert row.seed == int(seed or 0)


def test_everything_wrong_is_told_at_once(rules, tmp_path):
    row = check(
        rules, id="", image="http://example.com/x.png", audio="concat:talk.wav", output="a.exe",
        prompt="smile", seed="x",
    )  # fmt: skip
    assert row.output == ""
    assert row.error == "; ".join([
        "has no id",
        "image 'http://example.com/x.png' does not exist; URLs are not fetched",
        "audio 'concat:talk.wav' does not exist",
        "output 'a.exe' ends in .exe; .mp4, .m4v, .mkv, .mov, .webm can be written",
        "profile tiny has no text control; leave the prompt empty",
        "seed 'x' is not an integer of 0 <= seed < 2**63",
    ])  # fmt: skip
    assert (row.number, row.line, row.error_code) == (3, 4, "E-MANIFEST-ROW")
    assert check(rules, prompt="smile", seed="x").error_code == "E-PROMPT"


@pytest.mark.parametrize(
    ("image", "told"),
    [("", "has no image"), ("sub", "is a folder"), ("/dev/zero", "not a plain file"),
     ("a\0b", "does not exist"), ("x" * 5000, "does not exist"), ("\ud800", "does not exist")],
)  # fmt: skip
def test_files_that_are_none(rules, tmp_path, image, told):
    (tmp_path / "sub").mkdir()
    error = check(rules, image=image).error
    assert told in error or "character that does not exist" in error


@pytest.mark.parametrize("row_id", ["a\nb", "a\x1b[2J", "x" * 201, "a\u2028b"])
def test_ids_that_would_spoil_a_terminal(rules, row_id):
    assert check(rules, id=row_id, output="a.mp4").state == "failed"


def test_an_id_may_look_like_an_option_or_a_folder(rules):
    assert check(rules, id="-y").output == "-y.mp4"
    assert check(rules, id="people/anna").output == "people/anna.mp4"
    assert check(rules, id="../anna").state == "failed"


def test_absolute_paths_are_kept(rules, tmp_path):
    row = check(rules, image=str(tmp_path / "face.png"))
    assert row.image == str(row.image_path) == str(tmp_path / "face.png")
