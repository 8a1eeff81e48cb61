"""Sound in: any file PyAV decodes, or WAV on a pipe, to samples and to what the model hears."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from joyflash_cli.media.inputs.audio_decoding import (
    SILENCE_PEAK,
    empty_sound,
    opened_sound_file,
)
from joyflash_cli.media.inputs.hearing import Hearing
from joyflash_cli.media.inputs.sound_opening import hear
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ, AudioClip, SoundFormat

if TYPE_CHECKING:
    import av


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
        return _read_whole(source, "standard input")
    path = Path(source)
    with opened_sound_file(path) as file:
        return _read_whole(file, path.name or str(path))


def to_model_waveform(clip: AudioClip) -> np.ndarray:
    """What the audio encoders hear: mono, 16 kHz.

    Args:
        clip: Sound at its own rate; channels are averaged, see ``Downmix``.

    Returns:
        ``(max(1, round(n * 16000 / rate)),)`` float32; sample i lies at i / 16000 s.
    """
    if clip.sample_rate_hz == MODEL_SAMPLE_RATE_HZ and clip.samples.shape[1] == 1:
        return clip.samples[:, 0]  # long sound is not held twice
    resampler = ModelResampler(clip.sample_rate_hz)
    starts = range(0, len(clip.samples), _FRAME_SAMPLES)
    parts = [resampler.push(clip.samples[start : start + _FRAME_SAMPLES]) for start in starts]
    return np.concatenate([*parts, resampler.finish()])


def is_silent(clip: AudioClip) -> bool:
    """Whether no sample reaches -60 dB of full scale."""
    return bool(np.abs(clip.samples).max(initial=0.0) < SILENCE_PEAK)


def write_wav(path: Path, clip: AudioClip) -> None:
    """Writes the samples unchanged as 32-bit float WAV (RF64 beyond 4 GB).

    Raises:
        OSError: If it cannot be written.
    """
    with contextlib.closing(
        WavWriter(path, SoundFormat(clip.sample_rate_hz, clip.samples.shape[1]))
    ) as writer:
        for start in range(0, len(clip.samples), _FRAME_SAMPLES):
            writer.write(clip.samples[start : start + _FRAME_SAMPLES])


def sound_frame(
    samples: np.ndarray, rate_hz: int, first: int, *, planar: bool = False
) -> av.AudioFrame:
    """PyAV's frame of samples ``(n, channels)`` float32.

    Args:
        samples: At least one.
        rate_hz: Samples per second.
        first: Index of its first sample in the sound.
        planar: Whether channels lie behind each other, as AAC wants them.
    """
    import av

    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples.T if planar else samples.reshape(1, -1)),
        format="fltp" if planar else "flt",
        layout=CHANNEL_LAYOUTS[samples.shape[1]],
    )
    frame.sample_rate = rate_hz
    frame.pts = first
    frame.time_base = Fraction(1, rate_hz)
    return frame


class WavWriter:
    """A WAV file of 32-bit float samples, written piece by piece (RF64 beyond 4 GB).

    Args:
        path: The file.
        sound: Rate and channels.

    Raises:
        OSError: From every method, if it cannot be written.
    """

    def __init__(self, path: Path, sound: SoundFormat) -> None:
        import av

        self._format = sound
        self._num_samples = 0
        self._container = av.open(
            str(Path(path).absolute()), mode="w", format="wav", options={"rf64": "auto"}
        )
        self._stream = self._container.add_stream(
            "pcm_f32le", rate=sound.sample_rate_hz, layout=CHANNEL_LAYOUTS[sound.channels]
        )

    def write(self, samples: np.ndarray) -> None:
        """Appends ``(n, channels)`` float32."""
        if len(samples):
            frame = sound_frame(samples, self._format.sample_rate_hz, self._num_samples)
            self._num_samples += len(samples)
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Completes the header."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


class ModelResampler:
    """Sound as it arrives to what the audio encoders hear: mono, 16 kHz.

    However the sound is cut into pieces, the same samples come out (libswresample's sinc filter).

    Args:
        rate_hz: Of the sound.
        target_hz: Of what comes out, where that is for others to hear.
    """

    def __init__(self, rate_hz: int, target_hz: int = MODEL_SAMPLE_RATE_HZ) -> None:
        import av

        self._rate_hz = rate_hz
        self._target_hz = target_hz
        self._downmix = Downmix(rate_hz)
        self._num_in = 0
        self._num_out = 0
        self._resampler = None
        if rate_hz != target_hz:
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=target_hz)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """What the next samples ``(n, channels)`` give, ``(m,)``; a little stays inside."""
        return self._resampled(self._downmix.push(samples))

    def _resampled(self, piece: np.ndarray) -> np.ndarray:
        if self._resampler is None or not len(piece):
            self._num_in += len(piece)
            self._num_out += len(piece)
            return piece
        frame = sound_frame(piece[:, None], self._rate_hz, self._num_in)
        self._num_in += len(piece)
        return self._joined(self._resampler.resample(frame))

    def finish(self) -> np.ndarray:
        """What was left inside: in all ``max(1, round(n * target / rate))`` samples come out."""
        rest = self._resampled(self._downmix.finish())
        if self._resampler is not None and self._num_in:
            rest = np.concatenate([rest, self._joined(self._resampler.resample(None))])
        total = max(1, round(self._num_in * self._target_hz / self._rate_hz))
        before = self._num_out - len(rest)
        kept = rest[: max(0, total - before)]
        return np.pad(kept, (0, max(0, total - before - len(kept))))

    def _joined(self, frames: list[av.AudioFrame]) -> np.ndarray:
        parts = [frame.to_ndarray()[0] for frame in frames]
        joined = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        self._num_out += len(joined)
        return joined


def _read_whole(file: BinaryIO, name: str) -> AudioClip:
    sound = hear(file if file.seekable() else None, file.read, Hearing(name))
    channels, num_samples = sound.format.channels, 0
    samples = np.empty((0, channels), np.float32)
    for part in sound.pieces:
        if num_samples + len(part) > len(samples):
            # Grown in place (the system remaps the pages), so that a long sound is held once.
            length = max(len(samples) * 3 // 2, _FRAME_SAMPLES, num_samples + len(part))
            samples.resize((length, channels), refcheck=False)
        samples[num_samples : num_samples + len(part)] = part
        num_samples += len(part)
    if num_samples == 0:
        raise empty_sound(name)
    samples.resize((num_samples, channels), refcheck=False)
    return AudioClip(samples, sound.format.sample_rate_hz)


_BLOCKS_PER_S = 50
_KEPT_ENERGY = 0.9
"""Of the energy so far that counts after a block: the last fifth of a second decides."""

_CANCELLED = 0.1
"""Share of the loudest channel's energy below which the mean has lost the sound, -10 dB. Opposite
phases leave nothing; two channels with one of them silent still leave a quarter."""

_RESTORED = 0.2
_LOUDER = 2.0


class Downmix:
    """The mean of the channels or, where they cancel each other, the loudest of them.

    Decided block by block, so that the same comes out however the sound is cut into pieces; what
    is decided anew is faded in over a block.

    Args:
        rate_hz: Samples per second.
    """

    def __init__(self, rate_hz: int) -> None:
        self._block = max(1, rate_hz // _BLOCKS_PER_S)
        self._rest: np.ndarray | None = None
        self._energy: np.ndarray | None = None
        self._heard: int | None = None
        self._has_begun = False

    def push(self, samples: np.ndarray) -> np.ndarray:
        """``(m,)`` float32 of the next ``(n, channels)``; less than a block stays inside."""
        if samples.shape[1] == 1:
            return samples[:, 0]
        if self._rest is not None and len(self._rest):
            samples = np.concatenate([self._rest, samples])
        whole = len(samples) - len(samples) % self._block
        self._rest = samples[whole:].copy()
        return self._mixed(samples[:whole])

    def finish(self) -> np.ndarray:
        """What was left inside."""
        rest, self._rest = self._rest, None
        return np.zeros(0, np.float32) if rest is None else self._mixed(rest)

    def _mixed(self, samples: np.ndarray) -> np.ndarray:
        mean: np.ndarray = samples.mean(axis=1, dtype=np.float32)
        for start in range(0, len(samples), self._block):
            part = slice(start, start + self._block)
            before, is_first = self._heard, not self._has_begun
            self._has_begun = True
            self._heard = self._decide(samples[part], mean[part])
            if before is None and self._heard is None:
                continue
            wanted = samples[part, self._heard] if self._heard is not None else mean[part].copy()
            if before != self._heard and not is_first:
                left = samples[part, before] if before is not None else mean[part].copy()
                share = np.linspace(0, 1, len(wanted), dtype=np.float32)
                wanted = left + (wanted - left) * share
            mean[part] = wanted
        return mean

    def _decide(self, samples: np.ndarray, mean: np.ndarray) -> int | None:
        """The channel that is heard from here on; ``None`` for the mean of all."""
        block = np.array([*np.einsum("ij,ij->j", samples, samples), mean @ mean], np.float64)
        self._energy = block if self._energy is None else self._energy * _KEPT_ENERGY + block
        channels, of_mean = self._energy[:-1], self._energy[-1]
        loudest = int(channels.argmax())
        if of_mean >= channels[loudest] * (_CANCELLED if self._heard is None else _RESTORED):
            return None
        if self._heard is not None and channels[loudest] < _LOUDER * channels[self._heard]:
            return self._heard
        return loudest
