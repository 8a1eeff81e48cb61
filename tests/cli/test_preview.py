"""The live preview: what a terminal is sent, and the picture beside the video."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from joyflash_cli.cli.events import EventStream
from joyflash_cli.cli.preview import (
    MAX_THUMBNAILS,
    ROWS,
    FilePreview,
    TerminalPreview,
    cell_rows,
    open_preview,
    terminal_pictures,
)
from joyflash_cli.cli.progress import Display, RenderProgress
from joyflash_cli.media.outputs.names import preview_path
from joyflash_cli.types import FrameChunk


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def frame(level: int = 100, size: int = 48) -> np.ndarray:
    return np.full((size, size, 3), level, np.uint8)


def chunk(index: int, level: int = 100) -> FrameChunk:
    frames = np.repeat(frame(level)[None], 12, axis=0)
    return FrameChunk(index, 100, frames, first_frame=12 * index, elapsed_s=0.5 * (index + 1))


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM_PROGRAM": "WezTerm", "COLORTERM": "truecolor"}, "iterm"),
        ({"TERM": "xterm-kitty", "TMUX": "x", "COLORTERM": "truecolor"}, "cells"),
        ({"TERM": "screen", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "cells"),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-kitty", "NO_COLOR": "1"}, None),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, None),
    ],
)
def test_which_pictures_a_terminal_shows(environment, kind):
    assert terminal_pictures(environment) == kind


def test_cells_show_two_pixels_each():
    picture = np.zeros((2 * ROWS, 3, 3), np.uint8)
    picture[0, 0] = (1, 2, 3)
    picture[1, 0] = (4, 5, 6)
    rows = cell_rows([picture, picture])
    assert len(rows) == ROWS
    assert rows[0].startswith("\x1b[38;2;1;2;3;48;2;4;5;6m▀")
    assert rows[0].count("▀") == 6


def test_the_strip_stays_in_its_lines_and_columns():
    stream = Terminal()
    shown = TerminalPreview(stream, "cells", columns=80)
    preview = RenderProgress(1200, 25.0, shown, EventStream())
    with shown:
        preview.loading("tiny")
        for index in range(6):
            preview.update(chunk(index, level=10 * index))
    text = stream.getvalue()
    assert text.startswith("\n" * ROWS)
    assert text.endswith("\r\x1b[K")
    drawn = text.split(f"\x1b[{ROWS}A")[-1]
    first_row = drawn.split("\n")[0]
    assert first_row.count("▀") == 3 * 2 * ROWS  # three squares of 24 cells and a gap fit into 80
    assert "38;2;50;50;50" in first_row  # the latest block is there, the first has gone
    assert "38;2;0;0;0" not in first_row
    assert drawn.count("\n") == ROWS
    assert "block 6/100" in drawn


@pytest.mark.parametrize("kind", ["kitty", "iterm"])
def test_picture_protocols_carry_a_png(kind):
    stream = Terminal()
    with TerminalPreview(stream, kind, columns=80) as preview:
        preview.show_frame(frame(level=77))
    if kind == "kitty":
        pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", stream.getvalue())
        assert f"r={ROWS}" in pieces[0][0]
        assert pieces[-1][0].endswith("m=0")
        assert all(head.endswith("m=1") for head, _ in pieces[:-1])
        assert max(len(data) for _, data in pieces) <= 4096
        data = "".join(data for _, data in pieces)
    else:
        data = re.search(r"\x1b\]1337;[^:]*:([^\a]*)\a", stream.getvalue()).group(1)
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.height == 192
        assert picture.getpixel((5, 5)) == (77, 77, 77)


def test_the_file_covers_the_whole_video_and_is_written_now_and_then(tmp_path):
    seconds = iter(np.arange(0, 1000, 0.5))
    path = tmp_path / "a.preview.png"
    with FilePreview(Display(), path, clock=lambda: next(seconds)) as preview:
        preview.show_frame(frame())
        first = path.stat().st_mtime_ns
        preview.show_frame(frame())
        assert path.stat().st_mtime_ns == first
        for index in range(2, 100):
            preview.show_frame(frame(level=index))
    assert [p.name for p in tmp_path.iterdir()] == ["a.preview.png"]
    with Image.open(path) as picture:
        rows = round((picture.height - 2) / 130)
        assert (picture.width - 2) / 130 == 8
        assert 1 < rows <= MAX_THUMBNAILS / 8
        assert picture.getpixel((10, 10)) == (100, 100, 100)


def test_a_preview_that_cannot_be_written_is_no_reason_to_stop(tmp_path):
    with FilePreview(Display(), tmp_path / "gone" / "a.png") as preview:
        preview.show_frame(frame())
    assert list(tmp_path.iterdir()) == []


def test_what_is_opened(monkeypatch, tmp_path):
    output = tmp_path / "a.mp4"
    monkeypatch.setenv("TERM", "xterm-kitty")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("TMUX", raising=False)
    opened = {
        name: type(open_preview(output, quiet=quiet, stream=stream))
        for name, quiet, stream in (
            ("terminal", False, Terminal()),
            ("quiet", True, Terminal()),
            ("log", False, io.StringIO()),
        )
    }
    assert opened == {"terminal": TerminalPreview, "quiet": FilePreview, "log": FilePreview}
    assert preview_path(output) == tmp_path / "a.preview.png"
    assert preview_path(Path("-")) == Path("joyflash.preview.png")
    assert preview_path(Path("f-%05d.png")) == Path("f-05d.preview.png")
