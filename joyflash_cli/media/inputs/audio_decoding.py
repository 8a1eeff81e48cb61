"""Sound files opened and decoded piece by piece, with every check that a sound must pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from joyflash_cli.errors import AudioError
from joyflash_cli.media.inputs.compressed import Hole, SoundPadding
from joyflash_cli.media.inputs.hearing import (
    MAX_CHANNELS,
    MAX_SAMPLE_RATE_HZ,
    MIN_SAMPLE_RATE_HZ,
    Hearing,
    no_such_track,
)
from joyflash_cli.media.inputs.kinds import open_container, opened

if TYPE_CHECKING:
    import av

SILENCE_PEAK = 1e-3
"""Peak below which a sound counts as silent: -60 dB of full scale."""

MAX_DURATION_S = 24 * 3600
"""Longest sound that is read whole; a day at 48 kHz stereo is already 33 GB of samples."""


def opened_sound_file(source: Path | BinaryIO) -> contextlib.AbstractContextManager[BinaryIO]:
    """The file within a ``with`` statement; one that is open already stays so.

    Opening it here keeps addresses and protocol prefixes (``http:``, ``concat:``) away from
    libavformat: they are only names of files that do not exist.

    Raises:
        AudioError: ``E-AUDIO-MISSING`` if it cannot be opened or read.
    """
    return opened(
        source,
        AudioError,
        code="E-AUDIO-MISSING",
        missing="give the path of a local sound file, or - for WAV on standard input",
        unreadable="give the path of a readable sound file",
    )


@contextlib.contextmanager
def open_sound_track(file: BinaryIO, hearing: Hearing, **options: str) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and sound track of an open file or pipe, within a ``with`` statement.

    Of several tracks that is the one asked for; else the one marked as default, unless a file's is
    silent and another is not.

    Args:
        file: Read from where it stands.
        hearing: Has the choice, and is told what was chosen.
        options: For libavformat.

    Raises:
        AudioError: ``E-AUDIO-FORMAT`` or ``E-AUDIO-STREAM``.
    """
    from av.stream import Disposition

    name, wanted = hearing.name, hearing.choices.track
    with _opened_container(file, name, options) as container:
        num_tracks = len(container.streams.audio)
        if num_tracks == 0:
            raise AudioError(
                f"{name} has no audio track",
                hint="give a file with sound",
                code="E-AUDIO-STREAM",
            )
        if wanted is not None and not 0 <= wanted < num_tracks:
            raise no_such_track(name, num_tracks, wanted)
        usual = [track.disposition & Disposition.default for track in container.streams.audio]
        order = sorted(range(num_tracks), key=lambda index: not usual[index])
        if num_tracks == 1 or wanted is not None or not file.seekable():
            yield container, container.streams.audio[_chosen(hearing, order, order[0])]
            return
    # Looked for with the file closed: two containers would move its one position.
    loud = next((index for index in order if _is_loud(file, name, index)), order[0])
    file.seek(0)
    with _opened_container(file, name, options) as container:
        yield container, container.streams.audio[_chosen(hearing, order, loud)]


def _chosen(hearing: Hearing, order: list[int], found: int) -> int:
    """The track that is heard; says which where nobody asked for it."""
    if len(order) == 1:
        return 0
    wanted = hearing.choices.track
    hearing.track = found if wanted is None else wanted
    if wanted is None:
        why = "the default one" if found == order[0] else "the first that is not silent"
        hearing.notes.append(
            f"{hearing.name} has {len(order)} sound tracks, counted from 0; track {found}, {why}, "
            "is heard; --audio-track N takes another"
        )
    return hearing.track


def _is_loud(file: BinaryIO, name: str, index: int) -> bool:
    """Whether a track can be heard at all; one that cannot be decoded cannot."""
    file.seek(0)
    with _opened_container(file, name, {}) as container, contextlib.suppress(AudioError):
        stream = container.streams.audio[index]
        for piece in decoded_pieces(container, stream, Hearing(name)):
            if np.abs(piece).max(initial=0.0) >= SILENCE_PEAK:
                return True
    return False


@contextlib.contextmanager
def _opened_container(file: BinaryIO, name: str, options: dict[str, str]) -> Iterator[Any]:
    import av

    try:
        container = open_container(file, **options)
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioError(
            f"{name} is not a sound file that can be read",
            hint="convert it to WAV, FLAC, MP3, Ogg, M4A or WebM; samples without a header need "
            "--audio-format, such as s16le:16000",
            code="E-AUDIO-FORMAT",
        ) from error
    with container:
        yield container


def decoded_pieces(container: Any, stream: Any, hearing: Hearing) -> Iterator[np.ndarray]:
    """The samples of a track as they are decoded, ``(n, channels)`` float32 in -1..1.

    Raises:
        AudioError: As ``read_audio``.
    """
    name = hearing.name
    rate_hz, channels = checked_rate(stream, name)
    padding = SoundPadding(container, stream, rate_hz)
    num_samples = 0
    for frame in _decoded_frames(container, stream, rate_hz, hearing, padding):
        if isinstance(frame, int):
            part = np.zeros((frame, channels), np.float32)
        else:
            part = _as_float(frame)
            if frame.sample_rate != rate_hz or part.shape[1] != channels:
                raise AudioError(
                    f"{name} changes its sample rate or channels at {num_samples / rate_hz:.2f} s",
                    hint="convert it to a plain WAV",
                    code="E-AUDIO-FORMAT",
                )
        part = padding.push(part)
        if len(part):
            yield checked_samples(part, num_samples, rate_hz, name)
        num_samples += len(part)
    rest = padding.finish()
    if rest is not None and len(rest):
        yield checked_samples(rest, num_samples, rate_hz, name)


def checked_samples(part: np.ndarray, first: int, rate_hz: int, name: str) -> np.ndarray:
    """Samples in -1..1, refused where one is no number or the sound is too long.

    Args:
        part: ``(n, channels)`` float32.
        first: Index of its first sample in the sound.
        rate_hz: Samples per second.
        name: For messages.

    Raises:
        AudioError: ``E-AUDIO-NAN`` or ``E-AUDIO-LENGTH``.
    """
    finite = np.isfinite(part).all(axis=1)
    if not finite.all():
        at_s = (first + int(np.argmin(finite))) / rate_hz
        raise AudioError(
            f"{name} has a sample that is not a number at {at_s:.3f} s",
            hint="export it again as 16-bit WAV",
            code="E-AUDIO-NAN",
        )
    if first + len(part) > MAX_DURATION_S * rate_hz:
        raise too_long(name)
    return np.clip(part, -1.0, 1.0)


def checked_rate(stream: Any, name: str) -> tuple[int, int]:
    """Sample rate and channels of a track.

    Raises:
        AudioError: ``E-AUDIO-RATE`` or ``E-AUDIO-FORMAT`` where they cannot be.
    """
    if stream.codec_context is None:
        raise AudioError(
            f"{name} uses a sound codec that is not known",
            hint="convert it to WAV",
            code="E-AUDIO-FORMAT",
        )
    rate_hz = int(stream.codec_context.sample_rate or 0)
    channels = int(stream.codec_context.channels or 0)
    check_sound_format(rate_hz, channels, name)
    return rate_hz, channels


def check_sound_format(rate_hz: int, channels: int, name: str) -> None:
    """Refuses what no sound has.

    Raises:
        AudioError: ``E-AUDIO-RATE`` or ``E-AUDIO-FORMAT``.
    """
    if not MIN_SAMPLE_RATE_HZ <= rate_hz <= MAX_SAMPLE_RATE_HZ:
        raise AudioError(
            f"{name} says {rate_hz} samples a second; {MIN_SAMPLE_RATE_HZ} to "
            f"{MAX_SAMPLE_RATE_HZ} are possible",
            hint="write the file again with its true sample rate",
            code="E-AUDIO-RATE",
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(
            f"{name} says {channels} channels; 1 to {MAX_CHANNELS} are possible",
            hint="convert it to mono or stereo",
            code="E-AUDIO-FORMAT",
        )


def _decoded_frames(
    container: Any, stream: Any, rate_hz: int, hearing: Hearing, padding: SoundPadding
) -> Iterator[av.AudioFrame | int]:
    """Frames of the track; undecodable packets are tolerated only before and after the sound.

    A broken first packet is usual in cut MP3, a broken last one in any cut file (and is how the
    odd last byte of a WAV shows). Leaving one out in the middle would shift all that follows: it
    is an error, or a number of silent samples where damage is to be skipped.
    """
    import av

    if stream.codec_context.name == "flac":  # else a frame with a wrong checksum plays as noise
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
    num_samples, num_failed, hole = 0, 0, Hole(container.format.name, rate_hz)
    packets = padding.watch(container.demux(stream))
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
                hole.grow(packet)
            continue
        if frames and hole.is_before(frames[0], num_samples):
            if not hearing.choices.skip_damaged:
                raise AudioError(
                    f"{hearing.name} is damaged at {num_samples / rate_hz:.2f} s",
                    hint="export it again, or give --skip-damaged to make such places silent",
                    code="E-AUDIO-DAMAGED",
                )
            lost = hole.close(frames[0], num_samples)
            hearing.skip(num_samples / rate_hz, lost / rate_hz)
            yield lost
            num_samples += lost
        for frame in frames:
            num_samples += frame.samples
            hole.pass_by(packet, frame)
            yield frame
    if num_failed and not num_samples:
        raise AudioError(
            f"{hearing.name} cannot be decoded ({num_failed} packets, none good)",
            hint="export it again, or convert it to WAV",
            code="E-AUDIO-DAMAGED",
        )


def _as_float(frame: av.AudioFrame) -> np.ndarray:
    """``(n, channels)`` float32 of one decoded frame, integers scaled to -1..1."""
    array: np.ndarray
    channels = frame.layout.nb_channels
    if frame.format.name in ("s64", "s64p"):  # PyAV has no word for them, which WAV may hold
        count = frame.samples * (1 if frame.format.is_planar else channels)
        planes = [np.frombuffer(bytes(plane), np.int64, count) for plane in frame.planes]
        array = np.vstack(planes)
    else:
        array = frame.to_ndarray()
    samples = array.T if frame.format.is_planar else array.reshape(-1, channels)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(samples.dtype, np.integer):
        scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
        return (samples / scale).astype(np.float32)
    return samples.astype(np.float32)


def empty_sound(name: str) -> AudioError:
    """The error for a sound without a single sample."""
    return AudioError(
        f"{name} has no samples",
        hint="check the program that wrote it",
        code="E-AUDIO-EMPTY",
    )


def too_long(name: str) -> AudioError:
    """The error for a sound beyond ``MAX_DURATION_S``."""
    return AudioError(
        f"{name} is longer than {MAX_DURATION_S // 3600} hours",
        hint="split it",
        code="E-AUDIO-LENGTH",
    )
