"""WAV files written by hand, header by header, and a stream that cannot be rewound."""

import io
import struct

import av
import numpy as np


def wav_bytes(
    data: bytes,
    *,
    rate_hz: int = 16_000,
    channels: int = 1,
    bits: int = 16,
    format_tag: int = 1,
    stated_size: int | None = None,
    before_data: bytes = b"",
) -> bytes:
    """A RIFF file whose stated size may lie."""
    size = len(data) if stated_size is None else stated_size
    align = channels * bits // 8
    header = struct.pack(
        "<IHHIIHH",
        16,
        format_tag,
        channels,
        rate_hz,
        (rate_hz * align) & 0xFFFFFFFF,
        align,
        bits,
    )
    riff = struct.pack("<I", (36 + size) & 0xFFFFFFFF)
    return (
        b"RIFF" + riff + b"WAVEfmt " + header + before_data + b"data"
        + struct.pack("<I", size) + data
    )  # fmt: skip


def ramp_pcm16(num_samples: int = 16_000) -> tuple[np.ndarray, bytes]:
    """Samples that differ from their neighbours, so that a shift would show, and their bytes."""
    samples = ((np.arange(num_samples) * 37) % 20_011 - 10_000).astype("<i2")
    return samples, samples.tobytes()


class PipeStream(io.RawIOBase):
    """Bytes that arrive in small reads and cannot be rewound, like standard input."""

    def __init__(self, data: bytes, largest_read: int = 5_000) -> None:
        self._rest = io.BytesIO(data)
        self._largest_read = largest_read

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        wanted = self._largest_read if size < 0 else min(size, self._largest_read)
        return self._rest.read(wanted)


def decoded_by_libav(data: bytes) -> np.ndarray:
    """``(n, channels)`` float32 of a sound file, past the project's own reading."""
    with av.open(io.BytesIO(data)) as container:
        channels = container.streams.audio[0].codec_context.channels
        resampler = av.AudioResampler(format="flt")
        frames = [*container.decode(audio=0), None]
        parts = [out.to_ndarray() for frame in frames for out in resampler.resample(frame)]
    return np.concatenate(parts, axis=1).reshape(-1, channels)
