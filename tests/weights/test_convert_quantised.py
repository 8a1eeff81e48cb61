"""Text encoders in 8-bit floats with scales: what they stand for, and what is not read."""

import pytest
import torch
from published import TEXT, write_profile, write_text_encoder
from safetensors.torch import load_file, save_file

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.convert import convert_weights
from joyflash_cli.weights.convert_encoders import plan_text_encoder
from joyflash_cli.weights.convert_names import TEXT_ENCODER_NAMES, rename

NAME = "livetalk-1.3b"


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A profile whose text encoder has gone, as for a user who has another edition of it."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    folder = write_profile(tmp_path / "source", NAME)
    next(folder.rglob("models_t5*")).unlink()
    (folder / "text_encoder").mkdir()
    return folder


def encoder_state(tmp_path):
    """The weights under transformers' names, as repackaged files have them."""
    write_text_encoder(tmp_path / "t5.pth")
    original = torch.load(tmp_path / "t5.pth", weights_only=True)
    state = {f"encoder.{rename(name, TEXT_ENCODER_NAMES)}": t for name, t in original.items()}
    state["shared.weight"] = state.pop("encoder.embed_tokens.weight")
    return state


def scaled(state, leaf="scale_weight", *, per_row=False):
    """The same with 8-bit matrices and a scale beside each."""
    quantised = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}
    quantised["spiece_model"] = torch.arange(7, dtype=torch.uint8)
    for name, tensor in state.items():
        if tensor.ndim != 2 or "relative_attention_bias" in name or name == "shared.weight":
            quantised[name] = tensor.half()
            continue
        peak = tensor.abs().amax(1, keepdim=True) if per_row else tensor.abs().max()
        scale = peak / 448
        quantised[name] = (tensor / scale).to(torch.float8_e4m3fn)
        quantised[name.removesuffix("weight") + leaf] = scale.float()
    return quantised


def convert(source, tmp_path):
    out = convert_weights(NAME, source=source, out_dir=tmp_path / "out", dtype="fp32")
    return load_file(out / "text_encoder.safetensors")


@pytest.mark.parametrize("leaf", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("per_row", [False, True])
def test_the_values_are_weight_times_scale(source, tmp_path, leaf, per_row):
    state = encoder_state(tmp_path)
    quantised = scaled(state, leaf, per_row=per_row)
    quantised["encoder.block.0.layer.0.SelfAttention.q.scale_input"] = torch.ones(())
    save_file(quantised, source / "text_encoder" / "umt5_xxl_fp8_e4m3fn_scaled.safetensors")
    found = convert(source, tmp_path)
    matrices = 0
    for name, tensor in state.items():
        ours = found[{"shared.weight": "embed_tokens.weight"}.get(name, name[8:])]
        assert ours.dtype == torch.float32
        # Three bits of mantissa: a sixteenth of the value, and what lies below the least step.
        limit = tensor.abs() / 16 + tensor.abs().max() / 448 / 256
        assert ((ours - tensor).abs() <= limit + 1e-3 * tensor.abs().max()).all(), name
        matrices += int(not torch.equal(ours, tensor.half().float()))
    assert matrices == 7 * TEXT["num_layers"]


def test_a_half_precision_edition_in_shards_is_read_too(source, tmp_path):
    state = {n: t.half() for n, t in encoder_state(tmp_path).items()}
    state["spiece_model"] = torch.arange(7, dtype=torch.uint8)
    names = sorted(state)
    for index in range(2):
        part = {name: state[name] for name in names[index::2]}
        save_file(part, source / "text_encoder" / f"model-0000{index + 1}-of-00002.safetensors")
    found = convert(source, tmp_path)
    assert torch.equal(found["embed_tokens.weight"], state["shared.weight"].float())


def shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.update({"encoder.final_layer_norm.comfy_quant": (7,)}), "comfy_quant"),
        (lambda s: s.update({"shared.weight.absmax": (7,)}), "in a form that is not read"),
        (lambda s: s.update({"shared.weight.quant_state.bitsandbytes__nf4": (7,)}), "nf4"),
        (lambda s: s.update({"encoder.gone.scale_weight": ()}), "a weight that it lacks"),
        (lambda s: s.update({"shared.scale_weight": (3, 2)}), r"shape \(3, 2\)"),
    ],
)
def test_other_kinds_are_refused_with_what_to_give_instead(tmp_path, change, words):
    found = shapes(scaled(encoder_state(tmp_path)))
    change(found)
    with pytest.raises(CheckpointError, match=words) as caught:
        plan_text_encoder(found, {})
    assert caught.value.code == "E-CHECKPOINT-LAYOUT"
    assert "bf16, fp16 or scaled fp8" in caught.value.hint


def test_scales_that_are_missing_are_noticed(tmp_path):
    found = {n: s for n, s in shapes(scaled(encoder_state(tmp_path))).items() if "scale_" not in n}
    with pytest.raises(CheckpointError, match="has no scales"):
        plan_text_encoder(found, {})


def test_a_scaled_transformer_is_refused(source, tmp_path):
    model = source / "LiveTalk-1.3B-V0.1" / "model.safetensors"
    state = load_file(model)
    name = "blocks.0.ffn.0.weight"
    state[name] = state[name].to(torch.float8_e4m3fn)
    save_file(state | {"blocks.0.ffn.0.scale_weight": torch.ones(())}, model)
    with pytest.raises(CheckpointError, match="read of text encoders only") as caught:
        convert_weights(NAME, source=source, out_dir=tmp_path / "out")
    assert "--quantize" in caught.value.hint
