"""Every name that a render writes is known before any work: nothing that is there is lost."""

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from programs import run_program

from joyflash_cli.cli.app import run
from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.render import JoyFlash, read_request
from joyflash_cli.render.record import read_sidecar

COMMAND = [sys.executable, "-c", "from joyflash_cli.cli.app import main; main()"]
NUM_FRAMES = 33


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def options(toy_checkpoint) -> list[str]:
    return ["--checkpoint", str(toy_checkpoint), "--device", "cpu", "--dtype", "float32", "-q"]


@pytest.fixture
def base(options, toy_picture, toy_voice) -> list[str]:
    return ["render", str(toy_picture), str(toy_voice), *options]


@pytest.fixture
def no_weights(monkeypatch) -> None:
    """Refusals come before any work."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(JoyFlash, "load", refuse)


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


TAKEN = [
    (output, name)
    for output, names in {
        "o.mp4": ["o.mp4", "o.mp4.json", "o.partial.mp4", "o.partial.mp4.json", ".o.part.mp4"],
        "o.m4v": [".o.part2.m4v", ".o.m4v.json.part"],
        "o.mkv": ["o.partial.mkv", ".o.part.mkv", "o.mkv.json"],
        "o.mov": ["o.partial.mov"],
        "o.webm": ["o.partial.webm"],
        "o.m3u8": ["o.m3u8", "o-init.mp4", "o-00004.m4s", "o-00004.m4s.tmp", "o.m3u8.json"],
        "o%.m3u8": ["o_-00001.m4s", "o_-init.mp4"],
        "o-%05d.png": ["o-00000.png", "o-00032.png", "o-99999.png", "o-123456.png", "o-sound.wav"],
        "o-%03d.webp": [".o-007.webp.part", "o-03d.webp.json"],
        "%d.jpg": ["12.jpg", "sound.wav"],
        "o%4d.jpeg": ["o   7.jpeg"],
    }.items()
    for name in names
]


@pytest.mark.parametrize(("output", "name"), TAKEN)
@pytest.mark.parametrize("also", [[], ["--dry-run"]])
def test_what_is_there_stays(base, here, no_weights, capsys, output, name, also):
    (here / name).write_bytes(b"precious")
    before = content(here)
    assert run([*base, "-o", output, *also]) == 6
    error = capsys.readouterr().err
    assert "E-OUTPUT-EXISTS" in error
    assert " ".join(name.split()) in error
    assert content(here) == before


@pytest.mark.parametrize(("output", "name"), TAKEN)
@pytest.mark.parametrize("how", ["name", "symbolic", "hard"])
def test_an_input_stays_whatever_is_asked(
    options, here, no_weights, capsys, toy_voice, toy_picture, output, name, how
):
    kept = here / name
    mine = kept if how == "name" else here / "mine"
    mine.write_bytes(toy_voice.read_bytes())
    if how == "symbolic":
        kept.symlink_to(mine)
    elif how == "hard":
        kept.hardlink_to(mine)
    before = content(here)
    command = ["render", str(toy_picture), str(mine), *options, "-o", output, "--overwrite"]
    assert run(command) == 6
    linked_part = name.startswith(".o.part.") and how == "symbolic"
    assert ("is a link" if linked_part else "E-OUTPUT-INPUT") in capsys.readouterr().err
    assert content(here) == before


def test_a_picture_stays_too(options, here, no_weights, capsys, toy_voice, toy_picture):
    for name, output in (("take-00007.png", "take-%05d.png"), ("o.mp4.json", "o.mp4")):
        (here / name).write_bytes(toy_picture.read_bytes())
        before = content(here)
        assert run(["render", name, str(toy_voice), *options, "-o", output, "--overwrite"]) == 6
        assert "E-OUTPUT-INPUT" in capsys.readouterr().err
        assert content(here) == before


def test_a_file_on_standard_input_stays(base, here, toy_voice):
    (here / "o-sound.wav").write_bytes(toy_voice.read_bytes())
    command = [*base, "--audio", "-", "-o", "o-%d.png", "--overwrite"]
    command.remove(str(toy_voice))
    with (here / "o-sound.wav").open("rb") as voice:
        done = run_program(command, stdin=voice, text=True)
    assert done.returncode == 6, done.stderr
    assert "E-OUTPUT-INPUT" in done.stderr
    assert content(here)["o-sound.wav"] == hashlib.sha256(toy_voice.read_bytes()).hexdigest()


@pytest.mark.parametrize("output", ["o.mp4", "o-%d.png", "-"])
def test_the_picture_of_a_preview_is_one_of_them(
    options, here, no_weights, capsys, toy_voice, toy_picture, output
):
    name = "joyflash.preview.png" if output == "-" else "o.preview.png"
    name = "o-d.preview.png" if output == "o-%d.png" else name
    (here / name).write_bytes(toy_picture.read_bytes())
    rest = [*options, "-o", output, "--preview"]
    if output == "-":
        done = run_program(["render", name, str(toy_voice), *rest, "--overwrite"], text=True)
        assert done.returncode == 6
        assert "E-OUTPUT-INPUT" in done.stderr
    else:
        assert run(["render", name, str(toy_voice), *rest, "--overwrite"]) == 6
        assert "E-OUTPUT-INPUT" in capsys.readouterr().err
        assert run(["render", str(toy_picture), str(toy_voice), *rest]) == 6
        assert "E-OUTPUT-EXISTS" in capsys.readouterr().err
    assert list(content(here)) == [name]


def test_a_call_is_guarded_as_the_command_is(here, toy_checkpoint, toy_picture, toy_voice):
    from joyflash_cli.errors import OutputError

    joyflash = JoyFlash.load("tiny", toy_checkpoint, device="cpu", dtype="fp32")
    (here / "take-007.png").write_bytes(toy_picture.read_bytes())
    (here / "o.partial.mp4").write_bytes(b"precious")
    before = content(here)
    request = read_request(joyflash.files, here / "take-007.png", toy_voice)
    for output, overwrite, code in (
        (here / "take-%03d.png", True, "E-OUTPUT-INPUT"),
        (here / "o.mp4", False, "E-OUTPUT-EXISTS"),
        (f"{here}/p.mp4/", True, "E-OUTPUT-FOLDER"),
    ):
        with pytest.raises(OutputError) as caught:
            joyflash.render(request, output, overwrite=overwrite)
        assert caught.value.code == code
    assert content(here) == before


@pytest.mark.parametrize("name", ["o.mp4.json", "o.partial.mp4", ".o.part.mp4"])
def test_a_folder_in_the_way_is_told_before_any_work(base, here, no_weights, capsys, name):
    (here / name).mkdir()
    assert run([*base, "-o", "o.mp4", "--overwrite"]) == 6
    assert f"{name} is a folder" in capsys.readouterr().err


def test_a_longer_sequence_leaves_nothing_behind(base, here):
    for number in (0, 7, 33, 34, 999):
        (here / f"o-{number:05d}.png").write_bytes(b"old")
    (here / "o-sound.wav").write_bytes(b"old")
    (here / "archive.wav").hardlink_to(here / "o-sound.wav")
    (here / "o-more.png").write_bytes(b"mine")
    assert run([*base, "-o", "o-%05d.png", "--overwrite"]) == 0
    frames = [f"o-{number:05d}.png" for number in range(NUM_FRAMES)]
    assert sorted(content(here)) == sorted(
        [*frames, "o-sound.wav", "o-05d.png.json", "o-more.png", "archive.wav"]
    )
    assert (here / "archive.wav").read_bytes() == b"old"


def test_a_percent_sign_has_its_own_record(base, here):
    for name in ("100.mp4", "100%.mp4"):
        assert run([*base, "-o", name]) == 0
    assert sorted(content(here)) == ["100%.mp4", "100%.mp4.json", "100.mp4", "100.mp4.json"]
    assert read_sidecar(Path("100%.mp4"))["output"] == "100%.mp4"


@pytest.mark.parametrize("output", ["o.mp4/", "o.mp4/.", "sub/", "./"])
def test_a_slash_makes_a_folder(base, here, no_weights, capsys, output):
    assert run([*base, "-o", output]) == 6
    assert "is a folder" in capsys.readouterr().err
    assert content(here) == {}


@pytest.mark.parametrize("output", ["link.mp4", "link.mkv"])
def test_a_link_is_followed(base, here, tmp_path, output):
    """The link stays, what it leads to is replaced, and whatever else is written lies beside it."""
    store = tmp_path / "store"
    store.mkdir()
    target = store / f"real{Path(output).suffix}"
    Path(output).symlink_to(os.path.relpath(target))
    assert run([*base, "-o", output]) == 0  # it leads to nothing yet
    target.write_bytes(b"old")
    assert run([*base, "-o", output]) == 6
    assert run([*base, "-o", output, "--overwrite"]) == 0
    assert Path(output).is_symlink()
    assert probe(target).num_frames == NUM_FRAMES
    assert sorted(content(store)) == [target.name, f"{target.name}.json"]
    assert os.listdir(here) == [output]
    assert read_sidecar(Path(output))["output"] == target.name


def test_links_that_lead_nowhere(base, here, no_weights, capsys):
    Path("a.mp4").symlink_to("b.mp4")
    Path("b.mp4").symlink_to("a.mp4")
    assert run([*base, "-o", "a.mp4", "--overwrite"]) == 6
    assert "leads to itself" in capsys.readouterr().err
    Path("c.mp4").symlink_to("gone/c.mp4")
    assert run([*base, "-o", "c.mp4", "--overwrite"]) == 6
    assert "E-OUTPUT-FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".m3u8", "-%05d.png"])
def test_names_that_are_too_long(base, here, no_weights, capsys, suffix):
    assert run([*base, "--dry-run", "-o", "x" * 220 + suffix]) == 0
    for length in (254, 255, 300):
        name = "é" * ((length - len(suffix)) // 2) + suffix
        assert run([*base, "-o", name]) == 6
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "space" not in error
    assert content(here) == {}


def test_a_long_name_is_written(base, here):
    name = "x" * 238 + ".mp4"
    assert run([*base, "-o", name]) == 0
    assert sorted(content(here)) == [name, f"{name}.json"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", "-%03d.png"])
def test_names_need_not_be_utf8(options, here, toy_picture, toy_voice, suffix):
    """Nor need folders and inputs; what is printed is the name itself."""
    folder = os.fsdecode(b"f\xe9")
    os.mkdir(folder)
    picture, voice = (os.path.join(folder, os.fsdecode(name)) for name in (b"p\xff", b"v\xfe.wav"))
    Path(picture).write_bytes(toy_picture.read_bytes())
    Path(voice).write_bytes(toy_voice.read_bytes())
    output = os.path.join(folder, os.fsdecode(b"o\xff") + suffix)
    for also in ([], ["--json", "--progress", "json", "--overwrite"]):
        done = run_program(["render", picture, voice, *options[:-1], "-o", output, *also])
        assert done.returncode == 0, done.stderr
        shown = done.stdout.rstrip(b"\n")
        if also:
            assert json.loads(shown)["output"] == output
        else:
            assert shown == os.fsencode(output)
        assert not [name for name in os.listdir(folder) if name.endswith(".part")]
    assert read_sidecar(Path(output))["image"] == os.path.basename(picture)
    if suffix != "-%03d.png":
        assert probe(Path(output)).num_frames == NUM_FRAMES


def test_a_playlist_must_be_utf8(base, here, no_weights, capsys):
    assert run([*base, "-o", os.fsdecode(b"o\xff.m3u8")]) == 6
    assert "is not UTF-8" in capsys.readouterr().err


def test_a_working_folder_that_is_gone(base, here):
    script = f'rmdir "{here}/gone"; exec "$@"'
    (here / "gone").mkdir()
    done = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, *base],
        cwd=here / "gone", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the working folder is gone" in done.stderr


@pytest.mark.parametrize("output", ["o.mp4", "o.mkv", "o-%d.png", "o.m3u8"])
def test_a_limit_on_file_size_is_no_full_disk(base, here, capsys, output):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
    try:
        code = run([*base, "-o", output])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    told = capsys.readouterr().err
    assert code == 6, told
    assert "disk is full" not in told
    assert "ulimit -f" in told


def test_a_record_does_not_say_where_a_user_lives(options, here, toy_picture, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    deep = here / "private" / "voices"
    deep.mkdir(parents=True)
    from joyflash_cli.media.inputs.audio import write_wav
    from joyflash_cli.types import AudioClip

    write_wav(deep / "still.wav", AudioClip(np.zeros((16_000, 1), np.float32), 16_000))
    with Image.open(toy_picture) as face:
        face.save(deep / "me.png")
    assert run(["render", str(deep / "me.png"), str(deep / "still.wav"), *options]) == 0
    text = Path("me-still.mp4.json").read_text()
    record = json.loads(text)
    assert (record["image"], record["audio"]) == ("me.png", "still.wav")
    assert record["image_sha256"] == hashlib.sha256((deep / "me.png").read_bytes()).hexdigest()
    assert str(here) not in text
    assert "private" not in text
