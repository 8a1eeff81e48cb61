"""What every test may use: checked tensor shapes, and a small random checkpoint."""

import os
import wave
from pathlib import Path

import numpy as np
import pytest
from checked import CHECKED_PACKAGES
from hypothesis import settings
from jaxtyping import install_import_hook
from programs import spawn_quickly
from toy_checkpoint import write_toy_checkpoint

# Two cores are shared by several workers; no result may depend on the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Two busy cores make any single example slow now and then; time is measured in benchmarks.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

# Inert for users; under test every annotated tensor function checks shapes and dtypes.
for typechecker, packages in CHECKED_PACKAGES.items():
    install_import_hook([f"joyflash_cli.{name}" for name in packages], typechecker)

REPOSITORY = Path(__file__).resolve().parents[1]

# Programs that tests start must run this checkout, wherever they are started.
_paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
os.environ["PYTHONPATH"] = os.pathsep.join(_paths)

spawn_quickly()

TOY_PICTURE_PX = (128, 160)
TOY_AUDIO_S = 1.3
TOY_RATE_HZ = 24_000


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's top folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def toy_checkpoint(tmp_path_factory) -> Path:
    """A checkpoint directory of small random weights: 64 px, two layers, every part real."""
    folder = tmp_path_factory.mktemp("checkpoint") / "toy"
    folder.mkdir()
    write_toy_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def toy_picture(tmp_path_factory) -> Path:
    """The example's face, small and not square."""
    from PIL import Image

    path = tmp_path_factory.mktemp("picture") / "face.png"
    with Image.open(REPOSITORY / "examples" / "face.png") as face:
        side = face.width
        portrait = face.convert("RGB").crop((side // 10, 0, side - side // 10, side))
    portrait.resize(TOY_PICTURE_PX, Image.Resampling.LANCZOS).save(path)
    return path


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """The example's face, ``(512, 512, 3)`` uint8."""
    from PIL import Image

    with Image.open(REPOSITORY / "examples" / "face.png") as face:
        return np.array(face.convert("RGB"))


@pytest.fixture(scope="session")
def faceless_picture(tmp_path_factory) -> Path:
    """A smooth picture without a face."""
    from PIL import Image

    rows, columns = np.mgrid[0:96, 0:80]
    pixels = np.stack([rows * 2, columns * 3, (rows + columns)], axis=-1).astype(np.uint8)
    path = tmp_path_factory.mktemp("picture") / "sunset.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def toy_voice(tmp_path_factory) -> Path:
    """``TOY_AUDIO_S`` of a swelling tone, mono 16-bit WAV."""
    path = tmp_path_factory.mktemp("voice") / "talk.wav"
    write_tone(path, TOY_AUDIO_S)
    return path


def write_tone(path: Path, duration_s: float, rate_hz: int = TOY_RATE_HZ) -> Path:
    """A 220 Hz tone that swells three times a second."""
    times = np.arange(round(duration_s * rate_hz)) / rate_hz
    tone = np.sin(2 * np.pi * 220 * times) * (0.5 + 0.4 * np.sin(2 * np.pi * 3 * times))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((tone * 20_000).astype("<i2").tobytes())
    return path


@pytest.fixture
def hub_case(tmp_path, monkeypatch):
    """A Hub on loopback that serves tiny repositories, with an empty cache and lock file."""
    from hub_case import open_hub_case

    with open_hub_case(tmp_path, monkeypatch) as case:
        yield case
