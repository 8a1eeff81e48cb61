"""``render --preview``: a live strip of thumbnails in the terminal, or a picture beside the video.

Where the terminal shows pictures (Kitty's or iTerm's protocol) they are used; where it has 24-bit
colour each character cell shows two pixels. Elsewhere ``NAME.preview.png`` is kept up to date.
"""

import base64
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TextIO, Unpack

from joyflash_cli.cli.progress import Display, Standing, open_display

if TYPE_CHECKING:
    import numpy as np

Pictures = Literal["kitty", "iterm", "cells"]

ROWS = 12
"""Lines of the strip in a terminal; a character cell is about twice as tall as wide."""

PICTURE_HEIGHT_PX = 192
FILE_HEIGHT_PX = 128
FILE_COLUMNS = 8
MAX_THUMBNAILS = 24
"""A picture file thins its thumbnails out beyond this, so that it covers the whole video."""

FILE_EVERY_S = 2.0
_KITTY_PIECE = 4096
_KITTY_ID = 7106


def open_preview(output: Path, *, quiet: bool, stream: TextIO | None = None) -> Display:
    """The preview that suits the stream; it stands in for the progress bar.

    Args:
        output: The video; a picture file goes beside it.
        quiet: Nothing is written to the stream; the picture file is.
        stream: Standard error if ``None``.
    """
    from joyflash_cli.media.outputs.names import preview_path

    stream = stream or sys.stderr
    pictures = shown_in(stream, quiet=quiet)
    if pictures is not None:
        return TerminalPreview(stream, pictures)
    return FilePreview(open_display("render", quiet=quiet, stream=stream), preview_path(output))


def shown_in(stream: TextIO, *, quiet: bool) -> "Pictures | None":
    """How a stream shows pictures; ``None`` where a picture file is kept instead."""
    return None if quiet or not stream.isatty() else terminal_pictures(os.environ)


def terminal_pictures(environment: Mapping[str, str]) -> Pictures | None:
    """How a terminal shows pictures, by what it says of itself; ``None`` if it does not."""
    if environment.get("TERM") == "dumb" or environment.get("NO_COLOR"):
        return None
    program = environment.get("TERM_PROGRAM", "")
    # A multiplexer in between swallows or misplaces the picture protocols.
    if not environment.get("TMUX") and "screen" not in environment.get("TERM", ""):
        kitty = "KITTY_WINDOW_ID" in environment or "kitty" in environment.get("TERM", "")
        if kitty or program == "ghostty":
            return "kitty"
        if program in ("iTerm.app", "WezTerm"):
            return "iterm"
    return "cells" if environment.get("COLORTERM") in ("truecolor", "24bit") else None


class TerminalPreview(Display):
    """The latest blocks as a strip in the terminal, with one line of progress below.

    Args:
        stream: The terminal.
        kind: How it shows pictures.
        columns: Its width in cells; asked for if ``None``.
    """

    def __init__(self, stream: TextIO, kind: Pictures, *, columns: int | None = None) -> None:
        self._stream = stream
        self._kind = kind
        self._columns = columns or shutil.get_terminal_size().columns
        self._strip: list[np.ndarray] = []

    def __enter__(self) -> Self:
        # The lines are made now, so that drawing into them never scrolls the terminal.
        self._write("\n" * ROWS)
        return self

    def __exit__(self, *_: object) -> None:
        self._write("\r\x1b[K")

    def show(self, text: str, **standing: Unpack[Standing]) -> None:
        """Says so below the strip."""
        self._write(f"\r\x1b[K{text[: self._columns - 1]}")

    def show_frame(self, frame: "np.ndarray") -> None:
        """Adds a thumbnail and draws the strip again."""
        import numpy as np

        from joyflash_cli.media.sheet import resized

        height = 2 * ROWS if self._kind == "cells" else PICTURE_HEIGHT_PX
        thumbnail = resized(frame, height_px=height)
        # ROWS lines are 2 * ROWS cells wide for a square picture, whatever its pixels.
        width_cells = max(1, round(2 * ROWS * thumbnail.shape[1] / thumbnail.shape[0])) + 1
        self._strip.append(thumbnail)
        del self._strip[: -max(1, (self._columns - 1) // width_cells)]
        above = f"\r\x1b[{ROWS}A"
        if self._kind == "cells":
            # Every row ends in a line feed, so the cursor is back on the progress line.
            self._write(above + "".join(row + "\n" for row in cell_rows(self._strip)))
            return
        draw = kitty_picture if self._kind == "kitty" else iterm_picture
        picture = draw(np.concatenate(self._strip, axis=1))
        self._write(f"{above}\x1b7{picture}\x1b8\x1b[{ROWS}B")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class FilePreview(Display):
    """Thumbnails of the whole video so far in one picture file, and the usual progress.

    Args:
        inner: Shows the progress.
        path: The picture; replaced as a whole each time.
        clock: Seconds that only grow.
    """

    def __init__(
        self, inner: Display, path: Path, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._inner = inner
        self._path = path
        self._clock = clock
        self._next_s = clock()
        self._thumbnails: list[np.ndarray] = []
        self._stride = 1
        self._num_blocks = 0

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(self, *arguments: object) -> None:
        self._write()
        self._inner.__exit__(*arguments)

    def show(self, text: str, **standing: Unpack[Standing]) -> None:
        """Passed on."""
        self._inner.show(text, **standing)

    def show_frame(self, frame: "np.ndarray") -> None:
        """Adds a thumbnail; writes the picture every two seconds at most."""
        from joyflash_cli.media.sheet import resized

        if self._num_blocks % self._stride == 0:
            self._thumbnails.append(resized(frame, height_px=FILE_HEIGHT_PX))
            if len(self._thumbnails) > MAX_THUMBNAILS:
                self._thumbnails = self._thumbnails[::2]
                self._stride *= 2
        self._num_blocks += 1
        if self._clock() >= self._next_s:
            self._next_s = self._clock() + FILE_EVERY_S
            self._write()

    def _write(self) -> None:
        from joyflash_cli.files import write_whole
        from joyflash_cli.media.sheet import picture_bytes, tile

        if not self._thumbnails:
            return
        starts = range(0, len(self._thumbnails), FILE_COLUMNS)
        sheet = tile([self._thumbnails[start : start + FILE_COLUMNS] for start in starts])
        # A preview that cannot be written is no reason to lose the video.
        with contextlib.suppress(OSError):
            write_whole(self._path, picture_bytes(sheet))


def cell_rows(strip: list["np.ndarray"]) -> list[str]:
    """A strip as lines of coloured half blocks, each cell two pixels, one above the other.

    Args:
        strip: Pictures ``(2 * ROWS, w, 3)`` uint8.
    """
    rows = []
    for row in range(ROWS):
        cells = []
        for picture in strip:
            for upper, lower in zip(picture[2 * row], picture[2 * row + 1], strict=True):
                fore, back = (";".join(map(str, colour)) for colour in (upper, lower))
                cells.append(f"\x1b[38;2;{fore};48;2;{back}m▀")
            cells.append("\x1b[0m ")
        rows.append("".join(cells) + "\x1b[K")
    return rows


def kitty_picture(pixels: "np.ndarray") -> str:
    """A picture in Kitty's graphics protocol, ``ROWS`` lines tall, in place of the one before."""
    data = _png(pixels)
    pieces = [data[i : i + _KITTY_PIECE] for i in range(0, len(data), _KITTY_PIECE)]
    first = f"a=T,f=100,q=2,i={_KITTY_ID},p=1,r={ROWS},C=1,"
    return "".join(
        f"\x1b_G{first if i == 0 else ''}m={int(i + 1 < len(pieces))};{piece}\x1b\\"
        for i, piece in enumerate(pieces)
    )


def iterm_picture(pixels: "np.ndarray") -> str:
    """A picture in iTerm's inline image protocol, ``ROWS`` lines tall."""
    return f"\x1b]1337;File=inline=1;height={ROWS};preserveAspectRatio=1:{_png(pixels)}\a"


def _png(pixels: "np.ndarray") -> str:
    from joyflash_cli.media.sheet import picture_bytes

    return base64.b64encode(picture_bytes(pixels)).decode("ascii")
