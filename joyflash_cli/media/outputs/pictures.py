"""A picture per frame: ``face-%05d.png`` and the sound beside them as ``face-sound.wav``."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from joyflash_cli.errors import OutputError
from joyflash_cli.files import whole_file
from joyflash_cli.media.inputs.audio import WavWriter
from joyflash_cli.media.outputs.names import OutputNames
from joyflash_cli.media.outputs.tracks import Film, Tracks
from joyflash_cli.media.outputs.writer import NamedWriter, write_error
from joyflash_cli.media.outputs.xmp import jpeg_segment, packet

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_QUALITY: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 3},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
}


class PictureWriter(NamedWriter):
    """Writes numbered pictures from 0, each under its name only when it is whole.

    There is nothing to finish: what was written stays, whatever happens. Sizes are kept exactly,
    and so is the sound, as 32-bit float WAV. PNG and WebP are lossless, JPEG has quality 95; all
    hold the tags. Of pictures that were there before, none of a longer sequence is left.
    """

    def _begin(self) -> None:
        super()._begin()
        with _failures(self.names.path):
            self.names.remove_taken()
        self.tracks = _PictureTracks(self.names, self.film)

    def discard(self) -> None:
        """Closes the sound file; pictures stay, an empty sound file does not."""
        super().discard()
        if self.tracks is not None and not self.num_frames and self.film.audio is not None:
            self.names.sound.unlink(missing_ok=True)

    def _publish(self) -> None:
        """Signs the first picture, if that is asked for: all the others are under their names."""
        try:
            self._seal()
        except OutputError as error:
            self.unsealed = self.names.path
            error.hint = f"the pictures, unsigned, are in {self.names.path.parent}"
            raise

    def _keep(self) -> Path:
        """Everything is there already, under its own name."""
        try:
            self._seal()
        except OutputError as error:
            self.seal_error = error
        return self.names.path

    def _seal(self) -> None:
        if self.film.seal is not None:
            first = self.names.frame(0)
            with _failures(first), whole_file(first) as part:
                self.film.seal(first, part)
            self.is_sealed = True

    def _rescue(self) -> Path:
        return self.names.path


def thumbnail(pixels: np.ndarray, side_px: int = 256) -> bytes:
    """A small JPEG of a picture ``(H, W, 3)`` uint8, its longer side at most ``side_px``."""
    from PIL import Image

    small, file = Image.fromarray(pixels), io.BytesIO()
    small.thumbnail((side_px, side_px))
    small.save(file, "JPEG", quality=80)
    return file.getvalue()


class _PictureTracks(Tracks):
    """A file per frame, and one for the sound.

    Raises:
        OutputError: From every method, naming the file that cannot be written.
    """

    def __init__(self, names: OutputNames, film: Film) -> None:
        super().__init__(film)
        self._names, self._wav = names, None
        if self.sound is not None:
            with _failures(names.sound):
                self._wav = WavWriter(names.sound, self.sound.format)

    def close(self) -> None:
        """Closes the sound file; more pictures could always be written."""
        wav, self._wav = self._wav, None
        if wav is not None:
            with _failures(self._names.sound):
                wav.close()

    abandon = close

    def _write_sound(self, samples: np.ndarray, first: int) -> None:
        if self._wav is not None:
            with _failures(self._names.sound):
                self._wav.write(samples)

    def _write_frame(self, pixels: np.ndarray) -> None:
        target = self._names.frame(self.num_frames)
        with _failures(target):
            self._save(pixels, target)

    def _save(self, pixels: np.ndarray, target: Path) -> None:
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        kind, tags = _FORMATS[target.suffix.lower()], self.film.metadata
        comment, xmp = tags.get("comment", ""), packet(tags)
        extra = dict(_QUALITY[kind])
        if kind == "PNG":
            extra["pnginfo"] = info = PngInfo()
            info.add_itxt("Comment", comment)
            if xmp:
                info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        elif kind == "WEBP":
            extra["exif"] = exif = Image.Exif()
            exif[0x010E] = comment  # ImageDescription
            extra["xmp"] = xmp
        else:
            extra["comment"] = comment.encode()
            extra["extra"] = jpeg_segment(tags)
        with whole_file(target) as part:
            Image.fromarray(pixels).save(part, format=kind, **extra)


@contextlib.contextmanager
def _failures(path: Path) -> Iterator[None]:
    """Turns what the system refuses into an output error."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error
