"""Random sizes against the libraries that people run these models with today.

Small and few examples of each: the point is that nothing is right only at the recorded sizes.
"""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from public_layouts import from_public  # noqa: E402

from joyflash_cli.encoders.wav2vec2 import (  # noqa: E402
    Wav2Vec2Encoder,
    Wav2Vec2Options,
    wav2vec2_module,  # noqa: E402
)
from joyflash_cli.model.config import TransformerConfig  # noqa: E402
from joyflash_cli.model.transformer import CausalTransformer  # noqa: E402
from joyflash_cli.types import Conditioning  # noqa: E402
from joyflash_cli.weights.convert_names import DIFFUSERS_NAMES  # noqa: E402

FEW = settings(max_examples=6, deadline=None, derandomize=True, database=None)


def disturbed(module, seed):
    """The module with no weight left at a value that hides something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return module.eval()


@st.composite
def transformers_of_any_size(draw):
    heads, half = draw(st.integers(1, 4)), draw(st.integers(3, 8))
    return {
        "num_heads": heads,
        "head_dim": 2 * half,
        "num_layers": draw(st.integers(1, 3)),
        "ffn_dim": draw(st.integers(4, 30)),
        "freq_dim": 2 * draw(st.integers(2, 9)),
        "text_dim": draw(st.integers(1, 9)),
        # diffusers takes 512 for granted where there are image tokens.
        "text_len": draw(st.integers(1, 7)),
        "channels": draw(st.integers(1, 5)),
        "image_channels": draw(st.integers(0, 4)),
        "grid": (2 * draw(st.integers(1, 4)), 2 * draw(st.integers(1, 4))),
        "frames": draw(st.integers(1, 4)),
        "batch": draw(st.integers(1, 3)),
        "seed": draw(st.integers(0, 1000)),
    }


@FEW
@given(transformers_of_any_size())
@torch.no_grad()
def test_the_transformer_is_diffusers_wan(sizes):
    from diffusers import WanTransformer3DModel

    torch.manual_seed(sizes["seed"])
    dim = sizes["num_heads"] * sizes["head_dim"]
    in_channels = sizes["channels"] + sizes["image_channels"]
    theirs = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=sizes["num_heads"],
        attention_head_dim=sizes["head_dim"], in_channels=in_channels,
        out_channels=sizes["channels"], text_dim=sizes["text_dim"], freq_dim=sizes["freq_dim"],
        ffn_dim=sizes["ffn_dim"], num_layers=sizes["num_layers"], cross_attn_norm=True,
        qk_norm="rms_norm_across_heads", rope_max_seq_len=32,
    )  # fmt: skip
    disturbed(theirs, sizes["seed"])
    config = TransformerConfig(
        dim=dim, num_layers=sizes["num_layers"], num_heads=sizes["num_heads"],
        ffn_dim=sizes["ffn_dim"], in_channels=in_channels, out_channels=sizes["channels"],
        freq_dim=sizes["freq_dim"], text_dim=sizes["text_dim"], text_len=sizes["text_len"],
    )  # fmt: skip
    ours = CausalTransformer(config).eval()
    ours.load_state_dict(from_public(theirs.state_dict(), config, names=DIFFUSERS_NAMES))
    batch, frames, (rows, columns) = sizes["batch"], sizes["frames"], sizes["grid"]
    x = torch.randn(batch, frames, sizes["channels"], rows, columns)
    image = torch.randn(batch, frames, sizes["image_channels"], rows, columns)
    text = torch.randn(batch, sizes["text_len"], sizes["text_dim"])
    timesteps = 1000 * torch.rand(batch, frames)
    conditioning = Conditioning(image=image if sizes["image_channels"] else None, text=text)
    found = ours(x, timesteps, conditioning, positions=torch.arange(frames)).prediction
    tokens = rows * columns // 4
    expected = theirs(
        torch.cat((x, image), dim=2).transpose(1, 2),
        timesteps.repeat_interleave(tokens, dim=1),
        text,
        return_dict=False,
    )[0].transpose(1, 2)
    assert (found - expected).abs().max() < 5e-5 * max(1.0, float(expected.abs().max()))


@FEW
@given(
    base=st.sampled_from([4, 6, 8]),
    latent_channels=st.integers(1, 6),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    chunks=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    batch=st.integers(1, 2),
)
@torch.no_grad()
def test_the_codec_is_diffusers_vae_in_any_chunks(base, latent_channels, grid, chunks, batch):
    from joyflash_cli.codec.wan import WanCodec, wan_vae_module

    torch.manual_seed(base + latent_channels)
    # Numbers whose products are exact: the norms of so few channels would magnify a rounding.
    statistics = {
        "latents_mean": [(3 * i % 7 - 3) / 8 for i in range(latent_channels)],
        "latents_std": [2.0 ** (i % 3 - 1) for i in range(latent_channels)],
    }
    vae = disturbed(
        wan_vae_module({"base_dim": base, "z_dim": latent_channels, **statistics}), base
    )
    codec = WanCodec(vae)
    latents = torch.randn(batch, sum(chunks), latent_channels, *grid)
    state, parts = codec.start_decoding(), []
    for part in latents.split(chunks, dim=1):
        frames, state = codec.decode(part, state)
        parts.append(frames)
    found = torch.cat(parts, dim=1)
    mean, std = (
        torch.tensor(statistics[name]).view(1, -1, 1, 1, 1)
        for name in ("latents_mean", "latents_std")
    )
    expected = vae.decode(latents.transpose(1, 2) * std + mean).sample.transpose(1, 2)
    assert found.shape == expected.shape == (
        batch, 4 * sum(chunks) - 3, 3, 8 * grid[0], 8 * grid[1]
    )  # fmt: skip
    assert (found - expected.clamp(-1, 1)).abs().max() < 2e-5


@FEW
@given(
    heads=st.integers(1, 3),
    width=st.sampled_from([4, 8]),
    layers=st.integers(1, 3),
    rows=st.integers(1, 40),
    norm=st.sampled_from(["group", "layer"]),
    stable=st.booleans(),
)
@torch.no_grad()
def test_audio_rows_are_transformers_hidden_states(heads, width, layers, rows, norm, stable):
    torch.manual_seed(layers)
    dim = 4 * heads * width
    model = wav2vec2_module(
        {
            "hidden_size": dim, "num_hidden_layers": layers, "num_attention_heads": heads,
            "intermediate_size": 12, "conv_dim": [5] * 7, "num_conv_pos_embeddings": 6,
            "num_conv_pos_embedding_groups": 4, "feat_extract_norm": norm,
            "conv_bias": norm == "layer", "do_stable_layer_norm": stable,
        }
    )  # fmt: skip
    disturbed(model, layers)
    options = Wav2Vec2Options(rate_hz=50.0, resampling="none")
    encoder = Wav2Vec2Encoder(model, options)
    sound = torch.randn(20_000)
    stages = encoder.encode_stages(sound, rows)
    expected = model(stages.normalised, output_hidden_states=True)
    assert len(expected.hidden_states) == layers + 1
    for ours, theirs in zip(stages.hidden_states[:-1], expected.hidden_states[:-1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)
    last = stages.hidden_states[-1]
    torch.testing.assert_close(last, expected.last_hidden_state, atol=2e-5, rtol=2e-5)
    assert encoder.encode(sound, rows).shape == (rows, (layers + 2) * dim)


@FEW
@given(
    heads=st.integers(1, 3),
    width=st.integers(2, 6),
    layers=st.integers(1, 3),
    tokens=st.integers(1, 9),
    padding=st.integers(0, 6),
)
@torch.no_grad()
def test_text_states_are_umt5s_with_masked_padding(heads, width, layers, tokens, padding):
    """What Wan pads and masks, the product leaves out."""
    from transformers import UMT5Config, UMT5EncoderModel

    from joyflash_cli.encoders.text import text_encoder_module

    torch.manual_seed(heads)
    sizes = {
        "vocab_size": 11, "d_model": 2 * heads * width, "num_heads": heads, "d_kv": width,
        "d_ff": 9, "num_layers": layers, "relative_attention_num_buckets": 8,
    }  # fmt: skip
    theirs = UMT5EncoderModel(UMT5Config(feed_forward_proj="gated-gelu", **sizes))
    disturbed(theirs, heads)
    ours = text_encoder_module(sizes).eval()
    ours.load_state_dict(theirs.encoder.state_dict())
    ids = torch.randint(1, 11, (1, tokens))
    padded = torch.nn.functional.pad(ids, (0, padding))
    mask = (torch.arange(tokens + padding) < tokens)[None].long()
    expected = theirs(input_ids=padded, attention_mask=mask).last_hidden_state[:, :tokens]
    found = ours(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


def test_sizes_that_cannot_be_are_still_refused():
    from joyflash_cli.errors import ConfigError

    with pytest.raises(ConfigError, match="heads of even width"):
        dataclasses.replace(
            TransformerConfig(dim=12, num_layers=1, num_heads=2, ffn_dim=4, in_channels=16),
            num_heads=4,
        )
