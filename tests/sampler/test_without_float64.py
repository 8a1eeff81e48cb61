"""A device without float64, as Apple's: tables are made on the CPU, the rest is done without."""

import pytest
import torch
from presets import AVATARFORCING, LIVETALK
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy_stream import CONFIG, SHAPE, ToySource, toy_stream, toy_transformer

from joyflash_cli import types
from joyflash_cli.codec.tiny import TinyCodec, TinyCodecConfig
from joyflash_cli.encoders.front_end import FrontEnd, FrontEndConfig
from joyflash_cli.model.rope import rope_rotations
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.settings import PAPER, TINY
from joyflash_cli.sampler.solver import clean_from_flow, flow_from_clean

DEVICE = torch.device("meta")
"""Stands for such a device: no numbers, but all operations, sizes and formats."""

ONE_NUMBER = (torch.ops.aten.is_nonzero.default, torch.ops.aten._local_scalar_dense.default)


class WithoutFloat64(TorchDispatchMode):
    """Refuses every double on the device; what leaves it is ones, and numbers asked for count."""

    num_asked = 0

    def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if function in ONE_NUMBER and given[0].is_meta:
            self.num_asked += 1
            return True
        target = kwargs.get("device")
        if given and given[0].is_meta and target is not None and torch.device(target) != DEVICE:
            return torch.ones(given[0].shape, dtype=kwargs.get("dtype") or given[0].dtype)
        result = function(*args, **kwargs)
        for tensor in [*given, *tree_leaves(result)]:
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                assert tensor.dtype not in (torch.float64, torch.complex128), function
        return result


@pytest.fixture(autouse=True)
def _device(monkeypatch):
    monkeypatch.setattr(types, "LACKS_FLOAT64", ("mps", "meta"))


class SourceOnDevice(ToySource):
    def frames(self, start, stop):
        found = super().frames(start, stop)
        return found.with_frames(audio=found.audio.to(DEVICE))


@pytest.mark.parametrize(
    ("profile", "dtype"),
    [
        (PAPER, torch.float16),
        (TINY, torch.float32),
        (LIVETALK, torch.float32),
        (AVATARFORCING, torch.float16),
    ],
)
def test_a_stream_is_sampled(profile, dtype):
    with torch.inference_mode(), WithoutFloat64() as device:
        stream = toy_stream(
            profile,
            3,
            transformer=toy_transformer().to(DEVICE, dtype),
            source=SourceOnDevice(3),
            noise=SeededNoise(0, SHAPE, device=DEVICE),
            reference_latent=torch.zeros(1, *SHAPE, device=DEVICE),
        )
        blocks = list(stream.blocks())
    assert len(blocks) == 3
    assert device.num_asked == 0  # the host never waits for a number
    assert all(block.latents.device == DEVICE for block in blocks)


def test_pictures_are_encoded_and_decoded_and_sound_is_heard():
    config = TinyCodecConfig(
        latent_channels=4, encoder_dim=16, latent_dim=16, num_latent_layers=1, decoder_dim=16,
        reference_dim=8, flow_seam_limit=0.0,  # the stand-in has no autocast
    )  # fmt: skip
    codec = TinyCodec(config).eval().to(DEVICE)
    front_end = FrontEnd(FrontEndConfig(num_mels=8, stem_width=8, hidden=10, num_blocks=1))
    front_end = front_end.eval().to(DEVICE)
    picture = torch.zeros(1, 3, 64, 64, device=DEVICE)
    with torch.inference_mode(), WithoutFloat64():
        latents = codec.encode(picture[:, None], picture).repeat(1, 2, 1, 1, 1)
        frames, _ = codec.decode(latents, codec.start_decoding(picture))
        heard = front_end.encode(torch.zeros(16_000, device=DEVICE), 25)
    assert frames.device == heard.device == DEVICE


def test_the_numbers_are_those_of_a_device_with_float64(monkeypatch):
    monkeypatch.setattr(types, "LACKS_FLOAT64", ())
    positions, latents = torch.tensor([0, 7, 100_000]), torch.randn(2, 3, *SHAPE)
    flow = torch.randn(2, 3, *SHAPE)
    timesteps = torch.full((2, 3), 937.5)
    sigma = timesteps[..., None, None, None] / 1000
    exact = rope_rotations(positions, (2, 3), head_dim=CONFIG.head_dim)
    clean, back = clean_from_flow(latents, flow, sigma), flow_from_clean(latents, flow, sigma)
    monkeypatch.setattr(types, "LACKS_FLOAT64", ("cpu",))
    assert torch.equal(rope_rotations(positions, (2, 3), head_dim=CONFIG.head_dim), exact)
    assert torch.allclose(clean_from_flow(latents, flow, sigma), clean, atol=1e-6)
    assert torch.allclose(flow_from_clean(latents, flow, sigma), back, atol=1e-6)
