"""Pictures and sounds as other programs write them: each is used, with what was assumed told."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from programs import run_program

from joyflash_cli.cli.app import run
from joyflash_cli.media.inputs.picture import read_picture
from joyflash_cli.render import JoyFlash

RATE_HZ = 16_000
NUM_SAMPLES = 3_200  # 0.2 s, 5 frames
GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")

# What any picture of this file is told for: none of them shows a face, and each may.
NO_FACE = "no face was found; the middle of the picture is used"


@pytest.fixture
def tried(toy_checkpoint, faceless_picture, toy_voice, tmp_path, monkeypatch, capsys):
    """A dry run with another picture or sound: exit code, plan, warnings."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def attempt(**inputs: Path):
        image, audio = inputs.get("image", faceless_picture), inputs.get("audio", toy_voice)
        options = ["--checkpoint", str(toy_checkpoint), "--dry-run", "--json", "--device", "cpu"]
        options.append("--allow-no-face")
        code = run(["render", str(image), str(audio), *options])
        shown = capsys.readouterr()
        lines = [line.removeprefix("joyflash: warning: ") for line in shown.err.splitlines()]
        warnings = [line for line in lines if not line.startswith("weights: ")]
        assert list(folder.iterdir()) == []
        return code, json.loads(shown.out) if shown.out else {}, warnings

    return attempt


def test_a_picture_without_a_face(
    toy_checkpoint, faceless_picture, toy_voice, tmp_path, monkeypatch, capsys
):
    """Refused before any weights are read."""

    def load(*_, **__):
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr(JoyFlash, "load", load)
    monkeypatch.chdir(tmp_path)
    for verb in ([], ["--dry-run"]):
        given = ["render", str(faceless_picture), str(toy_voice), *verb]
        assert run([*given, "--checkpoint", str(toy_checkpoint)]) == 3
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.count("\n") == 1
        assert f"no face was found in {faceless_picture}" in shown.err
        assert "--allow-no-face" in shown.err
    assert list(tmp_path.iterdir()) == []


def tone() -> np.ndarray:
    time_s = np.arange(NUM_SAMPLES) / RATE_HZ
    return 0.6 * np.sin(2 * np.pi * 220 * time_s)


def chunk(kind: bytes, body: bytes, *, size: int | None = None) -> bytes:
    return kind + struct.pack("<I", len(body) if size is None else size) + body


def pcm(bits: int, *, channels: int = 1, rate_hz: int = RATE_HZ, tag: int = 1) -> bytes:
    align = channels * bits // 8
    return struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * align, align, bits)


def extensible(bits: int, *, channels: int = 1, valid: int = 0, tag: int = 1) -> bytes:
    mask = (1 << channels) - 1
    tail = struct.pack("<HHI", 22, valid or bits, mask) + struct.pack("<H", tag) + GUID_TAIL
    return pcm(bits, channels=channels, tag=0xFFFE) + tail


def wav(
    form: bytes, data: bytes, *, before: bytes = b"", after: bytes = b"", size: int | None = None
) -> bytes:
    body = b"WAVE" + chunk(b"fmt ", form) + before + chunk(b"data", data, size=size) + after
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


S16 = (tone() * 32767).astype("<i2").tobytes()
U8 = (tone() * 127 + 128).astype("u1").tobytes()
S24 = b"".join(struct.pack("<i", int(value * 8388607))[:3] for value in tone())
SOFTWARE = chunk(b"LIST", b"INFOISFT" + struct.pack("<I", 14) + b"Lavf60.16.100\0")

SOUNDS = {
    "a list before the samples": wav(pcm(16), S16, before=SOFTWARE),
    "an odd chunk and its padding": wav(pcm(16), S16, before=chunk(b"junk", b"INFO!") + b"\0"),
    "an odd chunk without padding": wav(pcm(16), S16, before=chunk(b"junk", b"INFO!")),
    "a long chunk before the samples": wav(pcm(16), S16, before=chunk(b"pad ", bytes(130_000))),
    "a format with an empty extension": wav(pcm(16) + b"\0\0", S16),
    "extensible, 16 bits": wav(extensible(16), S16),
    "extensible, 24 of 32 bits": wav(
        extensible(32, valid=24), (tone() * 2147483647).astype("<i4").tobytes()
    ),
    "extensible, six channels": wav(
        extensible(16, channels=6), np.repeat(np.frombuffer(S16, "<i2"), 6).tobytes()
    ),
    "8 bits, then a list": wav(pcm(8), U8[:-1], after=b"\0" + SOFTWARE),
    "24 bits": wav(pcm(24), S24),
    "32-bit float": wav(pcm(32, tag=3), tone().astype("<f4").tobytes()),
    "64-bit float": wav(pcm(64, tag=3), tone().astype("<f8").tobytes()),
    "mu-law, 8 kHz": wav(pcm(8, rate_hz=8_000, tag=7) + b"\0\0", U8[::2]),
    "8 kHz": wav(pcm(16, rate_hz=8_000), np.frombuffer(S16, "<i2")[::2].tobytes()),
    "size 0": wav(pcm(16), S16, size=0),
    "size 0xFFFFFFFF": wav(pcm(16), S16, size=0xFFFFFFFF),
    "size 0x7FFFF000": wav(pcm(16), S16, size=0x7FFFF000),
    "a size that is too small": wav(pcm(16), S16, size=64),
    "half a sample at the end": wav(pcm(16), S16 + b"\1"),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_sounds(tried, tmp_path, name):
    path = tmp_path / "a.wav"
    path.write_bytes(SOUNDS[name])
    code, plan, warnings = tried(audio=path)
    assert (code, warnings) == (0, [NO_FACE])
    assert plan["audio_s"] == pytest.approx(NUM_SAMPLES / RATE_HZ, abs=1e-4)
    assert plan["video_frames"] == 5


@pytest.mark.parametrize(("num_samples", "frames"), [(1, 1), (160, 1), (640, 1), (641, 2)])
def test_a_moment_of_sound_is_a_frame(tried, tmp_path, num_samples, frames):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(pcm(16), S16[2000 : 2000 + 2 * num_samples]))
    code, plan, _warnings = tried(audio=path)
    assert (code, plan["video_frames"]) == (0, frames)


def test_silence_is_told(tried, tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(pcm(16), bytes(6_400)))
    code, _plan, warnings = tried(audio=path)
    assert code == 0
    assert warnings == [NO_FACE, "the audio is silent, the mouth will stay still"]


def test_two_hours_are_planned(tried, tmp_path):
    """The file has a hole in it: two hours of sound that take no room on the disk."""
    path = tmp_path / "long.wav"
    num_samples = 2 * 3600 * RATE_HZ
    whole = wav(pcm(16), b"\1\2" * 100, size=2 * num_samples)
    with path.open("wb") as file:
        file.write(whole)
        file.truncate(44 + 2 * num_samples)
    code, plan, _warnings = tried(audio=path)
    assert code == 0
    assert (plan["video_frames"], plan["blocks"]) == (180_000, 15_001)
    assert plan["audio_s"] == 7_200


def picture() -> Image.Image:
    rows, columns = np.mgrid[0:96, 0:80]
    pixels = np.stack([rows * 2, columns * 3, rows + columns], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def png(side: tuple[int, int], bits: int, rows: bytes) -> bytes:
    """A colour PNG of any header, also one that its pixels do not fill."""

    def part(kind: bytes, body: bytes) -> bytes:
        sum_ = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + sum_

    header = struct.pack(">IIBBBBB", *side, bits, 2, 0, 0, 0)
    parts = (part(b"IHDR", header), part(b"IDAT", zlib.compress(rows)), part(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_of_16_bits(path: Path) -> None:
    """Colour of 16 bits a channel, which Pillow reads but does not write."""
    pixels = np.asarray(picture()).astype(">u2") * 257
    path.write_bytes(png((80, 96), 16, b"".join(b"\0" + row.tobytes() for row in pixels)))


def write_picture(name: str, folder: Path) -> Path:
    image = picture()
    path = folder / "a.png"
    if name == "turned by a camera":
        exif = Image.Exif()
        exif[0x0112] = 6
        path = folder / "a.jpg"
        image.rotate(90, expand=True).save(path, exif=exif, quality=95)
    elif name == "CMYK":
        path = folder / "a.jpg"
        image.convert("CMYK").save(path, quality=95)
    elif name == "grey of 16 bits":
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(path)
    elif name == "colour of 16 bits":
        png_of_16_bits(path)
    elif name in ("grey", "black and white", "palette"):
        image.convert({"grey": "L", "palette": "P"}.get(name, "1")).save(path)
    elif name == "transparent":
        pixels = np.dstack([np.asarray(image), np.full((96, 80), 255, np.uint8)])
        pixels[:20, :, 3] = 0
        Image.fromarray(pixels).save(path)
    elif name == "animated":
        path = folder / "a.webp"
        image.save(path, save_all=True, append_images=[image.rotate(5)], lossless=True)
    elif name == "a name of many kinds":
        path = folder / "-a b;$(touch pwn) ü 😀.png"
        image.save(path)
    elif name == "junk at the end":
        path = folder / "a.jpg"
        image.save(path, quality=95)
        path.write_bytes(path.read_bytes() + b"junk" * 100)
    return path


TOLD = {
    "transparent": "a.png is partly transparent; mid-grey (128, 128, 128) was put behind it",
    "animated": "a.webp is an animation of 2 frames; its first is used",
}


@pytest.mark.parametrize(
    "name",
    ["turned by a camera", "CMYK", "grey of 16 bits", "colour of 16 bits", "grey",
     "black and white", "palette", "transparent", "animated", "a name of many kinds",
     "junk at the end"],
)  # fmt: skip
def test_pictures(tried, tmp_path, name):
    path = write_picture(name, tmp_path)
    code, plan, warnings = tried(image=path)
    assert code == 0
    if name not in ("black and white", "palette"):  # in their dots faces may be seen
        assert warnings == [*filter(None, [TOLD.get(name)]), NO_FACE]
    assert (plan["width"], plan["height"]) == (80, 96)
    pixels = read_picture(path).pixels
    assert pixels.shape == (96, 80, 3)
    if name in ("turned by a camera", "colour of 16 bits", "animated", "junk at the end"):
        expected = np.asarray(picture()).astype(int)
        assert np.abs(pixels - expected).mean() < 4


def test_an_animation_of_the_other_kind(tried, tmp_path):
    path = tmp_path / "a.gif"
    picture().save(path, save_all=True, append_images=[picture().rotate(5)])
    code, _plan, lines = tried(image=path)
    assert code == 0
    assert lines[0] == "a.gif is an animation of 2 frames; its first is used"


@pytest.mark.parametrize("side", [20_000, 60_000])
def test_a_picture_that_would_fill_the_memory(tried, tmp_path, side):
    path = tmp_path / "a.png"
    path.write_bytes(png((side, side), 8, b""))
    code, _plan, lines = tried(image=path)
    assert code == 3
    assert len(lines) == 1
    assert "120 million pixels" in lines[0]


def test_several_faces(tried, tmp_path, repository):
    """The largest is taken and told; another one when asked for."""
    face = Image.open(repository / "examples" / "face.png").convert("RGB")
    both = Image.new("RGB", (face.width * 3 // 2, face.height))
    both.paste(face, (0, 0))
    both.paste(face.resize((face.width // 2, face.height // 2)), (face.width, 0))
    path = tmp_path / "two.png"
    both.save(path)
    code, _plan, warnings = tried(image=path)
    assert code == 0
    assert "2 faces were found; the largest is used" in warnings


def test_a_home_that_cannot_be_written(tried, monkeypatch):
    monkeypatch.setenv("HOME", "/proc/self/fdinfo")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    code, plan, _warnings = tried()
    assert (code, plan["video_frames"]) == (0, 33)


def test_two_hours_of_a_pipe_pass_without_gathering(toy_checkpoint):
    """What is heard of a pipe is passed on, not kept: two hours in the memory of a moment."""
    import tracemalloc

    from joyflash_cli.media.inputs.sound import LiveSound

    class Endless:
        """Two hours of 16-bit sound behind a header without a size."""

        def __init__(self) -> None:
            self.left = 2 * 3600 * RATE_HZ * 2
            self.head = wav(pcm(16), b"", size=0xFFFFFFFF)

        def read(self, count: int) -> bytes:
            if self.head:
                head, self.head = self.head[:count], self.head[count:]
                return head
            count = min(count, self.left)
            self.left -= count
            return bytes(count)

    sound = LiveSound(Endless()).open()  # type: ignore[arg-type]
    num_samples = 0
    tracemalloc.start()
    try:
        for piece in sound.pieces:
            num_samples += len(piece)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert num_samples == 7_200 * RATE_HZ
    assert peak < 8_000_000


def test_voices_of_speech_programs(toy_checkpoint, toy_picture, tmp_path, monkeypatch):
    """Real writers of WAV on a pipe, where they are installed."""
    import shutil
    import subprocess

    monkeypatch.chdir(tmp_path)
    command = ["render", str(toy_picture), "-", "--checkpoint", str(toy_checkpoint)]
    command += ["--device", "cpu", "-q", "-o"]
    programs = {
        "espeak-ng": "espeak-ng --stdout Hi",
        "flite": "flite -t Hi -o /dev/stdout",
    }
    present = {name: line for name, line in programs.items() if shutil.which(name)}
    if not present:
        pytest.skip("neither espeak-ng nor flite is installed")
    for name, line in present.items():
        with subprocess.Popen(line.split(), stdout=subprocess.PIPE) as writer:
            done = run_program([*command, f"{name}.mp4"], stdin=writer.stdout)
        assert writer.returncode == 0
        assert (done.returncode, done.stderr) == (0, b"")
        assert (tmp_path / f"{name}.mp4").stat().st_size > 1_000
