import pytest
import torch

from joyflash_cli.errors import CheckpointError
from joyflash_cli.studio.training.state import load_tree, save_tree


def test_a_tree_comes_back_with_all_its_bits(tmp_path):
    shared = torch.arange(4, dtype=torch.uint8)
    tree = {
        "state": {0: {"step": torch.tensor(3.0), "m": torch.randn(2, 3).t()}, 1: {}},
        "groups": [{"lr": 0.1 + 0.2, "betas": (0.9, 0.999), "fused": None, "maximize": False}],
        "same": (shared, shared),
        "half": torch.tensor([float("nan"), -0.0], dtype=torch.bfloat16),
        "step": 7,
        "name": "run",
    }
    save_tree(tmp_path / "new" / "state.safetensors", tree)
    back = load_tree(tmp_path / "new" / "state.safetensors")
    assert list(back) == list(tree)
    assert back["groups"] == tree["groups"]
    assert (back["step"], back["name"]) == (7, "run")
    assert list(back["state"]) == [0, 1]
    assert back["state"][1] == {}
    assert torch.equal(back["state"][0]["m"], tree["state"][0]["m"])
    assert back["state"][0]["step"].shape == ()
    assert torch.equal(back["same"][1], shared)
    assert torch.equal(back["half"].view(torch.int16), tree["half"].view(torch.int16))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["state.safetensors"]


def test_an_optimiser_goes_on_as_if_nothing_had_happened(tmp_path):
    def start():
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.01, betas=(0.8, 0.9))

    def step(layer, optimiser, seed):
        data = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        optimiser.zero_grad()
        layer(data).square().sum().backward()
        optimiser.step()

    whole, optimiser = start()
    for seed in range(4):
        step(whole, optimiser, seed)
        if seed == 1:
            save_tree(tmp_path / "s.safetensors", [whole.state_dict(), optimiser.state_dict()])
    again, optimiser = start()
    weights, moments = load_tree(tmp_path / "s.safetensors")
    again.load_state_dict(weights)
    optimiser.load_state_dict(moments)
    for seed in (2, 3):
        step(again, optimiser, seed)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True)
    )


@pytest.mark.parametrize("content", [b"", b"no state", b"\x08\0\0\0\0\0\0\0{}      "])
def test_damage_is_named(tmp_path, content):
    path = tmp_path / "state.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="no saved training state"):
        load_tree(path)
