"""Fuzzes WAV: as a file, and on a pipe that gives it in pieces of any size; both must agree.

The first byte of an input decides the pieces.
"""

import hashlib
import io
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from drive import main
from mutations import mutate_riff
from oracle import Oracle, Violation

from joyflash_cli.errors import AudioError
from joyflash_cli.media.inputs.sound import LiveSound, OpenSound, check_sound_file

MAX_BYTES = 8_192
PIECES = (1, 7, 64, 1000, 65_536, 65_536, 65_536)
CHUNKS = (b"fmt ", b"data", b"LIST", b"ds64", b"fact", b"JUNK", b"RIFF", b"RF64", b"WAVE", b"pad ",
          b"cue ", b"id3 ", b"\x00\x00\x00\x00")  # fmt: skip
_GUID = bytes.fromhex("000000001000800000aa00389b71")


def wav(tag: int, bits: int, channels: int = 1, *, data: bytes) -> bytes:
    """A WAV file of samples in some format, 8000 of them a second."""
    rate = 8000
    align = channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * align, align, bits)
    if tag == 0xFFFE:
        form += struct.pack("<HHI", 22, bits, 0) + struct.pack("<H", 1) + _GUID
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks


def seeds() -> list[bytes]:
    """One of each format, and headers that are odd but usual."""
    tone = (np.sin(np.arange(400) / 5) * 20_000).astype("<i2").tobytes()
    plain = wav(1, 16, data=tone)
    floats = np.array([0.5, -0.5, 2.0, 1e-40], "<f4").tobytes() * 20
    endless = plain[:40] + b"\xff\xff\xff\xff" + plain[44:]
    sizes = struct.pack("<IQQQI", 28, 900, 800, 400, 0)
    found = [
        plain,
        wav(1, 8, data=tone),
        wav(1, 24, channels=2, data=tone[:600]),
        wav(1, 32, data=tone),
        wav(3, 32, data=floats),
        wav(3, 64, data=np.linspace(-1, 1, 50).astype("<f8").tobytes()),
        wav(0xFFFE, 16, channels=6, data=tone[:600]),
        wav(6, 8, data=tone),  # A-law
        wav(2, 4, data=bytes(256)),  # ADPCM
        plain[:40] + bytes(4) + plain[44:],
        endless,
        plain + plain,
        plain + b"LIST" + struct.pack("<I", 4) + b"INFO",
        plain[:12] + b"pad " + struct.pack("<I", 2000) + bytes(2000) + plain[12:],
        b"RF64\xff\xff\xff\xffWAVEds64" + sizes + endless[12:],
        wav(3, 32, data=np.array([0.1, np.nan], "<f4").tobytes()),
    ]
    return [bytes([number % 7]) + data for number, data in enumerate(found)]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Chunks and their sizes; sometimes the pieces."""
    first = bytes([chance.randrange(7)]) if chance.random() < 0.1 else data[:1]
    return first + mutate_riff(data[1:], chance, CHUNKS)


class Pipe(io.BytesIO):
    """A pipe that gives a few bytes at a time."""

    def __init__(self, data: bytes, piece: int) -> None:
        super().__init__(data)
        self._piece = piece

    def read(self, size: int | None = -1) -> bytes:
        wanted = self._piece if size is None or size < 0 else min(size, self._piece)
        return super().read(wanted)

    def seekable(self) -> bool:
        return False


def check(data: bytes, folder: Path, oracle: Oracle) -> None:
    """File and pipe: the same samples, or the same refusal."""
    piece, body = PIECES[data[0] % 7] if data else 1, data[1:]
    path = folder / "talk.wav"
    path.write_bytes(body)
    with oracle.armed():
        live = _outcome(lambda: LiveSound(Pipe(body, piece)).open())
        try:
            sound = check_sound_file(path)
        except AudioError as error:
            if is_plain(body) and live != error.code:
                raise Violation(f"file {error.code}, pipe {live}") from error
            raise
        heard = _outcome(sound.open)
        if isinstance(heard, str) or heard[0] != sound.num_samples:
            raise Violation(f"checked, then heard otherwise ({type(heard).__name__})")
        if is_plain(body) and live != heard:
            raise Violation(f"file and pipe differ ({type(live).__name__})")


def is_plain(body: bytes) -> bool:
    """Whether these are plain samples, which are read without any library."""
    from joyflash_cli.media.inputs.wav import ByteFeed, read_wav_header, starts_like_wav

    feed = ByteFeed(io.BytesIO(body).read)
    try:
        return starts_like_wav(body[:12]) and read_wav_header(feed, "x") is not None
    except AudioError:
        return True


def _outcome(opened) -> tuple[int, str] | str:
    """Number and digest of the samples, or the code of the refusal."""
    try:
        return _count(opened())
    except AudioError as error:
        return error.code


def _count(sound: OpenSound) -> tuple[int, str]:
    digest, count = hashlib.sha256(), 0
    for samples in checked(sound):
        digest.update(samples.tobytes())
        count += len(samples)
    if count == 0:
        raise AudioError("no samples", code="E-AUDIO-EMPTY")
    return count, digest.hexdigest()


def checked(sound: OpenSound) -> Iterator[np.ndarray]:
    """The pieces of a sound, each of the form that was promised."""
    for samples in sound.pieces:
        if samples.dtype != np.float32 or samples.shape[1:] != (sound.format.channels,):
            raise Violation(f"samples of {samples.dtype} and shape {samples.shape[1:]}")
        if not (np.abs(samples) <= 1.0).all():
            raise Violation("samples beyond full scale")
        yield samples


if __name__ == "__main__":
    main("wav")
