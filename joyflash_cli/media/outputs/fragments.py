"""The boxes of a fragmented MP4 that was cut off: how much of it is whole."""

from __future__ import annotations

from pathlib import Path

_MOST_BOXES = 10_000_000


def drop_cut_fragment(path: Path) -> None:
    """Shortens a fragmented MP4 to its last whole fragment; leaves any other file alone.

    A write that failed half-way leaves half a fragment, and with it pictures that do not decode.

    Raises:
        OSError: If the file cannot be read or shortened.
    """
    size = path.stat().st_size
    whole = whole_fragments_bytes(path)
    if whole is not None and whole < size:
        with path.open("r+b") as file:
            file.truncate(whole)


def whole_fragments_bytes(path: Path) -> int | None:
    """Bytes up to the end of the last whole fragment; ``None`` where there is none."""
    size, position, whole = path.stat().st_size, 0, None
    in_fragment = False
    with path.open("rb") as file:
        for _ in range(_MOST_BOXES):
            file.seek(position)
            head = file.read(16)
            if len(head) < 8:
                break
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1 and len(head) == 16:
                length = int.from_bytes(head[8:16], "big")
            if length < 8 or position + length > size:
                break
            position += length
            in_fragment = in_fragment or kind == b"moof"
            if kind == b"mdat" and in_fragment:
                whole, in_fragment = position, False
    return whole
