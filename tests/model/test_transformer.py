"""The transformer against diffusers' Wan, against itself with a cache, and its parts at zero."""

import dataclasses

import pytest
import torch
from public_layouts import from_public

from joyflash_cli.errors import ConfigError
from joyflash_cli.model.attention import block_causal_mask
from joyflash_cli.model.config import (
    AudioAttentionConfig,
    AudioPackConfig,
    FaceAttentionConfig,
    TransformerConfig,
)
from joyflash_cli.model.initialisation import initialise
from joyflash_cli.model.transformer import CausalTransformer, Context
from joyflash_cli.types import Conditioning
from joyflash_cli.weights.convert_names import DIFFUSERS_NAMES

TEXT = TransformerConfig(
    dim=24, num_layers=4, num_heads=2, ffn_dim=32, freq_dim=16, in_channels=4, out_channels=4,
    text_dim=10, text_len=6,
)  # fmt: skip
EARS = AudioAttentionConfig(audio_dim=5, tokens_per_latent=3, projection_dim=12)
TALKER = dataclasses.replace(
    TEXT, text_dim=None, in_channels=9, audio_attention=EARS, audio_modulation=True,
    prediction="clean", position_embedding=4,
)  # fmt: skip


def random_model(config: TransformerConfig, seed: int = 0) -> CausalTransformer:
    """A model without a single zero in it."""
    generator = torch.Generator().manual_seed(seed)
    model = CausalTransformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15)
    return model


def randn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def talker_conditioning(num_frames: int, batch: int = 1) -> Conditioning:
    return Conditioning(
        image=randn(batch, num_frames, 5, 4, 4, seed=2), audio=randn(batch, num_frames, 3, 5)
    )


@pytest.mark.parametrize("with_image", [False, True])
@torch.no_grad()
def test_equals_diffusers(with_image):
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    image = {"image_dim": 14, "added_kv_proj_dim": 24} if with_image else {}
    theirs = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12,
        in_channels=9 if with_image else 4, out_channels=4, text_dim=10, freq_dim=16, ffn_dim=32,
        num_layers=3, cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=32,
        **image,
    ).eval()  # fmt: skip
    for parameter in theirs.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    config = dataclasses.replace(
        TEXT, num_layers=3, text_len=512 if with_image else 6,
        in_channels=9 if with_image else 4, image_token_dim=14 if with_image else None,
    )  # fmt: skip
    ours = CausalTransformer(config).eval()
    ours.load_state_dict(from_public(theirs.state_dict(), config, names=DIFFUSERS_NAMES))

    num_frames, tokens = 3, 6
    x, y = randn(2, num_frames, 4, 4, 6), randn(2, num_frames, 5, 4, 6, seed=2)
    text, clip = randn(2, config.text_len, 10, seed=3), randn(2, 7, 14, seed=4)
    timesteps = torch.tensor([[625.0, 937.5, 1000.0], [0.0, 416.7, 833.3]])
    conditioning = Conditioning(
        image=y if with_image else None, text=text, image_tokens=clip if with_image else None
    )
    prediction = ours(x, timesteps, conditioning, positions=torch.arange(num_frames)).prediction
    full = torch.cat((x, y), dim=2) if with_image else x
    expected = theirs(
        full.transpose(1, 2),
        timesteps.repeat_interleave(tokens, dim=1),
        text,
        encoder_hidden_states_image=clip if with_image else None,
        return_dict=False,
    )[0].transpose(1, 2)
    assert (prediction - expected).abs().max() < 2e-5


@pytest.mark.parametrize("config", [TEXT, TALKER], ids=["text", "talker"])
@torch.no_grad()
def test_cached_stream_equals_one_masked_pass(config):
    model = random_model(config)
    x, timesteps = randn(1, 6, 4, 4, 4), torch.zeros(1, 6)
    whole = talker_conditioning(6) if config is TALKER else Conditioning(text=randn(1, 6, 10))
    mask = block_causal_mask(6, 2, 4)
    full = model(x, timesteps, whole, positions=torch.arange(6), mask=mask)
    context = None
    for start in (0, 2, 4):
        part = slice(start, start + 2)
        conditioning = dataclasses.replace(
            whole,
            image=None if whole.image is None else whole.image[:, part],
            audio=None if whole.audio is None else whole.audio[:, part],
        )
        # Any common shift of the positions must do.
        own = torch.arange(start, start + 2) + 7
        output = model(x[:, part], timesteps[:, part], conditioning, positions=own, context=context)
        assert torch.allclose(output.prediction, full.prediction[:, part], atol=2e-5)
        keys_values = output.keys_values
        if context is not None:
            keys_values = tuple(
                (torch.cat((k0, k), 1), torch.cat((v0, v), 1))
                for (k0, v0), (k, v) in zip(context.keys_values, keys_values, strict=True)
            )
        context = Context(keys_values, torch.arange(start + 2) + 7)


@torch.no_grad()
def test_positions_matter_only_relatively():
    model, x = random_model(TALKER), randn(1, 3, 4, 4, 4)
    timesteps, conditioning = torch.full((1, 3), 625.0), talker_conditioning(3)

    def predict(positions: list[int]) -> torch.Tensor:
        return model(x, timesteps, conditioning, positions=torch.tensor(positions)).prediction

    assert torch.allclose(predict([0, 1, 2]), predict([5000, 5001, 5002]), atol=2e-5)
    assert not torch.allclose(predict([0, 1, 2]), predict([0, 1, 9]), atol=1e-3)


@torch.no_grad()
def test_fresh_audio_and_face_paths_change_nothing():
    plain = random_model(TEXT)
    config = dataclasses.replace(
        TEXT, audio_attention=EARS, face_attention=FaceAttentionConfig(8, 2)
    )
    model = CausalTransformer(config).eval()
    assert not model.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    x, timesteps, text = randn(1, 2, 4, 4, 4), torch.full((1, 2), 500.0), randn(1, 6, 10)
    conditioning = Conditioning(text=text, audio=randn(1, 2, 3, 5), face=randn(1, 8))
    ours = model(x, timesteps, conditioning, positions=torch.arange(2))
    expected = plain(x, timesteps, Conditioning(text=text), positions=torch.arange(2))
    assert torch.equal(ours.prediction, expected.prediction)


@torch.no_grad()
def test_no_face_is_the_same_as_no_face_conditioning():
    model = random_model(dataclasses.replace(TEXT, face_attention=FaceAttentionConfig(8, 2)))
    x, timesteps, text = randn(2, 2, 4, 4, 4), torch.full((2, 2), 500.0), randn(2, 6, 10)
    face = randn(2, 8) * torch.tensor([[1.0], [0.0]])
    given = model(x, timesteps, Conditioning(text=text, face=face), positions=torch.arange(2))
    without = model(x, timesteps, Conditioning(text=text), positions=torch.arange(2))
    assert torch.equal(given.prediction[1], without.prediction[1])
    assert not torch.allclose(given.prediction[0], without.prediction[0], atol=1e-3)


@torch.no_grad()
def test_fresh_talker_copies_the_reference():
    model = initialise(CausalTransformer(TALKER), torch.Generator().manual_seed(0))
    x, timesteps = randn(1, 2, 4, 4, 4), torch.full((1, 2), 500.0)
    output = model(x, timesteps, talker_conditioning(2), positions=torch.arange(2))
    assert not output.prediction.any()


def test_initialise_is_reproducible():
    one, other = (
        initialise(CausalTransformer(TALKER), torch.Generator().manual_seed(3)) for _ in range(2)
    )
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert one.layers[0].self_attention.query.weight.std() > 0.01
    assert not one.layers[0].cross_attention.output.weight.any()


@torch.no_grad()
def test_audio_stays_in_its_latent_frame():
    model = random_model(dataclasses.replace(TALKER, num_layers=1))
    x, timesteps, one = randn(1, 3, 4, 4, 4), torch.full((1, 3), 500.0), talker_conditioning(3)
    louder = one.audio.clone()
    louder[:, 1] += 1.0
    before = model(x, timesteps, one, positions=torch.arange(3)).prediction
    after = model(
        x, timesteps, dataclasses.replace(one, audio=louder), positions=torch.arange(3)
    ).prediction
    changed = (before - after).abs().amax(dim=(0, 2, 3, 4))
    # One layer: the audio of a frame enters its own tokens and the keys that the others attend.
    assert changed[1] > 10 * changed[0]
    assert changed[1] > 10 * changed[2]


@torch.no_grad()
def test_packed_audio_enters_from_layer_two():
    config = dataclasses.replace(TEXT, audio_pack=AudioPackConfig(5, 4, 6))
    model, x = random_model(config), randn(1, 2, 4, 4, 4)
    seen = []
    for layer in model.layers:
        layer.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].clone()))
    for seed in (1, 2):
        conditioning = Conditioning(text=randn(1, 6, 10), audio=randn(1, 2, 4, 5, seed=seed))
        model(x, torch.zeros(1, 2), conditioning, positions=torch.arange(2))
    same = [torch.equal(a, b) for a, b in zip(seen[:4], seen[4:], strict=True)]
    assert same == [True, True, False, False]


@torch.no_grad()
def test_token_subset_of_all_tokens_is_a_permutation():
    model, x, timesteps = random_model(TALKER), randn(1, 3, 4, 4, 4), torch.full((1, 3), 625.0)
    conditioning, order = talker_conditioning(3), torch.tensor([2, 0, 3, 1])
    positions = torch.arange(3)
    whole = {"positions": positions, "as_tokens": True}
    full = model(x, timesteps, conditioning, **whole).prediction
    part = model(x, timesteps, conditioning, **whole, token_subset=order).prediction
    assert torch.allclose(part, full[:, :, order], atol=1e-5)
    few = model(x, timesteps, conditioning, **whole, token_subset=order[:2]).prediction
    assert few.shape == (1, 3, 2, 16)


@pytest.mark.parametrize("half", ["autocast", "weights"])
def test_bfloat16_is_close_and_trains(half):
    model, x, timesteps = random_model(TALKER), randn(1, 3, 4, 4, 4), torch.full((1, 3), 625.0)
    conditioning, positions = talker_conditioning(3), torch.arange(3)
    exact = model(x, timesteps, conditioning, positions=positions).prediction.detach()
    if half == "weights":
        model = model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=half == "autocast"):
        output = model(x, timesteps, conditioning, positions=positions)
    output.prediction.float().square().mean().backward()
    assert (output.prediction.float() - exact).abs().max() < 0.1 * exact.abs().max()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_missing_conditioning_is_named(kind):
    conditioning = dataclasses.replace(talker_conditioning(2), **{kind: None})
    with pytest.raises(ConfigError, match=kind):
        random_model(TALKER)(
            randn(1, 2, 4, 4, 4), torch.zeros(1, 2), conditioning, positions=torch.arange(2)
        )


def test_wrong_sizes_are_named():
    model, positions = random_model(TALKER), torch.arange(2)
    wide = dataclasses.replace(talker_conditioning(2), image=randn(1, 2, 6, 4, 4))
    with pytest.raises(ConfigError, match="10 channels"):
        model(randn(1, 2, 4, 4, 4), torch.zeros(1, 2), wide, positions=positions)
    large = dataclasses.replace(talker_conditioning(2), image=randn(1, 2, 5, 8, 4))
    with pytest.raises(ConfigError, match="8 tokens"):
        model(randn(1, 2, 4, 8, 4), torch.zeros(1, 2), large, positions=positions)
    text_model = random_model(TEXT)
    with pytest.raises(ConfigError, match="at most 6"):
        text_model(
            randn(1, 2, 4, 4, 4), torch.zeros(1, 2), Conditioning(text=randn(1, 7, 10)),
            positions=positions,
        )  # fmt: skip
