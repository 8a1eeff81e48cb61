"""Ways to spoil a valid input: its bytes, its chunks, or the values that it holds."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

NUMBERS = (
    0, 1, -1, 2, 3, 7, 16, 255, 256, 65535, 65536, 10**5, 10**6, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
    2**53, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63), 0.0, -0.5, 1e-30, 1e308, float("inf"),
    float("nan"),
)  # fmt: skip
TEXTS = (
    "", " ", "a", "..", "../x", "/etc/passwd", "a\x00b", "\x1b[31mred", "\u202egpj", "\ud800", "ä",
    "𝔸", "a" * 300, "a" * 5000, "=1+1", "-y", "\n", "C:\\x", "http://localhost:9/x", "none", "nan",
    "1e999", "0x10", "true",
)  # fmt: skip


def mutate_bytes(data: bytes, chance: random.Random, tokens: Sequence[bytes] = ()) -> bytes:
    """One to four small accidents."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        data = _spoil(data, chance, tokens)
    return data


def _spoil(data: bytes, chance: random.Random, tokens: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(data) + 1)
    length = min(chance.choice((1, 1, 2, 4, 8, 16, 100, 1000)), len(data) - at)
    kind = chance.randrange(9)
    if kind == 0 and at < len(data):
        return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + chance.randbytes(max(1, length)) + data[at + length :]
    if kind == 2:
        return data[:at] + chance.randbytes(chance.choice((1, 2, 4, 30))) + data[at:]
    if kind == 3:
        return data[:at] + data[at + length :]
    if kind == 4:
        return data[:at] + data[at : at + length] * chance.choice((2, 3, 50)) + data[at + length :]
    if kind == 5:
        return data[:at]
    if kind == 6:
        other = chance.randrange(len(data) + 1)
        return data[:at] + data[other : other + length] + data[at:]
    if kind == 7 and tokens:
        return data[:at] + chance.choice(tokens) + data[at + chance.choice((0, length)) :]
    size = chance.choice((1, 2, 4, 8))
    number = int(chance.choice(NUMBERS[:26])) & (1 << 8 * size) - 1
    order: Any = chance.choice(("little", "big"))
    return data[:at] + number.to_bytes(size, order) + data[at + size :]


def mutate_tree(value: Any, chance: random.Random, words: Sequence[str] = ()) -> Any:
    """A tree of tables, lists and values with one to three nodes changed."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        value = _spoil_tree(value, chance, words)
    return value


def _spoil_tree(value: Any, chance: random.Random, words: Sequence[str]) -> Any:
    if isinstance(value, dict) and value and chance.random() < 0.9:
        changed = dict(value)
        key = chance.choice(list(changed))
        kind = chance.randrange(8)
        if kind == 0:
            del changed[key]
        elif kind == 1:
            changed[chance.choice((*words, *TEXTS))] = changed.pop(key)
        elif kind == 2:
            changed[chance.choice((*words, *TEXTS))] = any_value(chance)
        elif kind == 3:
            changed[key] = changed[chance.choice(list(changed))]
        else:
            changed[key] = _spoil_tree(changed[key], chance, words)
        return changed
    if isinstance(value, list) and value and chance.random() < 0.9:
        items = list(value)
        at = chance.randrange(len(items))
        kind = chance.randrange(5)
        if kind == 0:
            del items[at]
        elif kind == 1:
            items[at:at] = [any_value(chance)] * chance.choice((1, 2, 100))
        else:
            items[at] = _spoil_tree(items[at], chance, words)
        return items
    if isinstance(value, bool) or chance.random() < 0.3:
        return any_value(chance)
    if isinstance(value, int):
        return chance.choice((value + 1, value - 1, -value, value * 2, value * 10**6, *NUMBERS))
    if isinstance(value, float):
        return chance.choice((-value, value * 1e6, *NUMBERS))
    if isinstance(value, str) and words and chance.random() < 0.5:
        return chance.choice(list(words))
    return any_value(chance)


def any_value(chance: random.Random) -> Any:
    """A value of any kind."""
    options = (*NUMBERS, *TEXTS, None, True, False, [], {}, [[]], [1, 2, 3], {"a": 1}, ["a"] * 50)
    return chance.choice(options)


def mutate_json(data: bytes, chance: random.Random, words: Sequence[str] = ()) -> bytes:
    """A JSON text with its values changed, or its bytes where it is none (any more)."""
    if chance.random() < 0.25:
        return mutate_bytes(data, chance, (b"[" * 50_000, b'{"a":' * 20_000, b"NaN", b"1e999"))
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, chance)
    return json.dumps(mutate_tree(value, chance, words)).encode()


def mutate_riff(data: bytes, chance: random.Random, kinds: Sequence[bytes]) -> bytes:
    """A RIFF file (WAV, WebP) with a chunk changed, moved, lost or lying about its size."""
    if len(data) < 20 or data[:4] not in (b"RIFF", b"RF64") or chance.random() < 0.2:
        return mutate_bytes(data, chance, kinds)
    chunks = []
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        chunks.append([data[at : at + 4], data[at + 4 : at + 8], data[at + 8 : at + 8 + size]])
        at += 8 + size + size % 2
    head = bytearray(data[:12])
    if chance.random() < 0.2:
        head[4:8] = _size(chance)
    chunk = chance.choice(chunks) if chunks else [b"data", b"\0\0\0\0", b""]
    kind = chance.randrange(7)
    if kind == 0:
        chunk[1] = _size(chance)
    elif kind == 1:
        chunk[0] = chance.choice(list(kinds))
    elif kind == 2 and chunks:
        chunks.remove(chunk)
    elif kind == 3:
        chunks.insert(chance.randrange(len(chunks) + 1), list(chunk))
    elif kind == 4:
        chance.shuffle(chunks)
    else:
        body = mutate_bytes(chunk[2], chance, kinds)
        chunk[1:] = [len(body).to_bytes(4, "little"), body]
    parts = (name + size + body + b"\0" * (len(body) % 2) for name, size, body in chunks)
    return bytes(head) + b"".join(parts)


def _size(chance: random.Random) -> bytes:
    sizes = (0, 1, 3, 15, 2**16, 2**26, 2**27, 2**31 - 1, 2**31, 0x7FFFF000, 2**32 - 1, 2**32 - 8)
    return chance.choice((*sizes, chance.randrange(200))).to_bytes(4, "little")


def mutate_png(data: bytes, chance: random.Random) -> bytes:
    """A PNG with a chunk changed, its checksum true again; packed data is changed unpacked."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or chance.random() < 0.2:
        return mutate_bytes(data, chance)
    chunks = []
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    if not chunks:
        return mutate_bytes(data, chance)
    at = chance.randrange(len(chunks))
    name, body = chunks[at]
    kind = chance.randrange(6)
    if kind == 0:
        del chunks[at]
    elif kind == 1:
        chunks.insert(chance.randrange(len(chunks) + 1), (name, body))
    elif kind == 2 and name == b"IHDR" and len(body) >= 13:
        sides = (0, 1, 31, 32, 100, 9_999, 10_000, 60_000, 2**31 - 1, 2**31)
        width, height = chance.choice(sides), chance.choice(sides)
        rest = bytes(chance.choice((0, 1, 2, 3, 4, 6, 8, 16, 255)) for _ in range(5))
        chunks[at] = (name, struct.pack(">II", width, height) + chance.choice((rest, body[8:])))
    elif kind == 3 and name == b"IDAT":
        chunks[at] = (name, _repacked(body, chance))
    elif kind == 4:
        names = (b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"iTXt", b"eXIf", b"acTL", b"fcTL",
                 b"gAMA", b"cHRM", b"IEND", b"fdAT")  # fmt: skip
        chunks.insert(at, (chance.choice(names), mutate_bytes(body, chance)))
    else:
        chunks[at] = (name, mutate_bytes(body, chance))
    return data[:8] + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_chunk(name: bytes, body: bytes) -> bytes:
    """A chunk with its size and checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _repacked(body: bytes, chance: random.Random) -> bytes:
    try:
        return zlib.compress(mutate_bytes(zlib.decompress(body), chance))
    except zlib.error:
        return mutate_bytes(body, chance)


def mutate_jpeg(data: bytes, chance: random.Random) -> bytes:
    """A JPEG with one of its segments changed, moved or lost."""
    if data[:2] != b"\xff\xd8" or chance.random() < 0.2:
        return mutate_bytes(data, chance)
    segments = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        segments.append(data[at : at + 2 + size])
        at += 2 + size
    rest = data[at:]
    if not segments or chance.random() < 0.2:
        return b"\xff\xd8" + b"".join(segments) + mutate_bytes(rest, chance)
    at = chance.randrange(len(segments))
    kind = chance.randrange(4)
    if kind == 0:
        del segments[at]
    elif kind == 1:
        segments.insert(chance.randrange(len(segments)), segments[at])
    elif kind == 2:
        body = mutate_bytes(segments[at][4:], chance)[:65_533]
        segments[at] = segments[at][:2] + (len(body) + 2).to_bytes(2, "big") + body
    else:
        segments[at] = mutate_bytes(segments[at], chance)
    return b"\xff\xd8" + b"".join(segments) + rest
