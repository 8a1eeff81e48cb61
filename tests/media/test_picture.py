import io
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from joyflash_cli.errors import ImageError
from joyflash_cli.media.inputs import picture as picture_module
from joyflash_cli.media.inputs.picture import read_picture


def gradient(width: int = 48, height: int = 40) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([columns * 5, rows * 6, 255 - columns * 5], 2).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def error_of(path: Path) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_picture(path)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    return caught.value


def huge_png_header(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".png", {}), (".webp", {"lossless": True}), (".odd", {"format": "PNG"})],
)
def test_lossless_formats_keep_every_pixel(tmp_path, suffix, options):
    picture = read_picture(save(tmp_path / f"a{suffix}", gradient(), **options))
    np.testing.assert_array_equal(picture.pixels, gradient())
    assert picture.warnings == ()


def test_jpeg(tmp_path):
    picture = read_picture(save(tmp_path / "a.jpg", gradient(), quality=98))
    assert np.abs(picture.pixels.astype(int) - gradient()).mean() < 3


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda p: p),
        (2, lambda p: p[:, ::-1]),
        (3, lambda p: p[::-1, ::-1]),
        (4, lambda p: p[::-1]),
        (5, lambda p: p.transpose(1, 0, 2)),
        (6, lambda p: np.rot90(p, 1)),
        (7, lambda p: p[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda p: np.rot90(p, -1)),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, undo):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo(gradient()))
    picture = read_picture(save(tmp_path / "a.png", stored, exif=exif))
    np.testing.assert_array_equal(picture.pixels, gradient())


def test_broken_exif_does_not_matter(tmp_path, recwarn):
    path = save(tmp_path / "a.png", gradient(), exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    np.testing.assert_array_equal(read_picture(path).pixels, gradient())
    assert len(recwarn) == 0


def test_transparency_is_flattened_on_mid_grey(tmp_path):
    pixels = np.dstack([gradient(), np.full((40, 48), 255, np.uint8)])
    pixels[:10, :, 3] = 0
    pixels[10:20, :, 3] = 128
    picture = read_picture(save(tmp_path / "a.png", pixels))
    assert "mid-grey" in picture.warnings[0]
    assert (picture.pixels[:10] == 128).all()
    half = gradient()[10:20] * (128 / 255) + 128 * (127 / 255)
    np.testing.assert_allclose(picture.pixels[10:20], half, atol=1)
    np.testing.assert_array_equal(picture.pixels[20:], gradient()[20:])


def test_opaque_alpha_says_nothing(tmp_path):
    pixels = np.dstack([gradient(), np.full((40, 48), 255, np.uint8)])
    picture = read_picture(save(tmp_path / "a.png", pixels))
    assert picture.warnings == ()
    np.testing.assert_array_equal(picture.pixels, gradient())


def test_palette_with_a_transparent_colour(tmp_path):
    indices = np.zeros((40, 40), np.uint8)
    indices[20:] = 1
    image = Image.fromarray(indices).convert("P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", transparency=0)
    picture = read_picture(tmp_path / "a.png")
    assert tuple(picture.pixels[0, 0]) == (128, 128, 128)
    assert tuple(picture.pixels[30, 0]) == (0, 0, 255)


def test_cmyk_jpeg(tmp_path):
    red = np.full((64, 64, 3), (220, 30, 40), np.uint8)
    picture = read_picture(save(tmp_path / "a.jpg", red, "CMYK", quality=95))
    assert np.abs(picture.pixels.astype(int) - red).max() < 12


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_and_black_and_white(tmp_path, mode):
    picture = read_picture(save(tmp_path / "a.png", gradient(), mode))
    assert picture.pixels.shape == (40, 48, 3)
    assert (picture.pixels[:, :, 0] == picture.pixels[:, :, 2]).all()
    assert np.ptp(picture.pixels) > 100


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65_535, 64 * 64).astype(np.uint16).reshape(64, 64)
    picture = read_picture(save(tmp_path / "a.png", values))
    np.testing.assert_array_equal(picture.pixels[:, :, 1], np.round(values / 257).astype(np.uint8))


def test_embedded_profile_is_converted(tmp_path):
    """A profile of another white changes the numbers; the sRGB profile does not."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = save(tmp_path / "a.png", gradient(), icc_profile=srgb)
    assert np.abs(read_picture(path).pixels.astype(int) - gradient()).max() <= 2
    broken = save(tmp_path / "b.png", gradient(), icc_profile=b"not a profile")
    np.testing.assert_array_equal(read_picture(broken).pixels, gradient())


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_animation_gives_its_first_frame(tmp_path, suffix):
    first, second = Image.fromarray(gradient()), Image.fromarray(255 - gradient())
    path = tmp_path / f"a{suffix}"
    first.save(path, save_all=True, append_images=[second], lossless=True)
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, gradient())
    assert "2 frames" in picture.warnings[0]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_truncated_file_is_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    path = save(tmp_path / f"a{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert error_of(path).code == "E-IMAGE-DAMAGED"


def test_empty_missing_folder(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    assert error_of(tmp_path / "empty.png").code == "E-IMAGE-DAMAGED"
    assert error_of(tmp_path / "none.png").code == "E-IMAGE-MISSING"
    assert error_of(tmp_path).code == "E-IMAGE-MISSING"
    assert error_of(Path("https://127.0.0.1:9/a.png")).code == "E-IMAGE-MISSING"


@pytest.mark.parametrize(("width", "height"), [(1, 1), (16, 10_000), (10_000, 31)])
def test_tiny_sides_are_refused(tmp_path, width, height):
    error = error_of(save(tmp_path / "a.png", np.zeros((height, width, 3), np.uint8)))
    assert error.code == "E-IMAGE-SIZE"
    assert f"{width} x {height}" in error.message
    assert "32" in error.message


@pytest.mark.parametrize("side", [11_000, 60_000])
def test_bomb_is_refused_by_its_header(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(huge_png_header(side))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = error_of(path)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert error.code == "E-IMAGE-SIZE"
    assert "120 million" in error.message
    assert grown_kb < 50_000


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(100), "a sound"),
        (b"%PDF-1.4" + bytes(100), "PDF"),
        (b"just text", "not a picture"),
    ],
)
def test_other_formats_are_named(tmp_path, data, word):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    error = error_of(path)
    assert error.code == "E-IMAGE-FORMAT"
    assert word in error.message
    assert "PNG" in error.hint


@pytest.mark.parametrize("suffix", [".gif", ".bmp", ".tiff"])
def test_formats_of_scanners_and_old_programs(tmp_path, suffix):
    flat = np.zeros((40, 48, 3), np.uint8) + np.array([200, 100, 50], np.uint8)
    flat[:, 24:] = (10, 20, 30)
    np.testing.assert_array_equal(read_picture(save(tmp_path / f"a{suffix}", flat)).pixels, flat)
    if suffix != ".bmp":
        path = tmp_path / f"b{suffix}"
        first, second = Image.fromarray(flat), Image.fromarray(255 - flat)
        first.save(path, save_all=True, append_images=[second])
        picture = read_picture(path)
        np.testing.assert_array_equal(picture.pixels, flat)
        assert picture.warnings[0].split("2 ")[1] in (
            "frames; its first is used", "pictures; its first is used"
        )  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "scale"),
    [("F", 1.0), ("F", 255.0), ("CMYK", 1), ("I;16", 1), ("LAB", 1), ("YCbCr", 1)],
)
def test_colours_of_tiff(tmp_path, mode, scale):
    path = tmp_path / "a.tiff"
    grey = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    if mode == "F":
        Image.fromarray(grey * scale).save(path)
    elif mode == "I;16":
        Image.fromarray((grey * 65535).astype(np.uint16)).save(path)
    else:
        Image.new(mode, (64, 64), (50, 60, 70, 80)[: len(Image.new(mode, (1, 1)).getbands())]).save(
            path, compression="tiff_lzw"
        )
    pixels = read_picture(path).pixels
    assert pixels.shape == (64, 64, 3)
    if mode in ("F", "I;16"):
        assert np.abs(pixels[..., 0] - grey * 255).max() < 2


def test_avif(tmp_path):
    path = save(tmp_path / "a.avif", gradient(), quality=95)
    assert np.abs(read_picture(path).pixels.astype(int) - gradient()).mean() < 4


def test_heic(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "a.jpg"  # the suffix does not matter
    exif = Image.Exif()
    exif[0x0112] = 6
    for pixels in (gradient(), gradient(64, 64)):
        heif.from_pillow(Image.fromarray(pixels)).save(tmp_path / "a.heic", quality=95)
        (tmp_path / "a.heic").rename(path)
        read = read_picture(path).pixels
        assert read.shape == pixels.shape
        assert np.abs(read.astype(int) - pixels).mean() < 6
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    heif.from_pillow(Image.fromarray(noise)).save(tmp_path / "a.heic", quality=95)
    path.write_bytes((tmp_path / "a.heic").read_bytes()[:20_000])
    assert error_of(path).code == "E-IMAGE-DAMAGED"


def test_heic_without_its_decoder_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    error = error_of(path)
    assert error.code == "E-IMAGE-FORMAT"
    assert "HEIC" in error.message
    assert "joyflash[heif]" in error.hint


def test_a_picture_from_a_pipe(tmp_path):
    path = save(tmp_path / "a.png", gradient())
    with path.open("rb") as file:
        np.testing.assert_array_equal(read_picture(file).pixels, gradient())


def test_an_address_is_not_fetched():
    assert "URLs are not fetched" in error_of(Path("https://127.0.0.1:9/a.png")).hint


def test_mutated_files_give_a_picture_or_one_clear_error(tmp_path):
    rng = np.random.default_rng(2)
    for image_format in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"):
        buffer = io.BytesIO()
        Image.fromarray(gradient()).save(buffer, image_format)
        for _ in range(40):
            data = bytearray(buffer.getvalue())
            for position in rng.integers(0, len(data), 4):
                data[position] = rng.integers(0, 256)
            path = tmp_path / "m"
            path.write_bytes(bytes(data))
            try:
                picture = read_picture(path)
            except ImageError:
                continue
            assert picture.pixels.dtype == np.uint8
            assert picture.pixels.shape[2] == 3


def test_import_does_not_load_pillow():
    code = "import sys, joyflash_cli.media.inputs.picture; sys.exit('PIL' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("P", "PNG", {"transparency": 3}),
        ("1", "PNG", {}),
        ("LA", "PNG", {}),
        ("I;16", "PNG", {}),
        ("RGB", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "WEBP", {"lossless": True}),
    ],
)
def test_large_pictures_are_read_smaller(tmp_path, monkeypatch, mode, kind, options):
    """A picture within the limit must not take gigabytes on its way."""
    monkeypatch.setattr(picture_module, "LARGE_PIXELS", 4_000)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "large"
    Image.new(mode, (200, 96)).save(path, kind, exif=exif, **options)
    picture = read_picture(path)
    rows, columns = picture.pixels.shape[:2]
    assert rows > columns  # upright
    if mode == "I;16":  # decoded to half of what the others take
        assert (rows, columns) == (200, 96)
        return
    assert rows * columns <= 4_000
    assert rows / columns == pytest.approx(200 / 96, rel=0.05)
    assert "large is 200 x 96; it is read as" in picture.warnings[0]


def test_sixteen_bits_of_many_rows(tmp_path):
    values = np.linspace(0, 65_535, 700 * 40).astype(np.uint16).reshape(700, 40)
    path = tmp_path / "grey.png"
    Image.fromarray(values).save(path)
    expected = np.round(values / 257).astype(np.uint8)
    assert np.abs(read_picture(path).pixels[..., 1].astype(int) - expected).max() == 0


def test_a_webp_of_few_bytes_and_many_pixels(tmp_path):
    """40 bytes that ask for gigabytes."""
    path = tmp_path / "bomb.webp"
    Image.new("RGB", (9_000, 8_000)).save(path, lossless=True, quality=0, method=0)
    assert path.stat().st_size < 1_000
    error = error_of(path)
    assert error.code == "E-IMAGE-SIZE"
    assert "64 million" in error.message


@pytest.mark.parametrize("name", [b"cHRM", b"gAMA", b"pHYs", b"iCCP", b"acTL", b"fcTL", b"tRNS"])
@pytest.mark.parametrize("size", [0, 1, 3, 7])
def test_a_chunk_that_is_too_short_is_damage(tmp_path, name, size):
    """Or is overlooked; what Pillow makes of it never leaves."""
    path = save(tmp_path / "a.png", gradient())
    data, body = path.read_bytes(), bytes(size)
    chunk = struct.pack(">I", size) + name + body + struct.pack(">I", zlib.crc32(name + body))
    path.write_bytes(data[:33] + chunk + data[33:])
    try:
        assert read_picture(path).pixels.shape == (40, 48, 3)
    except ImageError as error:
        told = error.code
    else:
        told = ""
    assert told in ("", "E-IMAGE-DAMAGED", "E-IMAGE-FORMAT")
