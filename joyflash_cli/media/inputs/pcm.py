"""Plain samples without a header: their formats, as ffmpeg names them, and their numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from joyflash_cli.errors import UsageError
from joyflash_cli.media.inputs.audio_decoding import (
    MAX_CHANNELS,
    MAX_SAMPLE_RATE_HZ,
    MIN_SAMPLE_RATE_HZ,
)

ENCODINGS = {
    # name: bytes of a sample, numpy's type of it
    "u8": (1, "u1"),
    "s16le": (2, "<i2"),
    "s16be": (2, ">i2"),
    "s24le": (3, "<i4"),
    "s32le": (4, "<i4"),
    "s32be": (4, ">i4"),
    "f32le": (4, "<f4"),
    "f32be": (4, ">f4"),
    "f64le": (8, "<f8"),
}
"""Sample formats, named as ffmpeg names them."""


@dataclass(frozen=True)
class PcmFormat:
    """Plain samples, channel after channel.

    Attributes:
        encoding: A key of ``ENCODINGS``.
        sample_rate_hz: Samples per second and channel.
        channels: Channels.
    """

    encoding: str
    sample_rate_hz: int
    channels: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return ENCODINGS[self.encoding][0] * self.channels

    @property
    def is_float(self) -> bool:
        """Whether samples may be no numbers, or beyond full scale."""
        return self.encoding.startswith("f")

    def decode(self, data: bytes) -> np.ndarray:
        """``(n, channels)`` float32 of whole sample frames; integers are scaled to -1..1."""
        size, kind = ENCODINGS[self.encoding]
        if self.encoding == "s24le":
            raw = np.frombuffer(data, np.uint8).reshape(-1, 3)
            wide = np.zeros((len(raw), 4), np.uint8)
            wide[:, 1:] = raw
            values = wide.view("<i4")[:, 0]
        else:
            values = np.frombuffer(data, kind)
        if self.encoding == "u8":
            samples = (values.astype(np.float32) - 128.0) / 128.0
        elif self.is_float:
            # A double beyond float32's range is clipped like any other loud sample.
            with np.errstate(over="ignore"):
                samples = values.astype(np.float32)
        else:
            bits = 32 if size == 3 else 8 * size
            samples = (values / 2.0 ** (bits - 1)).astype(np.float32)
        return samples.reshape(-1, self.channels)


def parse_pcm_format(text: str) -> PcmFormat:
    """The format that ``ENCODING:RATE`` or ``ENCODING:RATE:CHANNELS`` describes.

    Raises:
        UsageError: ``E-AUDIO-FORMAT-OPTION``, naming what is wrong.
    """
    encoding, *numbers = text.strip().lower().split(":")
    problem = ""
    if encoding not in ENCODINGS:
        problem = f"{encoding or 'nothing'} is no sample format; {', '.join(ENCODINGS)} are"
    elif len(numbers) not in (1, 2) or not all(n.isascii() and n.isdigit() for n in numbers):
        problem = "a sample rate is needed, and channels if there is more than one"
    elif not MIN_SAMPLE_RATE_HZ <= int(numbers[0]) <= MAX_SAMPLE_RATE_HZ:
        problem = f"{MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} samples a second are possible"
    elif len(numbers) == 2 and not 1 <= int(numbers[1]) <= MAX_CHANNELS:
        problem = f"1 to {MAX_CHANNELS} channels are possible"
    if problem:
        raise UsageError(
            f"audio format {text!r}: {problem}",
            hint="for example s16le:16000 or f32le:44100:2",
            code="E-AUDIO-FORMAT-OPTION",
        )
    return PcmFormat(encoding, int(numbers[0]), int(numbers[1]) if len(numbers) == 2 else 1)
