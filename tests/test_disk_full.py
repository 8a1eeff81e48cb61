"""A disk that is full at any stage of any command: one line, the right exit code, nothing lost.

The disk is a real one, a few pages in memory, so these need the right to mount.
"""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from conftest import write_tone
from programs import run_program
from small_disk import small_disk

from joyflash_cli.cli.app import run
from joyflash_cli.media.outputs.probe import probe

EARLIER = b"an earlier video"
PAGES = (0, 1, 2, 4, 7, 12, 20, 33)
"""Free room, in steps that meet every stage: opening, first and later fragments, the end, the
record beside the video."""

ENOUGH = 1000


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "small") as made:
        if made is None:
            pytest.skip("mounting is not allowed here")
        yield made


@pytest.fixture
def render(toy_checkpoint, toy_picture, tmp_path, capsys):
    """Renders a second and a half; exit code and what was said."""
    voice = write_tone(tmp_path / "voice.wav", 1.5)
    options = ["--image", str(toy_picture), "--audio", str(voice), "-q", "--device", "cpu"]
    options += ["--checkpoint", str(toy_checkpoint), "--dtype", "float32"]

    def start(output: Path, *more: str) -> tuple[int, str, str]:
        code = run(["render", *options, "-o", str(output), *more])
        told = capsys.readouterr()
        return code, told.out, told.err

    return start


def check_refusal(told: tuple[int, str, str], code: int, *errors: str) -> None:
    """The exit code, nothing on stdout, and one line on stderr with one of these codes."""
    assert told[0] == code, told
    assert told[1] == ""
    assert told[2].count("\n") == 1, told[2]
    assert any(f"error[{error}]" in told[2] for error in errors), told[2]


@pytest.mark.parametrize(
    ("name", "errors"),
    [
        ("out.mp4", ("E-OUTPUT-FULL", "E-OUTPUT-WRITE")),
        ("out.mkv", ("E-OUTPUT-FULL", "E-OUTPUT-WRITE")),
        ("out.m3u8", ("E-OUTPUT-FULL", "E-OUTPUT-WRITE")),
        ("f-%03d.png", ("E-OUTPUT-FULL", "E-OUTPUT-WRITE")),
    ],
)
def test_render(disk, render, name, errors):
    """Whatever room there is: what is left plays, and with room the same command works."""
    (disk.folder / "keep.mp4").write_bytes(EARLIER)
    stem, suffix = name.rpartition(".")[0], name.rpartition(".")[2]
    failures = 0
    for pages in PAGES:
        disk.leave(pages)
        told = render(disk.folder / name)
        if told[0] == 0:
            break
        failures += 1
        check_refusal(told, 6, *errors)
        left = set(disk.names()) - {"keep.mp4"}
        assert not [path for path in left if Path(path).name.startswith(".")], (pages, left)
        partial = disk.folder / f"{stem}.partial.{suffix}"
        if partial.is_file() and suffix != "m3u8":
            assert probe(partial).num_frames > 0
            assert str(partial) in told[2]
        assert (disk.folder / "keep.mp4").read_bytes() == EARLIER
        disk.clear()
        for path in left:
            (disk.folder / path).unlink()
    assert failures >= 3
    disk.leave(ENOUGH - 500)
    if told[0] != 0:
        assert render(disk.folder / name)[0] == 0


def test_render_to_standard_output(disk, toy_checkpoint, toy_picture, tmp_path):
    """Redirected into a file, as a shell does it: fragments up to the end of the room."""
    voice = write_tone(tmp_path / "voice.wav", 1.5)
    command = ["render", "--image", str(toy_picture), "--audio", str(voice), "-q", "-o", "-"]
    command += ["--checkpoint", str(toy_checkpoint), "--device", "cpu", "--dtype", "float32"]
    disk.leave(3)
    output = disk.folder / "out.mp4"
    with output.open("wb") as file:
        done = run_program(command, stdout=file, text=True)
    check_refusal((done.returncode, "", done.stderr), 6, "E-OUTPUT-FULL")
    assert output.stat().st_size == 3 * 4096


def test_render_over_an_earlier_video(disk, render):
    """It stays what it was until the new one is whole."""
    output = disk.folder / "out.mp4"
    output.write_bytes(EARLIER)
    record = disk.folder / "out.mp4.json"
    record.write_text("its record")
    disk.leave(6)
    check_refusal(render(output, "--overwrite"), 6, "E-OUTPUT-FULL")
    assert output.read_bytes() == EARLIER
    assert record.read_text() == "its record"


def test_a_record_that_cannot_be_written_leaves_the_video(disk, render):
    """With --overwrite the record of the earlier video must not stand beside the new one."""
    output, record = disk.folder / "out.mp4", disk.folder / "out.mp4.json"
    disk.leave(ENOUGH - 500)
    assert render(output)[0] == 0
    size_pages = -(-output.stat().st_size // 4096)
    record.write_text("the record of another video")
    output.unlink()
    for pages in range(size_pages, size_pages + 12):
        disk.leave(pages)
        told = render(output, "--overwrite")
        if told[0] == 0:
            break
        if output.exists():
            check_refusal(told, 6, "E-OUTPUT-FULL", "E-OUTPUT-WRITE")
            assert "the video itself is there" in told[2]
            assert probe(output).num_frames == 38
            assert not record.exists()
            break
        disk.clear()
        (disk.folder / "out.partial.mp4").unlink(missing_ok=True)
        (disk.folder / "out.partial.mp4.json").unlink(missing_ok=True)
    assert output.exists()


def test_report(disk, capsys):
    from report.clips import write_folder

    folder = write_folder(disk.folder / "run")
    page = folder / "report.html"
    before = disk.names()
    for pages in (0, 1, 5):
        disk.leave(pages)
        code = run(["report", str(folder), "-q"])
        told = capsys.readouterr()
        check_refusal((code, told.out, told.err), 6, "E-OUTPUT-WRITE", "E-OUTPUT-FULL")
        assert disk.names() == before
    page.write_text("<!-- JoyFlash report -->")
    disk.leave(3)
    code = run(["report", str(folder), "-q", "--overwrite"])
    assert code == 6
    assert page.read_text() == "<!-- JoyFlash report -->"


@pytest.mark.parametrize("pages", [0, 1, 2, 3, 5])
def test_weights_fetch(disk, hub_case, capsys, monkeypatch, pages):
    """The cache is on the disk: what is complete stays, the next fetch goes on from there."""
    monkeypatch.setenv("HF_HOME", str(disk.folder / "hf"))
    disk.leave(pages)
    code = run(["weights", "fetch", "small", "--accept-license", "-q"])
    told = capsys.readouterr()
    if code == 0:
        return
    check_refusal((code, told.out, told.err), 4, "E-WEIGHTS-DISK", "E-WEIGHTS-CACHE")
    assert not [name for name in disk.names() if name.endswith((".incomplete", ".part"))]
    disk.clear()
    assert run(["weights", "fetch", "small", "--accept-license", "-q"]) == 0


def test_weights_fetch_without_room_for_the_lock_file(disk, hub_case, capsys, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(disk.folder / "state"))
    disk.leave(0)
    code = run(["weights", "fetch", "small", "--accept-license"])
    told = capsys.readouterr()
    assert "bug" not in told.err
    assert not [name for name in disk.names() if "guard" not in name]
    if code == 0:
        assert "hashes of first downloads are not kept" in told.err
    else:
        assert told.err.splitlines()[-1].startswith("joyflash: error[E-")


@pytest.mark.parametrize("pages", [3, 40])
def test_convert(disk, tmp_path, capsys, pages, monkeypatch):
    """Refused beforehand where the room is known to be too small, else cleaned up."""
    from published import write_profile

    from joyflash_cli.weights import convert

    source = write_profile(tmp_path / "source", "livetalk-1.3b")
    if pages == 40:
        monkeypatch.setattr(convert, "check_room", lambda out_dir, parts: None)
    disk.leave(pages)
    out = disk.folder / "converted"
    command = ["weights", "convert", "livetalk-1.3b", "--source", str(source), "--output", str(out)]
    command.append("--accept-license")
    code = run([*command, "-q"])
    told = capsys.readouterr()
    check_refusal((code, told.out, told.err), 6, "E-OUTPUT-SPACE", "E-OUTPUT-DISK")
    assert disk.names() == []
    assert not out.exists()


def test_train_keeps_the_state_before(disk, capsys):
    sys.path.insert(0, str(Path(__file__).parent / "studio" / "training"))
    from toy_run import save_start, toy_run

    from joyflash_cli.studio.training.state import load_tree

    run_file = toy_run(disk.folder, save_every_steps=2, steps=6, log_every=2)
    save_start(disk.folder)
    stage = disk.folder / "work" / "dmd"
    assert run(["train", "dmd", "--config", str(run_file), "-q"]) == 0
    (stage / "generator.safetensors").unlink()
    pointer = json.loads((stage / "state.json").read_text())
    state_bytes = sum(path.stat().st_size for path in (stage / pointer["folder"]).iterdir())
    text = run_file.read_text().replace("steps = 6", "steps = 10")
    run_file.write_text(text)
    capsys.readouterr()
    disk.leave(state_bytes // 4096 // 2)
    code = run(["train", "dmd", "--config", str(run_file), "-q", "--resume"])
    told = capsys.readouterr()
    assert code == 6, told.err
    assert "error[E-OUTPUT-FULL]" in told.err.splitlines()[-1]
    assert json.loads((stage / "state.json").read_text()) == pointer
    assert load_tree(stage / pointer["folder"] / "00000.safetensors")
    assert sorted(path.name for path in stage.glob("state-*")) == [pointer["folder"]]
    assert not list(stage.rglob("*.part"))
    disk.clear()
    assert run(["train", "dmd", "--config", str(run_file), "-q", "--resume"]) == 0


def test_batch_with_a_worker_process(disk, toy_checkpoint, toy_picture, tmp_path, capsys):
    """The worker meets the full disk; the run ends, and the next one goes on."""
    lines = ["id,image,audio"]
    for number in range(3):
        write_tone(tmp_path / f"v{number}.wav", 1.5)
        lines.append(f"r{number},{toy_picture},v{number}.wav")
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    command = ["batch", str(tmp_path / "rows.csv"), "--out-dir", str(disk.folder / "out"), "-q"]
    command += ["--checkpoint", str(toy_checkpoint), "--device", "cpu", "--workers", "1"]
    disk.leave(20)
    code = run(command)
    told = capsys.readouterr()
    check_refusal((code, told.out, told.err), 6, "E-OUTPUT-FULL", "E-OUTPUT-WRITE")
    finished = {name: (disk.folder / name).read_bytes() for name in disk.names() if ".mp4" in name}
    assert not [name for name in finished if "/work/" in name]
    disk.clear()
    assert run(command) == 0
    assert all((disk.folder / name).read_bytes() == data for name, data in finished.items())
    videos = sorted(path.name for path in (disk.folder / "out").glob("*.mp4"))
    assert videos == ["r0.mp4", "r1.mp4", "r2.mp4"]


def test_batch(disk, tmp_path):
    """At any room the ledger stays readable, and with room the same command ends the work."""
    sys.path.insert(0, str(Path(__file__).parent / "batch"))
    from batch_fakes import Bench
    from inline_engine import InlineEngine

    from joyflash_cli.errors import JoyFlashError

    @dataclasses.dataclass
    class OnDisk(Bench):
        @property
        def out(self) -> Path:
            return disk.folder / self.folder.name

    told = []
    for pages in range(14):
        bench = OnDisk(tmp_path / f"run{pages}")
        for number in range(3):
            bench.add(f"r{number}")
        disk.leave(pages)
        try:
            bench.run(InlineEngine(bench.loader()))
        except JoyFlashError as error:
            told.append(error)
        assert not bench.left_behind(), pages
        stray = [name for name in bench.files() if Path(name).name.startswith(".")]
        assert stray == []
        disk.clear()
        status = bench.run(InlineEngine(bench.loader()))
        assert (status.num_done, status.num_failed) == (3, 0)
        settled = [line["output"] for line in bench.ledger if line["state"] == "done"]
        assert sorted(settled) == ["r0.mp4", "r1.mp4", "r2.mp4"]
        assert bench.left_behind() == []
    assert len(told) >= 4
    assert {error.exit_code for error in told} == {6}
    codes = {error.code for error in told}
    assert codes <= {"E-OUTPUT-FULL", "E-OUTPUT-WRITE", "E-OUTPUT-FOLDER"}
    assert not any("\n" in str(error) for error in told)
