"""A picture per frame: ``face-%05d.png`` and the sound beside them as ``face-sound.wav``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from joyflash_cli.files import whole_file
from joyflash_cli.media.inputs.audio import WavWriter
from joyflash_cli.media.outputs.clock import SoundTrack, exact_fps
from joyflash_cli.media.outputs.discarding import DiscardedOnExit
from joyflash_cli.media.outputs.pending import write_error
from joyflash_cli.media.outputs.targets import OutputNames
from joyflash_cli.types import AudioClip, SoundFormat

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_QUALITY: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 3},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
}


class PictureMuxer(DiscardedOnExit):
    """Writes numbered pictures from 0, each under its name only when it is whole.

    There is nothing to finish: what was written stays, whatever happens. Sizes are kept exactly.

    Args:
        path: With the place of the number, as ``%05d``.
        size: Width and height of the frames.
        fps: Frames per second.
        audio: Original sound, or its format; written unchanged as 32-bit float WAV.
        overwrite: Whether pictures already there may go, with their sound and record: all of them,
            so that none of a longer sequence is left.
        metadata: Tags; ``comment`` goes into PNG and WebP files.
        encoding: Not used: PNG and WebP are lossless, JPEG has quality 95.

    Raises:
        OutputError: See :meth:`OutputNames.check`.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int],
        fps: float | Fraction,
        audio: AudioClip | SoundFormat | None = None,
        overwrite: bool = False,
        metadata: Mapping[str, str] | None = None,
        **encoding: int | str,
    ) -> None:
        self._names = OutputNames(path)
        self._size = size
        self._comment = (metadata or {}).get("comment", "")
        self._num_frames = 0
        self._sound = None if audio is None else SoundTrack(audio, exact_fps(fps))
        self._wav: WavWriter | None = None
        self._names.check(overwrite=overwrite)
        self.sound_path = self._names.sound
        with _failures(self._names.path):
            self._names.remove_taken()
        if self._sound is not None:
            with _failures(self.sound_path):
                self._wav = WavWriter(self.sound_path, self._sound.format)

    @property
    def num_frames(self) -> int:
        """Frames written so far."""
        return self._num_frames

    def write(self, frames: np.ndarray, sound: AudioClip | None = None) -> None:
        """Appends frames and their sound; see :meth:`Muxer.write`."""
        if self._sound is not None and sound is not None:
            self._sound.add(sound)
        width, height = self._size
        if frames.shape[1:] != (height, width, 3) or frames.dtype != np.uint8:
            raise ValueError(
                f"frames are {frames.shape} {frames.dtype}; (F, {height}, {width}, 3) expected"
            )
        self._write_sound()  # what belongs to frames that were written before their sound was there
        for pixels in frames:
            target = self._names.frame(self._num_frames)
            with _failures(target):
                self._save(pixels, target)
            self._num_frames += 1
            self._write_sound()

    def finish(self) -> None:
        """Closes the sound file."""
        if self._num_frames == 0:
            self.discard()
            raise ValueError("no frame was written")
        self._close()

    def keep_partial(self) -> Path | None:
        """Everything is there already, under its own name."""
        if self._num_frames == 0:
            self.discard()
            return None
        self._close()
        return self._names.path

    def discard(self) -> None:
        """Closes the sound file; pictures stay, an empty sound file does not."""
        self._close()
        if self._num_frames == 0 and self._sound is not None:
            self.sound_path.unlink(missing_ok=True)

    def _write_sound(self) -> None:
        if self._sound is not None and self._wav is not None:
            with _failures(self.sound_path):
                self._wav.write(self._sound.take(self._num_frames))

    def _close(self) -> None:
        wav, self._wav = self._wav, None
        if wav is not None:
            with _failures(self.sound_path):
                wav.close()

    def _save(self, pixels: np.ndarray, target: Path) -> None:
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        kind = _FORMATS[target.suffix.lower()]
        extra = dict(_QUALITY[kind])
        if kind == "PNG":
            extra["pnginfo"] = info = PngInfo()
            info.add_itxt("Comment", self._comment)
        elif kind == "WEBP":
            extra["exif"] = _exif(self._comment)
        else:
            extra["comment"] = self._comment.encode()
        with whole_file(target) as part:
            Image.fromarray(pixels).save(part, format=kind, **extra)


@contextlib.contextmanager
def _failures(path: Path) -> Iterator[None]:
    """Turns what the system refuses into an output error."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def _exif(comment: str) -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif[0x010E] = comment  # ImageDescription
    return exif.tobytes()
