import shlex
import sys

import pytest

from joyflash_cli.errors import OutputError
from joyflash_cli.media.outputs import ffmpeg
from joyflash_cli.media.outputs.ffmpeg import ffmpeg_program
from joyflash_cli.media.outputs.writer import open_muxer

from .videos import decode_frames, fake_program, names, noise_frames, tone


@pytest.mark.parametrize(
    "script",
    [
        "echo first >&2; echo the last line >&2; exit 7",
        "cat > /dev/null; echo first >&2; echo the last line >&2; exit 7",
    ],
)
def test_failing_program_is_an_error_with_its_last_line(tmp_path, monkeypatch, script):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", fake_program(tmp_path, script))
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(OutputError, match="ended with 7: the last line") as caught:  # noqa: PT012
        muxer = open_muxer(folder / "a.mkv", size=(64, 48), fps=25, audio=tone(1.0))
        with muxer:
            for _ in range(100):
                muxer.write(noise_frames(25))
            muxer.finish()
    assert caught.value.code == "E-OUTPUT-FFMPEG"
    assert names(folder) == []


def test_program_that_lies_about_success(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", fake_program(tmp_path, "cat > /dev/null; exit 0"))
    folder = tmp_path / "out"
    folder.mkdir()
    with open_muxer(folder / "a.mkv", size=(64, 48), fps=25) as muxer:
        muxer.write(noise_frames(2))
        with pytest.raises(OutputError) as caught:
            muxer.finish()
    assert caught.value.code == "E-OUTPUT-UNREADABLE"
    assert names(folder) == []


def test_program_that_cannot_start(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/no/ffmpeg")
    with pytest.raises(OutputError):
        open_muxer(tmp_path / "a.mkv", size=(64, 48), fps=25, audio=tone(1.0))
    assert names(tmp_path) == []


def test_program_is_found_by_its_variable(tmp_path, monkeypatch):
    program = fake_program(tmp_path, "exit 0")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", program)
    assert ffmpeg.ffmpeg_program() == program
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert ffmpeg.ffmpeg_program() == program
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ffmpeg.ffmpeg_program() == program
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(OutputError, match="no ffmpeg"):
        ffmpeg.ffmpeg_program()


def test_full_disk_keeps_the_playable_part(tmp_path, monkeypatch):
    # The shell's file limit stands for a full disk; ignoring the signal turns it into an error.
    limited = f"trap '' XFSZ; ulimit -f 400; exec {shlex.quote(ffmpeg_program())} \"$@\""
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", fake_program(tmp_path, limited))
    folder = tmp_path / "out"
    folder.mkdir()
    muxer = open_muxer(folder / "a.mkv", size=(64, 48), fps=25)
    with muxer, pytest.raises(OutputError) as caught:  # noqa: PT012
        for _ in range(10):
            muxer.write(noise_frames(25))
        muxer.finish()
    assert caught.value.code == "E-OUTPUT-FULL"
    assert "the file system takes no larger file" in str(caught.value)
    assert names(folder) == ["a.partial.mkv"]
    assert len(decode_frames(folder / "a.partial.mkv")[0]) >= 25
