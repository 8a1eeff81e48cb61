"""Fuzzes pictures: PNG, JPEG and WebP of many colour forms, and other formats in disguise."""

import io
import random
from pathlib import Path

import numpy as np
from drive import main
from mutations import mutate_bytes, mutate_jpeg, mutate_png, mutate_riff
from oracle import Oracle, Violation, line_problem
from PIL import Image, ImageCms

from joyflash_cli.media.inputs.picture import MIN_SIDE_PX, read_picture

MAX_BYTES = 32_768
_CHUNKS = (b"VP8 ", b"VP8L", b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"ICCP", b"EXIF", b"XMP ")
_TOKENS = (b"\xff\xd8", b"\xff\xe1", b"Exif\0\0", b"MPF\0", b"ICC_PROFILE\0", b"%PDF", b"SIMPLE  =",
           b"GIF89a", b"II*\0", b"P6\n99999 99999\n255\n", b"8BPS", b"#!/bin/sh\n")  # fmt: skip


def seeds() -> list[bytes]:
    """A small picture in every form that is read, and some that are not."""
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(40), np.arange(48)).astype(np.uint8)
    rgb = Image.fromarray(np.stack([smooth, smooth * 2, 255 - smooth], axis=-1))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.fromarray(smooth.astype(np.uint16) * 800)
    noisy = rgb.copy()
    noisy.putalpha(Image.fromarray(rng.integers(0, 256, (40, 48), np.uint8)))
    found = [
        _saved(rgb, "PNG", icc_profile=profile, exif=exif),
        _saved(noisy, "PNG"),
        _saved(rgb.quantize(16), "PNG", transparency=3),
        _saved(rgb.convert("1"), "PNG"),
        _saved(rgb.convert("LA"), "PNG"),
        _saved(wide, "PNG"),
        _saved(rgb, "PNG", save_all=True, append_images=[rgb.rotate(90)]),
        _saved(rgb, "JPEG", exif=exif, icc_profile=profile),
        _saved(rgb, "JPEG", progressive=True),
        _saved(rgb.convert("CMYK"), "JPEG"),
        _saved(rgb.convert("L"), "JPEG"),
        _saved(rgb, "MPO", save_all=True, append_images=[rgb.rotate(90)]),
        _saved(rgb, "WEBP", exif=exif),
        _saved(noisy, "WEBP", lossless=True),
        _saved(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)]),
        _saved(rgb, "GIF"),
        _saved(rgb, "TIFF"),
        _saved(rgb, "PPM"),
    ]
    return [data for data in found if len(data) < MAX_BYTES]


def _saved(image: Image.Image, kind: str, **options) -> bytes:
    memory = io.BytesIO()
    image.save(memory, kind, **options)
    return memory.getvalue()


def mutate(data: bytes, chance: random.Random) -> bytes:
    """The parts of its format."""
    if data[:4] == b"RIFF":
        return mutate_riff(data, chance, _CHUNKS)
    if data[:2] == b"\xff\xd8":
        return mutate_jpeg(data, chance)
    if data[:4] == b"\x89PNG":
        return mutate_png(data, chance)
    return mutate_bytes(data, chance, _TOKENS)


def check(data: bytes, folder: Path, oracle: Oracle) -> None:
    """Reads the picture; what comes out is what was promised."""
    path = folder / "face.png"
    path.write_bytes(data)
    with oracle.armed():
        picture = read_picture(path)
    pixels = picture.pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise Violation(f"pixels of {pixels.dtype} and {pixels.ndim} dimensions")
    if min(pixels.shape[:2]) < MIN_SIDE_PX:
        raise Violation("a picture that is too small")
    for warning in picture.warnings:
        if wrong := line_problem(warning):
            raise Violation(f"a warning: {wrong}")


if __name__ == "__main__":
    main("picture")
