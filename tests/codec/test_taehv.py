"""The tiny decoder: the published layout key by key, exact streaming, and the codec around it."""

import json
import random

import pytest
import torch
from torch.nn import functional

from joyflash_cli.codec.taehv import (
    FastDecodeCodec,
    TaehvConfig,
    TaehvDecoder,
    TaehvDecodingState,
    taehv_from_state,
)
from joyflash_cli.codec.tiny import TinyCodec, TinyCodecConfig
from joyflash_cli.errors import CheckpointError, UsageError

SMALL = TaehvConfig(latent_channels=4, widths=(12, 8, 6, 6))
GRID = (3, 2)
MEMORY_LAYERS = (3, 4, 5, 9, 10, 11, 15, 16, 17)


def decoder_of(config: TaehvConfig = SMALL, seed: int = 0) -> TaehvDecoder:
    torch.manual_seed(seed)
    return TaehvDecoder(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def decoder() -> TaehvDecoder:
    return decoder_of()


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return torch.randn(2, 7, 4, *GRID, generator=torch.Generator().manual_seed(1))


def decode_in_chunks(decoder, latents, sizes):
    state, chunks = TaehvDecodingState(), []
    for part in latents.split(sizes, dim=1):
        frames, state = decoder.decode(part, state)
        chunks.append(frames)
    return chunks, state


def decode_all_times_at_once(weights: dict, latents: torch.Tensor) -> torch.Tensor:
    """The network written out over the whole clip, layer by layer, from its weights alone."""

    def conv(x, name, padding=1):
        bias = weights.get(f"decoder.{name}.bias")
        return functional.conv2d(x, weights[f"decoder.{name}.weight"], bias, padding=padding)

    batch = len(latents)
    x = torch.tanh(latents.flatten(0, 1) / 3) * 3
    x = conv(x, "1").relu()
    for stage, growth in enumerate((1, 2, 2)):
        first = 3 + 6 * stage
        for layer in range(first, first + 3):
            steps = x.unflatten(0, (batch, -1))
            earlier = functional.pad(steps, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1].flatten(0, 1)
            y = conv(torch.cat((x, earlier), 1), f"{layer}.conv.0").relu()
            y = conv(y, f"{layer}.conv.2").relu()
            x = (conv(y, f"{layer}.conv.4") + x).relu()
        x = functional.interpolate(x, scale_factor=2, mode="nearest")
        x = conv(x, f"{first + 4}.conv", padding=0)
        channels = x.shape[1] // growth
        x = torch.stack(x.split(channels, dim=1), dim=1).flatten(0, 1)
        x = conv(x, f"{first + 5}")
    frames = conv(x.relu(), "22").unflatten(0, (batch, -1))[:, 3:]
    return frames.clamp(0, 1) * 2 - 1


def test_names_and_shapes_are_the_published_ones(repository):
    """The table was written from the layout of taew2_1, without the encoder."""
    table = json.loads((repository / "tests/data/taehv_layout.json").read_text())
    with torch.device("meta"):
        decoder = TaehvDecoder(TaehvConfig())
    assert {name: list(p.shape) for name, p in decoder.state_dict().items()} == table
    assert sum(p.numel() for p in decoder.parameters()) == 9_844_611


def test_blocks_of_three_give_9_12_12_frames(decoder, latents):
    chunks, state = decode_in_chunks(decoder, latents, [3, 3, 1])
    assert [chunk.shape for chunk in chunks] == [
        (2, 9, 3, 24, 16), (2, 12, 3, 24, 16), (2, 4, 3, 24, 16)
    ]  # fmt: skip
    assert state.num_latents == 7


def test_any_chunking_gives_the_same_bits(decoder, latents):
    (whole,), _ = decode_in_chunks(decoder, latents, [7])
    assert whole.shape[1] == 4 * 7 - 3
    choose = random.Random(0)
    for _ in range(6):
        cuts = sorted(choose.sample(range(1, 7), choose.randint(1, 6)))
        sizes = [b - a for a, b in zip([0, *cuts], [*cuts, 7], strict=True)]
        chunks, _ = decode_in_chunks(decoder, latents, sizes)
        assert torch.equal(torch.cat(chunks, dim=1), whole), sizes


def test_streaming_is_the_whole_clip_at_once(decoder, latents):
    chunks, _ = decode_in_chunks(decoder, latents, [3, 4])
    expected = decode_all_times_at_once(decoder.state_dict(), latents)
    torch.testing.assert_close(torch.cat(chunks, dim=1), expected, atol=1e-5, rtol=0)


def test_history_matters(decoder, latents):
    """Two fresh streams are not one stream: the property above is not vacuous."""
    (whole,), _ = decode_in_chunks(decoder, latents, [7])
    (late,), _ = decode_in_chunks(decoder, latents[:, 3:], [4])
    assert not torch.allclose(whole[:, 9:13], late[:, :4], atol=1e-3)


def test_a_state_is_a_value(decoder, latents):
    _, state = decoder.decode(latents[:, :2], TaehvDecodingState())
    kept = [memory.clone() for memory in state.memories]
    first, _ = decoder.decode(latents[:, 2:5], state)
    second, _ = decoder.decode(latents[:, 2:5], state)
    assert torch.equal(first, second)
    assert all(map(torch.equal, kept, state.memories))


def test_the_state_holds_one_time_step_per_remembering_layer(decoder, latents):
    _, state = decoder.decode(latents, TaehvDecodingState())
    assert len(state.memories) == len(MEMORY_LAYERS)
    held = sum(memory.untyped_storage().nbytes() for memory in state.memories)
    assert held == sum(memory.numel() * 4 for memory in state.memories)


def test_frames_stay_in_range(decoder, latents):
    frames, _ = decoder.decode(latents * 1e4, TaehvDecodingState())
    assert frames.min() >= -1
    assert frames.max() <= 1


def test_weights_of_a_whole_file_are_read(decoder, latents):
    """The encoder, which files hold too, is left out; half precision is widened."""
    state = {name: value.half() for name, value in decoder.state_dict().items()}
    state |= {"encoder.0.weight": torch.zeros(64, 3, 3, 3)}
    loaded = taehv_from_state(state, dtype=torch.float32)
    assert loaded.config == SMALL
    got, _ = loaded.decode(latents, TaehvDecodingState())
    expected, _ = decoder.decode(latents, TaehvDecodingState())
    torch.testing.assert_close(got, expected, atol=2e-3, rtol=0)


def test_of_too_many_time_steps_the_newest_are_kept(decoder, latents):
    state = dict(decoder.state_dict())
    name = "decoder.7.conv.weight"
    state[name] = torch.cat((torch.randn_like(state[name]), state[name]))
    loaded = taehv_from_state(state)
    got, _ = loaded.decode(latents[:, :2], TaehvDecodingState())
    expected, _ = decoder.decode(latents[:, :2], TaehvDecodingState())
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("decoder.1.weight"), "decoder.1.weight is missing"),
        (lambda s: s.pop("decoder.9.conv.2.bias"), r"decoder\.9\.conv\.2\.bias"),
        (lambda s: s.update({"decoder.99.weight": torch.zeros(1)}), "decoder.99.weight"),
        (lambda s: s.update({"decoder.22.weight": torch.zeros(12, 6, 3, 3)}), "12 channels"),
        (lambda s: s.update({"decoder.3.conv.0.weight": torch.zeros(12, 12, 3, 3)}), "size mism"),
    ],
)
def test_other_layouts_are_refused(decoder, change, words):
    state = dict(decoder.state_dict())
    change(state)
    with pytest.raises(CheckpointError, match=words) as caught:
        taehv_from_state(state)
    assert caught.value.code == "E-CHECKPOINT-LAYOUT"
    assert "\n" not in str(caught.value)


class LargeCodec:
    """Stands for the large VAE: known latents, and a decoder that must not be used."""

    latent_channels = 4
    spatial_stride = 8

    def reference_latents(self, reference):
        return functional.avg_pool2d(reference, 8).repeat(1, 2, 1, 1)[:, :4]

    def encode(self, frames, reference):
        return self.reference_latents(frames[:, 0])[:, None]

    def start_decoding(self, reference, *, seed=None):
        raise AssertionError("the large decoder is not to be used")

    decode = start_decoding

    def padded_clip_latents(self, reference, num_latents=21):
        return self.reference_latents(reference)[:, None].expand(-1, num_latents, -1, -1, -1)


def test_pictures_are_encoded_by_the_large_codec_and_decoded_by_the_tiny_one(decoder, latents):
    large = LargeCodec()
    codec = FastDecodeCodec(large, decoder)
    picture = torch.rand(2, 3, 24, 16)
    assert torch.equal(codec.reference_latents(picture), large.reference_latents(picture))
    assert torch.equal(codec.encode(picture[:, None], picture), large.encode(picture[:, None], 0))
    assert codec.padded_clip_latents(picture, 5).shape[1] == 5
    got, _ = codec.decode(latents, codec.start_decoding(picture))
    expected, _ = decoder.decode(latents, TaehvDecodingState())
    assert torch.equal(got, expected)


def test_latents_of_another_kind_are_refused(decoder):
    tiny = TinyCodec(TinyCodecConfig())
    with pytest.raises(UsageError, match=r"\(4 channels, stride 8\).* has 12 channels") as caught:
        FastDecodeCodec(tiny, decoder)
    assert caught.value.code == "E-FAST-DECODE"


def both_ways():
    from joyflash_cli.codec.taehv import TaehvEncoder, taehv_codec_from_state

    torch.manual_seed(3)
    decoder = TaehvDecoder(TaehvConfig(widths=(16, 12, 8, 8)))
    state = decoder.state_dict() | TaehvEncoder(8, 16).state_dict()
    return taehv_codec_from_state(state), state


def test_a_clip_is_filled_up_at_its_end_with_its_last_frame():
    """Five frames are two latents: 0..3, and frame 4 four times."""
    codec, _ = both_ways()
    clip = torch.rand(1, 5, 3, 16, 24) * 2 - 1
    filled = torch.cat((clip, clip[:, 4:].expand(-1, 3, -1, -1, -1)), dim=1)
    latents = codec.encode(clip, clip[:, 0])
    assert latents.shape == (1, 2, 16, 2, 3)
    assert torch.equal(latents, codec.encode(filled, clip[:, 0]))
    # A latent hears what was before it, and nothing that comes.
    assert torch.equal(latents[:, :1], codec.encode(clip[:, :4], clip[:, 0]))
    assert not torch.allclose(latents[:, 1:], codec.encode(filled[:, 4:], clip[:, 4]), atol=1e-4)


def test_what_is_encoded_decodes_to_as_many_frames():
    codec, _ = both_ways()
    clip = torch.rand(2, 33, 3, 16, 16) * 2 - 1
    frames, _ = codec.decode(codec.encode(clip, clip[:, 0]), codec.start_decoding())
    assert frames.shape == clip.shape
    assert torch.equal(
        codec.reference_latents(clip[:, 0]), codec.encode(clip[:, :1], clip[:, 0])[:, 0]
    )


def test_an_encoder_that_is_missing_or_strange_is_refused():
    from joyflash_cli.codec.taehv import taehv_codec_from_state

    _, state = both_ways()
    decoder = {name: value for name, value in state.items() if name.startswith("decoder.")}
    lacking = {name: value for name, value in state.items() if name != "encoder.17.bias"}
    for wrong in (decoder, lacking, state | {"encoder.99.weight": torch.ones(1)}):
        with pytest.raises(CheckpointError) as caught:
            taehv_codec_from_state(wrong)
        assert caught.value.code == "E-CHECKPOINT-LAYOUT"
