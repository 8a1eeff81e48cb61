"""umT5: Wan's weights under our names compute what Wan's encoder computes; prompts are cleaned."""

import math

import pytest
import torch
from published import TEXT, write_text_encoder, write_tokenizer
from torch.nn import functional

from joyflash_cli.encoders.text import MAX_TOKENS, TextEncoder, clean_prompt, text_encoder_module
from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.convert_encoders import plan_text_encoder
from joyflash_cli.weights.convert_sources import TensorSource


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("text")
    write_text_encoder(folder / "t5.pth")
    state = torch.load(folder / "t5.pth", weights_only=True)
    for name, tensor in state.items():
        state[name] = 1 + 0.2 * torch.randn_like(tensor) if "norm" in name else (
            torch.randn_like(tensor) * tensor.shape[-1] ** -0.5)  # fmt: skip
    torch.save(state, folder / "t5.pth")
    write_tokenizer(folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="module")
def encoder(folder):
    source = TensorSource((folder / "t5.pth",))
    plan = plan_text_encoder(source.shapes, {})
    assert plan.section["config"] == TEXT
    module = text_encoder_module(plan.section["config"])
    with source.opened() as read:
        module.load_state_dict({o.name: read(o.sources[0]).clone() for o in plan.outputs})
    return TextEncoder(module, folder / "tokenizer.json")


def wan_states(state, ids):
    """The encoder written out from its description, in Wan's own names."""
    heads, buckets = TEXT["num_heads"], 32
    x = state["token_embedding.weight"][ids]
    length = len(ids)
    distance = torch.arange(length)[None] - torch.arange(length)[:, None]
    near = buckets // 4
    far = near + (torch.log(distance.abs().clamp_min(1).float() / near) / math.log(128 / near)
                  * (buckets // 2 - near)).long()  # fmt: skip
    bucket = torch.where(distance.abs() < near, distance.abs(), far.clamp_max(buckets // 2 - 1))
    bucket = bucket + (distance > 0) * (buckets // 2)

    def norm(x, weight):
        return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)

    for layer in range(TEXT["num_layers"]):
        w = {k.removeprefix(f"blocks.{layer}."): v for k, v in state.items()
             if k.startswith(f"blocks.{layer}.")}  # fmt: skip
        y = norm(x, w["norm1.weight"])
        q, k, v = (
            (y @ w[f"attn.{n}.weight"].T).view(length, heads, -1).transpose(0, 1) for n in "qkv"
        )
        bias = w["pos_embedding.embedding.weight"][bucket].permute(2, 0, 1)
        attended = (q @ k.transpose(1, 2) + bias).softmax(-1) @ v
        x = x + attended.transpose(0, 1).flatten(1) @ w["attn.o.weight"].T
        y = norm(x, w["norm2.weight"])
        gate = functional.gelu(y @ w["ffn.gate.0.weight"].T, approximate="tanh")
        x = x + (gate * (y @ w["ffn.fc1.weight"].T)) @ w["ffn.fc2.weight"].T
    return norm(x, state["norm.weight"])


def test_states_agree_with_wan_s_own_arithmetic(folder, encoder):
    prompt = "a person talking the camera smile a person talking the camera smile smile"
    state = torch.load(folder / "t5.pth", weights_only=True)
    ids = encoder.token_ids(prompt)
    ours = encoder.encode(prompt)
    assert ours.shape == (1, len(ids), TEXT["d_model"])
    assert (ours[0] - wan_states(state, ids)).abs().max() < 2e-5


def test_the_end_mark_is_always_there_and_long_prompts_are_cut(encoder):
    assert encoder.token_ids("a person") == [3, 4, 1]
    assert encoder.token_ids("") == [1]
    ids = encoder.token_ids("person " * 2000)
    assert len(ids) == MAX_TOKENS
    assert ids[-1] == 1
    assert ids[-2] == 4


@pytest.mark.parametrize(
    ("prompt", "cleaned"),
    [
        ("  a \n\t person  ", "a person"),
        ("a &amp;amp; b &lt;3", "a & b <3"),
        ("schÃ¶n", "schön"),
        ("", ""),
        ("emoji 🙂 stays", "emoji 🙂 stays"),
    ],
)
def test_prompts_are_cleaned_as_in_training(prompt, cleaned):
    assert clean_prompt(prompt) == cleaned


def test_hub_layouts_are_read_too(folder):
    module = text_encoder_module(TEXT)
    ours = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    hub = {f"encoder.{name}": shape for name, shape in ours.items()}
    hub["shared.weight"] = hub["encoder.embed_tokens.weight"]
    plan = plan_text_encoder(hub, {})
    assert {output.name for output in plan.outputs} == set(ours)


def test_a_tokenizer_that_is_none(folder, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no tokenizer"):
        TextEncoder(text_encoder_module(TEXT), tmp_path / "tokenizer.json")
