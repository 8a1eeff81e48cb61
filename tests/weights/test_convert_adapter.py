"""An adapter on a base: merged by the scale of its own configuration, its whole tensors on top."""

import json

import pytest
import torch
from public_layouts import to_public
from published import AVATAR, STATED, WHOLE, adapted
from safetensors.torch import save_file

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.convert_adapter import adapter_rule, read_adapter
from joyflash_cli.weights.convert_encoders import PartPlan
from joyflash_cli.weights.convert_plan import take
from joyflash_cli.weights.convert_sources import TensorSource
from joyflash_cli.weights.convert_transformer import plan_transformer
from joyflash_cli.weights.convert_write import Part, write_parts

TEMPLATE = {"transformer": AVATAR.to_dict(), "adapter": {"brings": list(WHOLE)}}


@pytest.fixture(scope="module")
def tensors():
    """The base (16 channels), the adapter's file, and the network they make together."""
    torch.manual_seed(9)
    return adapted()


def plan(folder, tensors, *, stated=STATED, base=None, without=()):
    """The network's tensors as the conversion makes them of these files."""
    own, brought, _ = tensors
    save_file(base or own, folder / "base.safetensors")
    kept = {n: x for n, x in brought.items() if not n.startswith(tuple(without) or ("?",))}
    torch.save(kept, folder / "adapter.pt")
    (folder / "config.json").write_text(json.dumps(stated))
    adapter = read_adapter((folder / "adapter.pt", folder / "config.json"))
    (folder / "base").mkdir()
    path = (folder / "base.safetensors").rename(folder / "base" / "base.safetensors")
    source, config, outputs = plan_transformer((path,), TEMPLATE, adapter=adapter)
    with source.opened() as read:
        return config, {o.name: o.build(*(read(name) for name in o.sources)) for o in outputs}


def test_factors_are_merged_by_alpha_over_rank_and_whole_tensors_win(tmp_path, tensors):
    config, made = plan(tmp_path, tensors)
    assert to_public(config=config, state_dict=made).keys() == tensors[2].keys()
    for name, expected in tensors[2].items():
        torch.testing.assert_close(to_public(made, config)[name], expected)


@pytest.mark.parametrize(
    ("without", "named"),
    [
        (["patch_embedding"], "patch_embedding"),
        (["patch_embedding.weight"], "patch_embedding"),
        (["audio_proj", "audio_cond_projs"], "audio_proj"),
        (["audio_cond_projs.0"], "audio_cond_projs"),
        (["blocks.1.ffn.0.lora_"], "blocks.1.ffn.0"),
        (["blocks.1.ffn.0.lora_B"], "blocks.1.ffn.0"),
    ],
)
def test_an_adapter_that_lacks_something_is_refused(tmp_path, tensors, without, named):
    with pytest.raises(CheckpointError, match=named) as caught:
        plan(tmp_path, tensors, without=without)
    assert caught.value.code == "E-CHECKPOINT-LAYOUT"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lora_rank": 4}, "has rank 3"),
        ({"lora_target_modules": "q,k,v,o"}, "does not name"),
        ({"lora_alpha": None}, "alpha None"),
        ({"use_rslora": True}, "use_rslora"),
        ({"alpha_pattern": {"q": 3}}, "alpha_pattern"),
        ({"bias": "all"}, "biases"),
        ({"train_architecture": "full"}, "of the kind 'full'"),
        ({"lora_target_modules": None}, "states no target modules"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path, tensors, changed, message):
    with pytest.raises(CheckpointError, match=message):
        plan(tmp_path, tensors, stated=STATED | changed)


def test_the_base_must_be_the_adapter_s(tmp_path, tensors):
    smaller = dict(tensors[0])
    smaller["blocks.0.ffn.0.weight"] = torch.zeros(40, 128)
    with pytest.raises(CheckpointError, match=r"blocks\.0\.ffn\.0"):
        plan(tmp_path, tensors, base=smaller)


def test_without_its_configuration_nothing_is_merged(tmp_path, tensors):
    torch.save(tensors[1], tmp_path / "adapter.pt")
    with pytest.raises(CheckpointError, match="alone states its scale"):
        read_adapter((tmp_path / "adapter.pt",))


def test_peft_s_own_configuration():
    rule = adapter_rule({"r": 64, "lora_alpha": 64, "target_modules": ["q", "o"]}, "a.json")
    assert rule.scale == 1.0
    assert rule.meets("blocks.3.self_attn.q")
    assert not rule.meets("blocks.3.self_attn.k")
    pattern = {"r": 8, "lora_alpha": 4, "target_modules": r"blocks\.\d+\.self_attn\.[qk]"}
    rule = adapter_rule(pattern, "a.json")
    assert (rule.scale, rule.meets("blocks.3.self_attn.k")) == (0.5, True)


def test_values_lost_in_half_precision_are_not_stored(tmp_path):
    save_file({"w": torch.tensor([1.0, float("inf")]).half()}, tmp_path / "a.safetensors")
    source = TensorSource((tmp_path / "a.safetensors",))
    part = Part("part", source, PartPlan({}, [take("w", "w", (2,))]), torch.bfloat16)
    with pytest.raises(CheckpointError, match="not finite"):
        write_parts(tmp_path, [part], None)
