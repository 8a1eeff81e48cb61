"""Sound on its two ways: to the model at 16 kHz, and unchanged into the video.

Nothing is read before somebody asks for it, and nothing is kept after both ways have passed it.
"""

from fractions import Fraction
from typing import TYPE_CHECKING

from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ, AudioClip, SoundFormat, exact_rate

if TYPE_CHECKING:
    import torch

    from joyflash_cli.media.inputs.sound import OpenSound


class TakenBack:
    """Among the pieces of a sound: the newest samples that were given are silence after all.

    Args:
        num_samples: How many, at the sound's own rate.
    """

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples


class SoundFeed:
    """A sound that is heard piece by piece; ``conditioning.stream.HeardSound`` for the model.

    Used by one thread: the one that samples.

    Args:
        sound: Opened, nothing of it heard yet.
        fps: Video frames per second.
        device: Where the model hears it.
    """

    def __init__(
        self, sound: "OpenSound", fps: float, *, device: "torch.device | str" = "cpu"
    ) -> None:
        import numpy as np

        from joyflash_cli.media.inputs.audio import ModelResampler
        from joyflash_cli.media.outputs.tracks import SoundTrack

        self.format: SoundFormat = sound.format
        self.ended = False
        self.num_samples = 0
        self.num_original = 0
        self._name = sound.name
        self._pieces = sound.pieces
        self._device = device
        self._samples_per_frame = sound.format.sample_rate_hz / exact_rate(fps)
        self._resampler = ModelResampler(sound.format.sample_rate_hz)
        self._waveform = np.zeros(0, np.float32)
        self._waveform_start = 0
        self._original = SoundTrack(sound.format, exact_rate(fps))
        self._silenced: tuple[int, int] | None = None

    @property
    def num_frames(self) -> int | None:
        """Video frames that cover the sound; ``None`` until its end was heard."""
        return frames_for(self.num_original, self._samples_per_frame) if self.ended else None

    def pull(self) -> None:
        """Waits for the next piece, or notes the end.

        Raises:
            AudioError: When the sound cannot be used, or ended without a sample.
        """
        import numpy as np

        from joyflash_cli.media.inputs.audio_decoding import empty_sound

        piece: np.ndarray | TakenBack | None = next(self._pieces, None)
        if isinstance(piece, TakenBack):
            self._take_back(piece.num_samples)
            return
        if piece is None:
            if self.num_original == 0:
                raise empty_sound(self._name)
            self.ended = True
            heard = self._resampler.finish()
        else:
            self.num_original += len(piece)
            self._original.add(AudioClip(piece, self.format.sample_rate_hz))
            heard = self._resampler.push(piece)
        self._waveform = np.concatenate([self._waveform, heard])
        self.num_samples += len(heard)

    def covers_frame(self, frame: int) -> bool:
        """Whether what was heard reaches into this video frame; frame 0 always is."""
        if self.num_original == 0:
            return False
        return frame == 0 or self.num_original > frame * self._samples_per_frame

    def read(self, start: int, stop: int) -> "torch.Tensor":
        """Samples at 16 kHz, ``start <= i < stop``, fewer where the sound has ended.

        Raises:
            ValueError: If they were forgotten: a mistake of the calling code.
        """
        import torch

        first, last = start - self._waveform_start, stop - self._waveform_start
        if first < 0:
            raise ValueError(f"sample {start} was forgotten; {self._waveform_start} is the first")
        return torch.from_numpy(self._waveform[first:last].copy()).to(self._device)

    def take_silenced(self) -> tuple[int, int] | None:
        """Samples at 16 kHz, from and to, that were read as sound and have become silence since."""
        silenced, self._silenced = self._silenced, None
        return silenced

    def _take_back(self, num_samples: int) -> None:
        rate_hz = self.format.sample_rate_hz
        start = round((self.num_original - num_samples) * MODEL_SAMPLE_RATE_HZ / rate_hz)
        self._waveform[max(start - self._waveform_start, 0) :] = 0.0
        if self._silenced is not None:
            start = min(start, self._silenced[0])
        self._silenced = start, self.num_samples

    def forget(self, before: int) -> None:
        """Drops samples at 16 kHz that the model needs no more."""
        surplus = min(before - self._waveform_start, len(self._waveform))
        if surplus > 0:
            self._waveform = self._waveform[surplus:]
            self._waveform_start += surplus

    def take(self, num_frames: int) -> AudioClip:
        """The original sound of the next video frames, up to the end of frame ``num_frames - 1``.

        The last frame takes all that is left.
        """
        is_last = self.num_frames is not None and num_frames >= self.num_frames
        samples = self._original.take(None if is_last else num_frames)
        return AudioClip(samples, self.format.sample_rate_hz)


def frames_for(num_samples: int, samples_per_frame: Fraction) -> int:
    """Video frames that cover this many samples, ``ceil``, in exact arithmetic; at least one."""
    return max(1, -(-num_samples // samples_per_frame))
