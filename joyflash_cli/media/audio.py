"""Sound in: any file PyAV decodes, or WAV on a pipe, to samples and to what the model hears."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from joyflash_cli.errors import AudioError
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ, AudioClip

if TYPE_CHECKING:
    import av

AUDIO_FORMATS = "wav,w64,aiff,caf,au,mp3,flac,ogg,aac,matroska,webm,mov,mp4,m4a"
"""Containers that may be opened.

A closed list, because playlists (``ffconcat``, ``m3u8``) hidden in a file called ``talk.wav`` would
make libavformat open *other* files and addresses.
"""

MIN_SAMPLE_RATE_HZ = 2_000
MAX_SAMPLE_RATE_HZ = 384_000
MAX_CHANNELS = 8
CHANNEL_LAYOUTS = {
    1: "mono",
    2: "stereo",
    3: "3.0",
    4: "quad",
    5: "5.0",
    6: "5.1",
    7: "6.1",
    8: "7.1",
}
"""What a number of channels is taken for: clips carry the number only."""

MAX_DURATION_S = 24 * 3600
"""Longest sound that is read whole; a day at 48 kHz stereo is already 33 GB of samples."""

SILENCE_PEAK = 1e-3
"""Peak below which a clip counts as silent: -60 dB of full scale."""

_FRAME_SAMPLES = 1 << 16


def read_audio(source: Path | BinaryIO) -> AudioClip:
    """The samples of a file or of an open binary stream, at the sound's own rate.

    Sizes in a WAV header are not trusted when they are 0, 0xFFFFFFFF or beyond the end: programs
    that write to a pipe cannot know them. An incomplete last sample is dropped. Values outside
    -1..1 (float files) are clipped, as any player does.

    Args:
        source: A path, always a plain local file however it is spelled, or a binary stream such
            as ``sys.stdin.buffer``, which is read to its end and left open.

    Returns:
        ``(n, channels)`` float32 with n >= 1.

    Raises:
        AudioError: ``E-AUDIO-MISSING`` no such file, ``E-AUDIO-FORMAT`` not a supported sound
            file, ``E-AUDIO-STREAM`` no audio track, ``E-AUDIO-EMPTY`` no samples,
            ``E-AUDIO-RATE`` impossible sample rate, ``E-AUDIO-NAN`` a sample is not a number,
            ``E-AUDIO-DAMAGED`` a hole in the middle, ``E-AUDIO-LENGTH`` more than a day.
    """
    if not isinstance(source, str | Path):
        return _read_stream(source, "standard input")
    path = Path(source)
    name = path.name or str(path)
    try:
        # Opening it here keeps addresses and protocol prefixes (http:, concat:) away from
        # libavformat: they are only names of files that do not exist.
        with path.open("rb") as file:
            return _read_stream(file, name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudioError(
            f"{source}: no such file",
            hint="give the path of a local sound file, or - for WAV on standard input",
            code="E-AUDIO-MISSING",
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise AudioError(
            f"{source} cannot be read: {reason}",
            hint="give the path of a readable sound file",
            code="E-AUDIO-MISSING",
        ) from error


def to_model_waveform(clip: AudioClip) -> np.ndarray:
    """What the audio encoders hear: mono, 16 kHz.

    Args:
        clip: Sound at its own rate; channels are averaged.

    Returns:
        ``(max(1, round(n * 16000 / rate)),)`` float32; sample i lies at i / 16000 s.
    """
    samples, rate_hz = clip.samples, clip.sample_rate_hz
    if rate_hz == MODEL_SAMPLE_RATE_HZ:
        return _mono(samples)
    # Filled piece by piece: long sound must not be held several times.
    num_samples = max(1, round(len(samples) * MODEL_SAMPLE_RATE_HZ / rate_hz))
    waveform = np.zeros(num_samples, np.float32)
    filled = 0
    for piece in _resampled_pieces(samples, rate_hz, MODEL_SAMPLE_RATE_HZ):
        kept = piece[: num_samples - filled]
        waveform[filled : filled + len(kept)] = kept
        filled += len(kept)
    return waveform


def is_silent(clip: AudioClip) -> bool:
    """Whether no sample reaches -60 dB of full scale."""
    return bool(np.abs(clip.samples).max(initial=0.0) < SILENCE_PEAK)


def write_wav(path: Path, clip: AudioClip) -> None:
    """Writes the samples unchanged as 32-bit float WAV (RF64 beyond 4 GB).

    Raises:
        OSError: If it cannot be written.
    """
    import av

    rate_hz, channels = clip.sample_rate_hz, clip.samples.shape[1]
    options = {"rf64": "auto"}
    with av.open(str(Path(path).absolute()), mode="w", format="wav", options=options) as container:
        layout = CHANNEL_LAYOUTS[channels]
        stream = container.add_stream("pcm_f32le", rate=rate_hz, layout=layout)
        for start in range(0, len(clip.samples), _FRAME_SAMPLES):
            piece = np.ascontiguousarray(clip.samples[start : start + _FRAME_SAMPLES])
            frame = av.AudioFrame.from_ndarray(piece.reshape(1, -1), format="flt", layout=layout)
            frame.sample_rate = rate_hz
            frame.pts = start
            frame.time_base = Fraction(1, rate_hz)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _mono(samples: np.ndarray) -> np.ndarray:
    """Mean of the channels, ``(n,)`` float32; a view where there is one channel."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    return samples.mean(axis=1, dtype=np.float32)


def _resampled_pieces(samples: np.ndarray, from_hz: int, to_hz: int) -> Iterator[np.ndarray]:
    """The mono mean at another rate, starting at the same instant (libswresample's sinc)."""
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=to_hz)
    for start in range(0, len(samples), _FRAME_SAMPLES):
        piece = np.ascontiguousarray(_mono(samples[start : start + _FRAME_SAMPLES]))
        frame = av.AudioFrame.from_ndarray(piece[None], format="flt", layout="mono")
        frame.sample_rate = from_hz
        frame.pts = start
        frame.time_base = Fraction(1, from_hz)
        yield from (out.to_ndarray()[0] for out in resampler.resample(frame))
    yield from (out.to_ndarray()[0] for out in resampler.resample(None))


class _Counted:
    """Only ``read`` of a stream, so that it counts as a pipe, and how much came out of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.num_bytes = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.num_bytes += len(data)
        return data


def _read_stream(file: BinaryIO, name: str) -> AudioClip:
    import av

    pipe = None if file.seekable() else _Counted(file)
    options = {"format_whitelist": AUDIO_FORMATS}
    try:
        container = av.open(pipe or file, mode="r", options=options)
    except (av.error.FFmpegError, ValueError) as error:
        if _is_empty(file) if pipe is None else pipe.num_bytes == 0:
            raise _empty(name) from error
        raise AudioError(
            f"{name} is not a sound file that can be read",
            hint="convert it to WAV, FLAC, MP3, Ogg, M4A or WebM",
            code="E-AUDIO-FORMAT",
        ) from error
    with container:
        if not container.streams.audio:
            raise AudioError(
                f"{name} has no audio track",
                hint="give a file with sound",
                code="E-AUDIO-STREAM",
            )
        return _decode(container, container.streams.audio[0], name)


def _decode(container: Any, stream: Any, name: str) -> AudioClip:
    rate_hz = _checked_rate(stream, name)
    samples = np.empty((0, int(stream.codec_context.channels)), np.float32)
    num_samples = 0
    for frame in _decoded_frames(container, stream, rate_hz, name):
        part = _as_float(frame)
        if frame.sample_rate != rate_hz or part.shape[1] != samples.shape[1]:
            raise AudioError(
                f"{name} changes its sample rate or channels at {num_samples / rate_hz:.2f} s",
                hint="convert it to a plain WAV",
                code="E-AUDIO-FORMAT",
            )
        _check_finite(part, num_samples, rate_hz, name)
        if num_samples + len(part) > len(samples):
            # Grown in place (the system remaps the pages), so that a long sound is held once.
            samples.resize(
                (
                    max(len(samples) * 3 // 2, _FRAME_SAMPLES, num_samples + len(part)),
                    samples.shape[1],
                ),
                refcheck=False,
            )
        np.clip(part, -1.0, 1.0, out=samples[num_samples : num_samples + len(part)])
        num_samples += len(part)
        if num_samples > MAX_DURATION_S * rate_hz:
            raise AudioError(
                f"{name} is longer than {MAX_DURATION_S // 3600} hours",
                hint="split it",
                code="E-AUDIO-LENGTH",
            )
    if num_samples == 0:
        raise _empty(name)
    samples.resize((num_samples, samples.shape[1]), refcheck=False)
    return AudioClip(samples, rate_hz)


def _checked_rate(stream: Any, name: str) -> int:
    if stream.codec_context is None:
        raise AudioError(
            f"{name} uses a sound codec that is not known",
            hint="convert it to WAV",
            code="E-AUDIO-FORMAT",
        )
    rate_hz = int(stream.codec_context.sample_rate or 0)
    if not MIN_SAMPLE_RATE_HZ <= rate_hz <= MAX_SAMPLE_RATE_HZ:
        raise AudioError(
            f"{name} says {rate_hz} samples a second; {MIN_SAMPLE_RATE_HZ} to "
            f"{MAX_SAMPLE_RATE_HZ} are possible",
            hint="write the file again with its true sample rate",
            code="E-AUDIO-RATE",
        )
    channels = int(stream.codec_context.channels or 0)
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(
            f"{name} says {channels} channels; 1 to {MAX_CHANNELS} are possible",
            hint="convert it to mono or stereo",
            code="E-AUDIO-FORMAT",
        )
    return rate_hz


def _decoded_frames(
    container: Any, stream: Any, rate_hz: int, name: str
) -> Iterator[av.AudioFrame]:
    """Frames of the track; undecodable packets are tolerated only before and after the sound.

    A broken first packet is usual in cut MP3, a broken last one in any cut file (and is how the
    odd last byte of a WAV shows). Skipping one in the middle would shift all that follows.
    """
    import av

    num_samples = 0
    num_failed = 0
    failed_at_s: float | None = None
    packets = iter(container.demux(stream))
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            return  # a cut file: what was read so far is the sound
        if packet is None:
            break
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            num_failed += 1
            if num_samples:
                failed_at_s = num_samples / rate_hz
            continue
        for frame in frames:
            if failed_at_s is not None:
                raise AudioError(
                    f"{name} is damaged at {failed_at_s:.2f} s",
                    hint="export it again, or convert it to WAV",
                    code="E-AUDIO-DAMAGED",
                )
            num_samples += frame.samples
            yield frame
    if num_failed and not num_samples:
        raise AudioError(
            f"{name} cannot be decoded ({num_failed} packets, none good)",
            hint="export it again, or convert it to WAV",
            code="E-AUDIO-DAMAGED",
        )


def _as_float(frame: av.AudioFrame) -> np.ndarray:
    """``(n, channels)`` float32 of one decoded frame, integers scaled to -1..1."""
    array: np.ndarray = frame.to_ndarray()
    channels = frame.layout.nb_channels
    samples = array.T if frame.format.is_planar else array.reshape(-1, channels)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(samples.dtype, np.integer):
        scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
        return (samples / scale).astype(np.float32)
    return samples.astype(np.float32)


def _check_finite(part: np.ndarray, first: int, rate_hz: int, name: str) -> None:
    finite = np.isfinite(part).all(axis=1)
    if finite.all():
        return
    at_s = (first + int(np.argmin(finite))) / rate_hz
    raise AudioError(
        f"{name} has a sample that is not a number at {at_s:.3f} s",
        hint="export it again as 16-bit WAV",
        code="E-AUDIO-NAN",
    )


def _empty(name: str) -> AudioError:
    return AudioError(
        f"{name} has no samples",
        hint="check the program that wrote it",
        code="E-AUDIO-EMPTY",
    )


def _is_empty(file: BinaryIO) -> bool:
    """Whether a file that could not be opened holds no byte at all."""
    file.seek(0)
    return not file.read(1)
