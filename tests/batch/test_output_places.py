"""Where a batch may write: inside its folder, and over nobody's file."""

import io
import os

import pytest
from batch_fakes import Bench, count
from inline_engine import InlineEngine

from joyflash_cli.batch.places import real_place
from joyflash_cli.batch.plan import BatchProblems
from joyflash_cli.batch.rows import STATE_FOLDER
from joyflash_cli.errors import OutputError


@pytest.fixture
def bench(tmp_path) -> Bench:
    made = Bench(tmp_path)
    made.out.mkdir()
    return made


def run(bench: Bench, **choices):
    return bench.run(InlineEngine(bench.loader()), **choices)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["folder", "deep", "relative", "file", "state", "loop"])
def test_a_link_does_not_lead_out(bench, tmp_path, kind, overwrite):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "v.mp4").write_bytes(b"precious")
    output = "sub/v.mp4"
    if kind == "folder":
        (bench.out / "sub").symlink_to(elsewhere)
    elif kind == "deep":
        (bench.out / "sub").symlink_to(elsewhere)
        output = "sub/new/v.mp4"
    elif kind == "relative":
        (bench.out / "sub").symlink_to("../elsewhere")
    elif kind == "file":
        (bench.out / "v.mp4").symlink_to(elsewhere / "v.mp4")
        output = "v.mp4"
    elif kind == "state":
        (bench.out / STATE_FOLDER).mkdir()
        (bench.out / "sub").symlink_to(STATE_FOLDER)
    else:
        (bench.out / "v.mp4").symlink_to("v.mp4")
        output = "v.mp4"
    bench.add("a", output=output)
    with pytest.raises(BatchProblems) as caught:
        run(bench, overwrite=overwrite)
    assert "output folder, through a link" in str(caught.value) or "belongs to" in str(caught.value)
    assert (caught.value.code, caught.value.exit_code) == ("E-OUTPUT-FOLDER", 6)
    assert sorted(os.listdir(elsewhere)) == ["v.mp4"]
    assert (elsewhere / "v.mp4").read_bytes() == b"precious"
    assert count(bench.log, "load") == 0


def test_links_inside_are_followed(bench, tmp_path):
    """And so is the output folder itself, wherever it leads."""
    (bench.out / "real").mkdir()
    (bench.out / "sub").symlink_to("real")
    bench.add("a", output="sub/a.mp4")
    assert run(bench).num_rendered == 1
    assert sorted(os.listdir(bench.out / "real")) == ["a.mp4", "a.mp4.json"]
    assert run(bench).num_rendered == 0
    assert real_place(bench.out, "sub/a.mp4") == bench.out / "real" / "a.mp4"


def test_two_names_of_one_place(bench):
    (bench.out / "real").mkdir()
    (bench.out / "sub").symlink_to("real")
    bench.add("a", output="real/v.mp4")
    bench.add("b", output="sub/v.mp4")
    with pytest.raises(BatchProblems, match="'sub/v.mp4' is the same file as output 'real/v.mp4'"):
        run(bench, overwrite=True)


def test_a_part_is_no_other_rows_video(bench):
    bench.add("a", output="v.mp4")
    bench.add("b", output="v.partial.mp4")
    with pytest.raises(BatchProblems, match=r"what a part of output 'v\.mp4' would be called"):
        run(bench)


def test_a_link_that_appears_while_the_batch_runs(bench, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    bench.add("a", output="sub/a.mp4")
    plan = bench.plan()
    (bench.out / "sub").symlink_to(elsewhere)
    bench.plan = lambda **_: plan
    assert run(bench).num_failed == 1
    assert os.listdir(elsewhere) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.mp4.json", "a.partial.mp4", "a.partial.mp4.json"])
@pytest.mark.parametrize("how", ["name", "symbolic", "hard"])
def test_an_input_is_never_replaced(bench, name, how):
    """Whatever a row would write, and however the names are linked."""
    taken = bench.out / name
    voice = taken if how == "name" else bench.folder / "voice.wav"
    voice.write_bytes(b"precious")
    if how == "symbolic":
        taken.symlink_to(voice)
    elif how == "hard":
        taken.hardlink_to(voice)
    bench.add("a")
    bench.add("b")
    bench.rows[1]["audio"] = str(voice)
    with pytest.raises(BatchProblems) as caught:
        run(bench, overwrite=True)
    if (how, name) != ("symbolic", "a.mp4"):  # which leaves the folder
        assert "is a file that rows read" in str(caught.value)
        assert "--overwrite" not in str(caught.value)
        assert (caught.value.code, caught.value.exit_code) == ("E-OUTPUT-INPUT", 6)
    assert voice.read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["a.partial.mp4", "a.partial.mp4.json", "a.mp4.json"])
def test_what_another_hand_made_is_kept_unless_asked(bench, name):
    (bench.out / name).write_bytes(b"mine")
    bench.add("a", "partial")
    with pytest.raises(BatchProblems, match="exists without its video") as caught:
        run(bench)
    assert "--overwrite" in str(caught.value)
    assert (bench.out / name).read_bytes() == b"mine"
    assert run(bench, overwrite=True).num_failed == 1


def test_the_manifest_is_an_input(bench):
    from batch_fakes import BatchChoices, RowRules

    from joyflash_cli.batch.plan import prepare_batch

    bench.add("a")
    path = bench.out / "results.csv"
    path.write_text(f"id,image,audio\na,{bench.folder}/face.png,{bench.folder}/a.wav\n")
    rules = RowRules(folder=bench.folder, profile="fake", hears_text=True)
    choices = BatchChoices(out_dir=bench.out, weights_sha256="w", overwrite=True)
    with path.open("rb") as file, pytest.raises(BatchProblems, match="is read by this batch"):
        prepare_batch(file, "results.csv", choices=choices, rules=rules)
    memory = io.BytesIO(path.read_bytes())  # a pipe has no place
    prepare_batch(memory, "-", choices=choices, rules=rules)


def test_names_need_not_be_utf8(tmp_path):
    folder = tmp_path / os.fsdecode(b"f\xe9")
    folder.mkdir()
    bench = Bench(folder)
    bench.add("a")
    bench.add("bad", "refuse")
    status = run(bench)
    assert (status.num_rendered, status.num_failed) == (1, 1)
    assert bench.results["a"]["image"] == "face.png"
    assert (bench.out / "results.csv").read_text(encoding="utf-8")
    picture = folder / os.fsdecode(b"\xff.png")  # JSON can name it, as --json prints it
    picture.write_bytes(b"another picture")
    bench.rows[0]["image"] = picture.name
    assert run(bench).num_rendered == 1
    assert bench.results["a"]["image"] == picture.name


def test_a_slash_makes_a_folder(bench):
    bench.add("a", output="a.mp4/")
    bench.add("b", output="b.mp4/.")
    assert run(bench).num_failed == 2
    assert ["is a folder" in row["error"] for row in bench.results.values()] == [True, True]


def test_a_place_is_compared_whole(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(OutputError, match="leaves the output folder"):
        real_place(tmp_path / "out", "sub/v.mp4")
