"""How a sound is to be heard, what plain samples mean, and what is learned about it on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from joyflash_cli.errors import AudioError, UsageError

if TYPE_CHECKING:
    import numpy as np

MIN_SAMPLE_RATE_HZ = 2_000
MAX_SAMPLE_RATE_HZ = 384_000
MAX_CHANNELS = 8

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
        import numpy as np

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


_SHOWN_PLACES = 5


@dataclass(frozen=True)
class SoundChoices:
    """How a sound is to be heard.

    Attributes:
        track: Which of several sound tracks, from 0; ``None`` for the one marked as default, or
            the first that is not silent.
        skip_damaged: Whether packets that cannot be decoded become silence, rather than an error.
        strict: Whether a sound that is cut off is refused.
    """

    track: int | None = None
    skip_damaged: bool = False
    strict: bool = False


class Hearing:
    """What is learned about a sound while it is heard; complete when the sound has ended.

    Args:
        name: Of the sound, for messages.
        choices: How it is to be heard.
    """

    def __init__(self, name: str, choices: SoundChoices | None = None) -> None:
        self.name = name
        self.choices = choices or SoundChoices()
        self.track: int | None = None
        """Which of several tracks is heard, from 0; ``None`` where there is one."""
        self.truncated = False
        """Whether less came than the sound itself says it has."""
        self.skipped: list[tuple[float, float]] = []
        """Where damaged parts became silence: their beginning and their length, in seconds."""
        self.notes: list[str] = []
        """Sentences the user should see."""

    def skip(self, at_s: float, length_s: float) -> None:
        """Notes a damaged part that became silence."""
        self.skipped.append((round(at_s, 3), round(length_s, 3)))

    def end(self, heard_s: float, declared_s: float | None = None, *, is_cut: bool = False) -> None:
        """Called when the sound has ended.

        Args:
            heard_s: Seconds that came.
            declared_s: Seconds that the sound itself says it has.
            is_cut: Whether less came than that, or its end is missing.

        Raises:
            AudioError: ``E-AUDIO-TRUNCATED`` under a strict choice.
        """
        if self.skipped:
            places = ", ".join(f"{at_s:.2f}" for at_s, _ in self.skipped[:_SHOWN_PLACES])
            more = ", ..." if len(self.skipped) > _SHOWN_PLACES else ""
            total_s = sum(length_s for _, length_s in self.skipped)
            self.notes.append(
                f"{self.name} is damaged; {total_s:.2f} s of it became silence, at {places}{more} s"
            )
        if not is_cut:
            return
        self.truncated = True
        said = "its end is missing"
        if declared_s is not None:
            said = f"it says that it has {declared_s:.2f} s"
        text = f"{self.name} is cut off after {heard_s:.2f} s; {said}"
        if self.choices.strict:
            raise AudioError(
                text,
                hint="copy or export it again, or leave --strict out to use what is there",
                code="E-AUDIO-TRUNCATED",
            )
        self.notes.append(text)


def no_such_track(name: str, num_tracks: int, track: int) -> AudioError:
    """The error for a sound track that is not there."""
    has = "1 sound track" if num_tracks == 1 else f"{num_tracks} sound tracks"
    return AudioError(
        f"{name} has {has}; there is no track {track}",
        hint="tracks are counted from 0; leave --audio-track out for the default one",
        code="E-AUDIO-STREAM",
    )
