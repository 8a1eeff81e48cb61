"""Pictures in: any usual format to upright 8-bit RGB, whatever the file's own colour form."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from joyflash_cli.errors import ImageError
from joyflash_cli.media.inputs.kinds import format_of, opened

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
"""The only decoders that are ever tried, and two that may be there; the others have a long record
of holes."""

MIN_SIDE_PX = 32
MAX_PIXELS = 120_000_000
"""Largest picture that is decoded (360 MB of RGB); read from the header, before decoding. Phones
take photographs of 108 million."""

MAX_WEBP_PIXELS = 64_000_000
"""The same for WebP, HEIC and AVIF, whose decoders keep several copies: 40 bytes of file may ask
for all of it."""

MAX_FILE_BYTES = 512 << 20
"""Largest file that is read; no picture that could be decoded comes near."""

LARGE_PIXELS = 30_000_000
"""Larger pictures are read at half size or less: they take some 20 bytes a pixel on their way, and
no face needs more."""

BACKGROUND_RGB = (128, 128, 128)
"""Mid-grey put behind transparent pixels: neither a black nor a white halo around hair."""

_GREY_ROWS = 256
_BROKEN = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError,
    ArithmeticError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip
"""What Pillow raises for broken pictures; some of it for chunks that are merely too short."""

_WANTED = "PNG, JPEG, WebP, TIFF, BMP, GIF, HEIC and AVIF"
_GIVE_A_PICTURE = "give the path of a picture, such as a PNG or JPEG"
_COPYING_FORMATS = ("WEBP", "HEIF", "AVIF")


@dataclass(frozen=True)
class Picture:
    """A picture ready for use.

    Attributes:
        pixels: ``(H, W, 3)`` uint8 RGB, upright.
        warnings: Sentences the user should see: what was dropped or assumed.
        sha256: Of the file's bytes, hexadecimal.
    """

    pixels: np.ndarray
    warnings: tuple[str, ...] = ()
    sha256: str | None = None


def read_picture(source: Path | BinaryIO) -> Picture:
    """The picture in a file.

    The EXIF orientation is applied, an embedded colour profile is converted to sRGB, 16-bit grey
    is scaled to 8 bits, transparency is flattened on mid-grey, an animation gives its first frame.
    Beyond ``LARGE_PIXELS`` a picture is read at half its size or less.

    Args:
        source: A local file, whose suffix does not matter; or one that is open, such as a pipe.

    Returns:
        Upright RGB and what to tell the user.

    Raises:
        ImageError: ``E-IMAGE-MISSING`` no such file, ``E-IMAGE-FORMAT`` another format,
            ``E-IMAGE-SIZE`` a side under 32 px, or more than 120 million pixels (WebP, HEIC and
            AVIF: 64 million), ``E-IMAGE-DAMAGED`` cut off or broken.
    """
    path = Path(source if isinstance(source, str | Path) else source.name)
    name = path.name or str(path)
    hints = {"missing": _GIVE_A_PICTURE, "unreadable": _GIVE_A_PICTURE}
    with opened(source, ImageError, code="E-IMAGE-MISSING", **hints) as file:
        data = file.read(MAX_FILE_BYTES + 1)  # a pipe can be read only once, a device never ends
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(
            f"{name} has more than {MAX_FILE_BYTES >> 20} MB",
            hint=_GIVE_A_PICTURE,
            code="E-IMAGE-SIZE",
        )
    with warnings.catch_warnings():
        # Pillow's own remarks (odd camera data, many pixels) are either checked here or harmless.
        warnings.simplefilter("ignore")
        picture = _decode(data, name)
    return replace(picture, sha256=hashlib.sha256(data).hexdigest())


def _decode(data: bytes, name: str) -> Picture:
    from PIL import ImageOps

    image = _open(data, name)
    _check_size(
        image.size, name, MAX_WEBP_PIXELS if image.format in _COPYING_FORMATS else MAX_PIXELS
    )
    notes: list[str] = []
    num_frames = getattr(image, "n_frames", 1)
    if image.format != "MPO" and num_frames > 1:
        # MPO is a JPEG whose further pictures are previews or the other eye, not an animation.
        what = "has" if image.format in ("TIFF", "HEIF") else "is an animation of"
        ones = "pictures" if image.format in ("TIFF", "HEIF") else "frames"
        notes.append(f"{name} {what} {num_frames} {ones}; its first is used")
    width, height = image.size
    is_large = width * height > LARGE_PIXELS
    try:
        if is_large:
            image.draft(None, (width // 2, height // 2))  # a JPEG is decoded no larger
        image.load()
    except _BROKEN as error:
        raise _damaged(name) from error
    if is_large:
        image = _reduced(image)
        if image.size != (width, height):
            read = f"{image.width} x {image.height}"
            notes.append(f"{name} is {width} x {height}; it is read as {read}")
    try:
        with contextlib.suppress(*_BROKEN):  # camera data that cannot be read harms nobody
            # In place: a copy of a large one is half its memory.
            ImageOps.exif_transpose(image, in_place=True)
        pixels = _to_rgb(image, name, notes)
    except _BROKEN as error:
        raise ImageError(
            f"{name} has colours ({image.mode}) that cannot be converted",
            hint="save it as PNG or JPEG with any picture program",
            code="E-IMAGE-FORMAT",
        ) from error
    return Picture(pixels, tuple(notes))


def _reduced(image: Image) -> Image:
    """At most ``LARGE_PIXELS``, by averaging whole pixels; a JPEG may be small enough already."""
    factor = 1
    while image.width // factor * (image.height // factor) > LARGE_PIXELS:
        factor += 1
    if factor == 1 or image.mode.startswith("I"):
        return image  # 16-bit grey becomes small below
    if image.mode in ("P", "1"):
        transparent = "transparency" in image.info
        image = image.convert("RGBA" if transparent else "RGB")
    return image.reduce(factor)


def _open(data: bytes, name: str) -> Image:
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise _damaged(name)
    try:
        return Image.open(io.BytesIO(data), formats=(*PICTURE_FORMATS, *_optional_formats(data)))
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name} has more than {MAX_PIXELS // 1_000_000} million pixels",
            hint="scale it down; a side of 1000 pixels is plenty",
            code="E-IMAGE-SIZE",
        ) from error
    except UnidentifiedImageError as error:
        raise _other_format(data, name) from error
    except _BROKEN as error:
        raise _damaged(name) from error


def _optional_formats(data: bytes) -> tuple[str, ...]:
    """Decoders for what phones write, where they are installed and needed."""
    kind, _ = format_of(data[:32])
    if kind == "AVIF":
        from PIL import features

        if features.check("avif"):
            return ("AVIF",)
    if kind in ("HEIC", "AVIF"):
        try:
            import pillow_heif
        except ImportError:
            return ()
        pillow_heif.register_heif_opener()
        return ("HEIF",)
    return ()


def _other_format(data: bytes, name: str) -> ImageError:
    """The error for what is no picture, or one of a format that is not read."""
    found, _ = format_of(data[:32])
    hint = "save it as PNG or JPEG with any picture program"
    if found in ("HEIC", "AVIF") and not _optional_formats(data):
        said, hint = (
            f"{name} is {found}, which needs pillow-heif",
            ("pip install 'joyflash[heif]', or save it as PNG or JPEG"),
        )
    elif found:
        said = f"{name} is {found}; {_WANTED} are supported"
    else:
        said = f"{name} is not a picture that can be read; {_WANTED} are supported"
    return ImageError(said, hint=hint, code="E-IMAGE-FORMAT")


def _check_size(size: tuple[int, int], name: str, most: int) -> None:
    width, height = size
    if width * height > most:
        raise ImageError(
            f"{name} is {width} x {height}; at most {most // 1_000_000} million pixels are decoded",
            hint="scale it down; a side of 1000 pixels is plenty",
            code="E-IMAGE-SIZE",
        )
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(
            f"{name} is {width} x {height}; each side needs at least {MIN_SIDE_PX} pixels",
            hint="give a larger picture of the face",
            code="E-IMAGE-SIZE",
        )


def _to_rgb(image: Image, name: str, notes: list[str]) -> np.ndarray:
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        return _from_grey(np.asarray(image))
    if image.mode == "F":  # light as numbers: up to 1, or as in 8 bits
        values = np.nan_to_num(np.asarray(image), nan=0.0, posinf=255.0, neginf=0.0)
        return _from_grey((values * (65535 if values.max() <= 1 else 257)).clip(0, 65535))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _flatten(image, name, notes)
    image = _in_srgb(image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _from_grey(values: np.ndarray) -> np.ndarray:
    """``(H, W, 3)`` of 16-bit grey, a few rows at a time: wide numbers of all would fill memory.

    Pillow's own conversion clips at 255; 65535 must become 255.
    """
    pixels = np.empty((*values.shape, 3), np.uint8)
    for start in range(0, len(values), _GREY_ROWS):
        grey = values[start : start + _GREY_ROWS].astype(np.uint32).clip(0, 65535)
        pixels[start : start + _GREY_ROWS] = ((grey * 255 + 32767) // 65535)[:, :, None]
    return pixels


def _flatten(image: Image, name: str, notes: list[str]) -> np.ndarray:
    from PIL import Image

    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    colours = rgba.convert("RGB")
    colours.info = {"icc_profile": image.info.get("icc_profile")}
    colours = _in_srgb(colours) if image.mode != "LA" else colours
    if alpha.getextrema()[0] == 255:
        return np.array(colours)
    notes.append(f"{name} is partly transparent; mid-grey {BACKGROUND_RGB} was put behind it")
    background = Image.new("RGB", rgba.size, BACKGROUND_RGB)
    return np.array(Image.composite(colours, background, alpha))


def _in_srgb(image: Image) -> Image:
    """The picture in sRGB when it carries its own colour profile (phones write Display P3)."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK"):
        return image
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image  # a broken profile: the numbers are taken as they are
    return image if converted is None else converted


def _damaged(name: str) -> ImageError:
    return ImageError(
        f"{name} is damaged or cut off",
        hint="download or export it again",
        code="E-IMAGE-DAMAGED",
    )
