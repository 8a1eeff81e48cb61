"""Public layouts: known hashes, there and back, and strict about every key."""

import dataclasses

import pytest
import torch
from presets import AVATAR_1_3B, WAN_14B
from public_layouts import from_public, key_hash, to_public

from joyflash_cli.errors import CheckpointError
from joyflash_cli.model.config import TINY, AudioPackConfig, TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.weights.convert_names import DIFFUSERS_NAMES, ORIGINAL_NAMES
from joyflash_cli.weights.convert_sources import select_generator

SMALL = TransformerConfig(
    dim=24, num_layers=12, num_heads=2, ffn_dim=32, freq_dim=16, in_channels=9, out_channels=4,
    text_dim=10, text_len=6, audio_pack=AudioPackConfig(5, 4, 6), image_token_dim=14,
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "num_tensors", "md5"),
    [
        (AVATAR_1_3B, 857, "2bf9513c7a3e908015f11a800fc9b820"),
        (
            dataclasses.replace(WAN_14B, in_channels=33, audio_pack=AudioPackConfig()),
            1137,
            "883a90b12576b9b8693a08cf690998dd",
        ),
    ],
    ids=["1.3b", "14b"],
)
def test_layout_has_the_published_hash(config, num_tensors, md5):
    with torch.device("meta"):
        public = to_public(CausalTransformer(config).state_dict(), config)
    assert len(public) == num_tensors
    assert key_hash(public) == md5


@pytest.mark.parametrize("names", [ORIGINAL_NAMES, DIFFUSERS_NAMES], ids=["wan", "diffusers"])
def test_there_and_back(names):
    ours = CausalTransformer(SMALL).state_dict()
    back = from_public(to_public(ours, SMALL, names=names), SMALL, names=names)
    assert ours.keys() == back.keys()
    assert all(torch.equal(ours[name], back[name]) for name in ours)


def test_container_prefixes_are_removed():
    public = to_public(CausalTransformer(SMALL).state_dict(), SMALL)
    wrapped = {f"model._fsdp_wrapped_module.{name}": tensor for name, tensor in public.items()}
    assert from_public(wrapped, SMALL).keys() == CausalTransformer(SMALL).state_dict().keys()


def test_missing_keys_are_named_five_at_most():
    public = to_public(CausalTransformer(SMALL).state_dict(), SMALL)
    left = {name: tensor for name, tensor in public.items() if not name.startswith("blocks.11.")}
    with pytest.raises(CheckpointError, match=r"lacks blocks\.11\..* and \d+ more") as error:
        from_public(left, SMALL)
    assert error.value.message.count("blocks.11.") == 5


@pytest.mark.parametrize("name", ["mystery.weight", "blocks.12.norm3.weight", "vace_blocks.0.bias"])
def test_unexpected_keys_are_named(name):
    public = to_public(CausalTransformer(SMALL).state_dict(), SMALL)
    with pytest.raises(CheckpointError, match=name):
        from_public(public | {name: torch.zeros(1)}, SMALL)


def test_other_shape_is_named():
    public = to_public(CausalTransformer(SMALL).state_dict(), SMALL)
    with pytest.raises(CheckpointError, match="head.head.bias"):
        from_public(public | {"head.head.bias": torch.zeros(3)}, SMALL)


def test_own_parts_have_no_public_name():
    with torch.device("meta"):
        ours = CausalTransformer(TINY).state_dict()
    with pytest.raises(CheckpointError, match="position_embedding"):
        to_public(ours, TINY)


def test_adapters_are_merged():
    public = to_public(CausalTransformer(SMALL).state_dict(), SMALL)
    linear, ours = "blocks.3.cross_attn.q", "layers.3.cross_attention.query.weight"
    weight = public.pop(f"{linear}.weight")
    public[f"{linear}.base_layer.bias"] = public.pop(f"{linear}.bias")
    down, up = torch.randn(2, weight.shape[1]), torch.randn(weight.shape[0], 2)
    public |= {
        f"{linear}.base_layer.weight": weight,
        f"{linear}.lora_A.default.weight": down,
        f"{linear}.lora_B.default.weight": up,
    }
    merged = from_public(public, SMALL, adapter_scale=0.5)
    assert torch.allclose(merged[ours], weight + 0.5 * up @ down)


def test_half_an_adapter_is_an_error():
    public = to_public(CausalTransformer(SMALL).state_dict(), SMALL)
    with pytest.raises(CheckpointError, match=r"adapter of blocks\.3\.cross_attn\.q"):
        from_public(public | {"blocks.3.cross_attn.q.lora_A.weight": torch.zeros(1, 24)}, SMALL)


def test_generator_is_found():
    weights = {"a": torch.zeros(1)}
    averaged = {"b": torch.zeros(1)}
    assert select_generator({"generator": weights, "critic": {}}) is weights
    assert select_generator({"generator": weights, "generator_ema": averaged}) is averaged
    assert select_generator(weights) is weights
    with pytest.raises(CheckpointError, match="critic"):
        select_generator({"critic": {}})
