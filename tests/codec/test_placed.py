"""A codec on another device: what it is given and what the transformer gets is moved."""

import torch

from joyflash_cli.codec.protocol import PlacedCodec

THERE = torch.device("meta")
HERE = torch.device("cpu")


class RemoteCodec:
    """Takes tensors of one device only, and says what it was given."""

    latent_channels = 4
    spatial_stride = 8

    def __init__(self) -> None:
        self.calls: list[str] = []

    def _seen(self, name: str, *tensors: torch.Tensor) -> None:
        assert all(tensor.device == THERE for tensor in tensors), name
        self.calls.append(name)

    def reference_latents(self, reference):
        self._seen("reference_latents", reference)
        return torch.zeros(1, 4, 2, 2)

    def padded_clip_latents(self, reference, num_latents):
        self._seen("padded_clip_latents", reference)
        return torch.zeros(1, num_latents, 4, 2, 2)

    def encode(self, frames, reference):
        self._seen("encode", frames, reference)
        return torch.zeros(1, 1, 4, 2, 2)

    def start_decoding(self, reference, *, seed=None):
        self._seen("start_decoding", reference)
        return 0

    def decode(self, latents, state):
        self._seen("decode", latents)
        return torch.zeros(1, 4 * latents.shape[1], 3, 16, 16, device=THERE), state + 1


def test_everything_is_moved_there_and_latents_are_moved_back():
    remote = RemoteCodec()
    codec = PlacedCodec(remote, device=THERE, home=HERE)
    picture = torch.zeros(1, 3, 16, 16)
    assert (codec.latent_channels, codec.spatial_stride) == (4, 8)
    assert codec.reference_latents(picture).device == HERE
    assert codec.encode(picture[:, None], picture).device == HERE
    assert codec.padded_clip_latents(picture, 3).shape[1] == 3
    state = codec.start_decoding(picture)
    frames, state = codec.decode(torch.zeros(1, 3, 4, 2, 2), state)
    assert frames.device == THERE
    assert state == 1
    assert remote.calls == [
        "reference_latents", "encode", "padded_clip_latents", "start_decoding", "decode"
    ]  # fmt: skip


def test_nothing_changes_on_the_same_device():
    class LocalCodec(RemoteCodec):
        def _seen(self, name, *tensors):
            self.calls.append(name)

        def decode(self, latents, state):
            return latents.repeat(1, 4, 1, 1, 1)[:, :, :3], state

    latents = torch.randn(1, 3, 4, 2, 2)
    placed = PlacedCodec(LocalCodec(), device=HERE, home=HERE)
    expected, _ = LocalCodec().decode(latents, 0)
    assert torch.equal(placed.decode(latents, 0)[0], expected)
