"""Pictures in: PNG, JPEG or WebP to upright 8-bit RGB, whatever the file's own colour form."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from joyflash_cli.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP")
"""The only decoders that are ever tried; the others have a long record of holes."""

MIN_SIDE_PX = 32
MAX_PIXELS = 100_000_000
"""Largest picture that is decoded (300 MB of RGB); read from the header, before decoding."""

BACKGROUND_RGB = (128, 128, 128)
"""Mid-grey put behind transparent pixels: neither a black nor a white halo around hair."""

_OTHER_FORMATS = (  # (offset, bytes, name): told apart only to give a useful hint
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyp", "a video"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "SVG"),
)


@dataclass(frozen=True)
class Picture:
    """A picture ready for use.

    Attributes:
        pixels: ``(H, W, 3)`` uint8 RGB, upright.
        warnings: Sentences the user should see: what was dropped or assumed.
    """

    pixels: np.ndarray
    warnings: tuple[str, ...] = ()


def read_picture(path: Path) -> Picture:
    """The picture in a PNG, JPEG or WebP file.

    The EXIF orientation is applied, an embedded colour profile is converted to sRGB, 16-bit grey
    is scaled to 8 bits, transparency is flattened on mid-grey, an animation gives its first frame.

    Args:
        path: A local file; its suffix does not matter.

    Returns:
        Upright RGB and what to tell the user.

    Raises:
        ImageError: ``E-IMAGE-MISSING`` no such file, ``E-IMAGE-FORMAT`` another format,
            ``E-IMAGE-SIZE`` a side under 32 px or more than 100 million pixels,
            ``E-IMAGE-DAMAGED`` cut off or broken.
    """
    path = Path(path)
    name = path.name or str(path)
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(
            f"{path}: no such file",
            hint="give the path of a PNG, JPEG or WebP picture",
            code="E-IMAGE-MISSING",
        ) from error
    except OSError as error:
        raise ImageError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="give the path of a PNG, JPEG or WebP picture",
            code="E-IMAGE-MISSING",
        ) from error
    with warnings.catch_warnings():
        # Pillow's own remarks (odd camera data, many pixels) are either checked here or harmless.
        warnings.simplefilter("ignore")
        return _decode(data, name)


def _decode(data: bytes, name: str) -> Picture:
    image = _open(data, name)
    _check_size(image.size, name)
    notes: list[str] = []
    num_frames = getattr(image, "n_frames", 1)
    if image.format != "MPO" and num_frames > 1:
        # MPO is a JPEG whose further pictures are previews or the other eye, not an animation.
        notes.append(f"{name} is an animation of {num_frames} frames; its first is used")
    try:
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise _damaged(name) from error
    return Picture(_to_rgb(_upright(image), name, notes), tuple(notes))


def _open(data: bytes, name: str) -> Image:
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise _damaged(name)
    try:
        return Image.open(io.BytesIO(data), formats=PICTURE_FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name} has more than {MAX_PIXELS // 1_000_000} million pixels",
            hint="scale it down; a side of 1000 pixels is plenty",
            code="E-IMAGE-SIZE",
        ) from error
    except UnidentifiedImageError as error:
        found = _other_format(data)
        said = f"{name} is {found}" if found else f"{name} is not a picture that can be read"
        raise ImageError(
            f"{said}; PNG, JPEG and WebP are supported",
            hint="save it as PNG or JPEG with any picture program",
            code="E-IMAGE-FORMAT",
        ) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise _damaged(name) from error


def _other_format(data: bytes) -> str:
    for offset, magic, format_name in _OTHER_FORMATS:
        if data[offset : offset + len(magic)] == magic:
            return format_name
    return ""


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} is {width} x {height}; at most {MAX_PIXELS // 1_000_000} million pixels "
            "are decoded",
            hint="scale it down; a side of 1000 pixels is plenty",
            code="E-IMAGE-SIZE",
        )
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(
            f"{name} is {width} x {height}; each side needs at least {MIN_SIDE_PX} pixels",
            hint="give a larger picture of the face",
            code="E-IMAGE-SIZE",
        )


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, ArithmeticError):
        return image  # unreadable camera data: the picture itself is sound


def _to_rgb(image: Image, name: str, notes: list[str]) -> np.ndarray:
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        # Pillow's own conversion clips at 255; 65535 must become 255.
        grey = np.asarray(image).astype(np.uint32).clip(0, 65535)
        scaled = ((grey * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(scaled[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _flatten(image, name, notes)
    return np.array(_in_srgb(image).convert("RGB"))


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
