"""What every test may use: checked tensor shapes, and a small random checkpoint."""

import json
import os
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Two cores are shared by several workers; no result may depend on the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Two busy cores make any single example slow now and then; time is measured in benchmarks.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

# Inert for users; under test every annotated tensor function checks shapes and dtypes.
install_import_hook(
    ["joyflash_cli.model", "joyflash_cli.sampler", "joyflash_cli.codec"], "beartype.beartype"
)

REPOSITORY = Path(__file__).resolve().parents[1]

# Programs that tests start must run this checkout, wherever they are started.
_paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
os.environ["PYTHONPATH"] = os.pathsep.join(_paths)

TOY_SIZE_PX = 64
TOY_AUDIO_S = 1.3
TOY_RATE_HZ = 24_000


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's top folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def toy_checkpoint(tmp_path_factory) -> Path:
    """A checkpoint directory of small random weights: 64 px, two layers, every part real."""
    import torch

    from joyflash_cli.checkpoints.state_dict import save_state_dict
    from joyflash_cli.codec.tiny import TinyCodec, TinyCodecConfig
    from joyflash_cli.config import to_dict
    from joyflash_cli.encoders.front_end import FrontEnd, FrontEndConfig
    from joyflash_cli.media.framing import FramingRule
    from joyflash_cli.model.config import AudioAttentionConfig, TransformerConfig
    from joyflash_cli.model.transformer import CausalTransformer
    from joyflash_cli.sampler.profile import SamplerProfile

    folder = tmp_path_factory.mktemp("checkpoint") / "toy"
    folder.mkdir()
    front_end = FrontEndConfig(num_mels=8, stem_width=8, hidden=10, num_blocks=1)
    codec = TinyCodecConfig(
        latent_channels=4, encoder_dim=16, latent_dim=16, num_latent_layers=1, decoder_dim=16,
        reference_dim=8,
    )  # fmt: skip
    transformer = TransformerConfig(
        dim=32,
        num_layers=2,
        num_heads=2,
        ffn_dim=64,
        in_channels=9,
        out_channels=4,
        audio_attention=AudioAttentionConfig(audio_dim=16, tokens_per_latent=8, projection_dim=32),
        audio_modulation=True,
        prediction="clean",
    )
    description = {
        "format": 1,
        "name": "toy",
        "version": "1",
        "licence": "CC0-1.0",
        "transformer": to_dict(transformer),
        "codec": to_dict(codec),
        "front_end": to_dict(front_end),
        "sampler": to_dict(SamplerProfile(fps=25)),
        "framing": to_dict(FramingRule(TOY_SIZE_PX, 0.5, 0.5, 0.6)),
    }
    (folder / "checkpoint.json").write_text(json.dumps(description))
    torch.manual_seed(0)
    modules = {
        "transformer": CausalTransformer(transformer),
        "codec": TinyCodec(codec),
        "front_end": FrontEnd(front_end),
    }
    for part, module in modules.items():
        for parameter in module.parameters():
            # Zero-initialised ends would make every output a copy of the reference.
            if parameter.abs().max() == 0:
                torch.nn.init.normal_(parameter, std=0.05)
        save_state_dict(module, folder / f"{part}.safetensors")
    return folder


@pytest.fixture(scope="session")
def toy_picture(tmp_path_factory) -> Path:
    """A smooth picture without a face: framed by a centre crop, with a warning."""
    from PIL import Image

    rows, columns = np.mgrid[0:96, 0:80]
    pixels = np.stack([rows * 2, columns * 3, (rows + columns)], axis=-1).astype(np.uint8)
    path = tmp_path_factory.mktemp("picture") / "face.png"
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
