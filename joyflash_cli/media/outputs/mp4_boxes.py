"""The boxes of an MP4: its index brought to the front, and a fragment that was cut off dropped.

Only a finished file knows its index, so libavformat puts it at the end; with it in front, a player
on a network begins at once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_OF_A_FILM = (
    (b"mdia", b"hdlr"), (b"mdia", b"mdhd"), (b"mdia", b"minf", b"stbl", b"stts"),
    (b"edts", b"elst"), (b"tkhd",),
)  # fmt: skip
_MOST_BOXES = 10_000_000
_MAX_INDEX_BYTES = 1 << 30
_PIECE_BYTES = 1 << 22
_MAX_32_BIT = 0xFFFF_FFFF


def write_fast_start(source: Path, target: Path) -> bool:
    """Writes an MP4 again, its index in front.

    Nothing else changes but the places of the samples that the index names, and the length of a
    film whose last picture was encoded before its neighbour: see ``_show_to_the_end``.

    Args:
        source: A finished file.
        target: Where the other one goes; on the disk when this returns.

    Returns:
        Whether it was written: not where the index is in front already, or cannot be found.

    Raises:
        OSError: If a file cannot be read or written.
    """
    with source.open("rb") as file:
        places: dict[bytes, tuple[int, int]] = {}
        for kind, start, length in _boxes(file):
            places.setdefault(kind, (start, length))
        if not {b"ftyp", b"moov", b"mdat"} <= places.keys():
            return False
        index_start, index_length = places[b"moov"]
        if index_start < places[b"mdat"][0] or index_length > _MAX_INDEX_BYTES:
            return False
        file.seek(index_start)
        index = _show_to_the_end(file.read(index_length))
        head_end = sum(places[b"ftyp"])
        # Places beyond 4 GB take twice the room, and with it the index itself.
        wide = index_start + 2 * index_length > _MAX_32_BIT
        shift = len(_moved(index, 0, wide=wide))
        file.seek(0)
        head = file.read(head_end)
        with target.open("wb") as written:
            written.write(head + _moved(index, shift, wide=wide))
            left = index_start - head_end
            while left > 0:
                piece = file.read(min(left, _PIECE_BYTES))
                if not piece:
                    raise OSError("the file ended early")
                left -= written.write(piece)
            file.seek(index_start + index_length)
            shutil.copyfileobj(file, written, _PIECE_BYTES)
            written.flush()
            os.fsync(written.fileno())
    return True


def drop_cut_fragment(path: Path) -> None:
    """Shortens a fragmented MP4 to its last whole fragment; leaves any other file alone.

    A write that failed half-way leaves half a fragment, and with it pictures that do not decode.

    Raises:
        OSError: If the file cannot be read or shortened.
    """
    whole, in_fragment = None, False
    with path.open("rb") as file:
        for kind, start, length in _boxes(file):
            in_fragment = in_fragment or kind == b"moof"
            if kind == b"mdat" and in_fragment:
                whole, in_fragment = start + length, False
    if whole is not None and whole < path.stat().st_size:
        os.truncate(path, whole)


def boxes_that_begin(
    file: BinaryIO, kind: bytes, beginning: bytes, *, most_bytes: int
) -> Iterator[bytes]:
    """What follows the beginning in every whole outer box of a kind that has it.

    Args:
        file: Perhaps no MP4 at all.
        kind: Four letters.
        beginning: Such as the identity of a ``uuid`` box.
        most_bytes: Longer boxes are left out.
    """
    for found, start, length in _boxes(file):
        if found != kind or length > most_bytes:
            continue
        file.seek(start)
        content = file.read(length)
        head = 16 if content[:4] == b"\0\0\0\1" else 8
        if content.startswith(beginning, head):
            yield content[head + len(beginning) :]


def find_contents(data: bytes, *path: bytes) -> bytes:
    """The contents of the first box at the end of a path in another's contents, or nothing."""
    place = _find(data, 0, len(data), *path)
    return b"" if place is None else data[place + 8 : place + _number(data, place)]


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and length of the whole boxes of a file."""
    size = os.fstat(file.fileno()).st_size
    position = 0
    for _ in range(_MOST_BOXES):
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            return
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or position + length > size:
            return
        yield kind, position, length
        position += length


def _show_to_the_end(index: bytes) -> bytes:
    """The index, with every film's edit list as long as its pictures.

    libavformat takes the end of the packet written last for the end of the film. Where the last
    picture of all was encoded before its neighbour that is one picture too early, and players
    leave it out.
    """
    fixed = bytearray(index)
    header = _find(index, 8, len(index), b"mvhd")
    if header is None or index[header + 8]:  # lengths of 64 bits: hours beyond any video
        return index
    movie_rate = _number(index, header + 20)
    for start, end in _inside(index, 8, len(index), b"trak"):
        boxes = [_find(index, start, end, *path) for path in _OF_A_FILM]
        handler, media, times, edits, track = (-1 if box is None else box for box in boxes)
        if min(handler, media, times, edits, track) < 0:
            continue
        is_film = index[handler + 16 : handler + 20] == b"vide"
        is_wide = any(index[box + 8] for box in (media, edits, track))
        if not is_film or is_wide or _number(index, edits + 12) != 1:
            continue
        rows = range(times + 16, times + 16 + 8 * _number(index, times + 12), 8)
        length = sum(_number(index, row) * _number(index, row + 4) for row in rows)
        shown = -(-length * movie_rate // _number(index, media + 20))
        for place in (edits + 16, track + 28, header + 24):
            longer = max(shown, _number(fixed, place))
            fixed[place : place + 4] = longer.to_bytes(4, "big")
    return bytes(fixed)


def _number(data: bytes | bytearray, place: int) -> int:
    return int.from_bytes(data[place : place + 4], "big")


def _inside(data: bytes, start: int, end: int, kind: bytes) -> Iterator[tuple[int, int]]:
    """Where the contents of boxes of a kind begin and end."""
    while start + 8 <= end:
        length = _number(data, start)
        if length < 8:
            return
        if data[start + 4 : start + 8] == kind:
            yield start + 8, start + length
        start += length


def _find(data: bytes, start: int, end: int, *path: bytes) -> int | None:
    """Where the first box at the end of a path begins, or ``None``."""
    for inner, stop in _inside(data, start, end, path[0]):
        return inner - 8 if len(path) == 1 else _find(data, inner, stop, *path[1:])
    return None


def _moved(box: bytes, shift: int, *, wide: bool) -> bytes:
    """An index box whose samples lie ``shift`` bytes further on."""
    kind = box[4:8]
    if kind in _CONTAINERS:
        inner, position = [], 8
        while position < len(box):
            length = int.from_bytes(box[position : position + 4], "big")
            if length < 8:
                raise OSError(f"box {kind!r} of the index is damaged")
            inner.append(_moved(box[position : position + length], shift, wide=wide))
            position += length
        return _box(kind, b"".join(inner))
    if kind not in (b"stco", b"co64"):
        return box
    places = np.frombuffer(box[16:], ">u4" if kind == b"stco" else ">u8").astype(np.uint64) + shift
    if kind == b"co64" or wide:
        return _box(b"co64", box[8:16] + places.astype(">u8").tobytes())
    return _box(b"stco", box[8:16] + places.astype(">u4").tobytes())


def _box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content
