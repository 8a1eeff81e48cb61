"""The parity runners at sizes that nobody recorded: any depth, grid, width and batch.

Without a record the numbers prove themselves: a batch must give what its samples give alone.
"""

import copy
import json
from pathlib import Path

import parity
import parity_model
import pytest
import torch
from parity_report import Report
from parity_rolling import exact_levels
from public_layouts import to_public
from safetensors.torch import load_file, save_file

from joyflash_cli.model.transformer import CausalTransformer

CASES = Path(__file__).parent / "data" / "parity"
BATCH = 2
SIZES = {
    "one-layer": {"num_heads": 1, "head_dim": 10, "num_layers": 1, "hw": (2, 2), "text": (3, 5)},
    "odd-grid": {"num_heads": 4, "head_dim": 6, "num_layers": 3, "hw": (6, 2), "text": (7, 9)},
    "deep": {"num_heads": 2, "head_dim": 14, "num_layers": 7, "hw": (2, 10), "text": (1, 4)},
}
KINDS = (
    "avatarforcing_block", "avatarforcing_nocache", "avatarforcing_rolling",
    "rollingforcing_rolling", "livetalk_blockwise",
)  # fmt: skip
BATCH_AXIS = {"renoise": 1}


class Recorder(Report):
    """Keeps what a runner computes instead of comparing it."""

    def __init__(self, io):
        super().__init__(io)
        self.outputs = {}

    def compare(self, name, computed):
        self.outputs[name] = computed

    def compare_part(self, name, computed, *, dim):
        self.outputs[name] = computed


def resized(case, sizes):
    """The description of a case of other sizes."""
    case = copy.deepcopy(case)
    config = case["config"]
    heads, width = sizes["num_heads"], sizes["head_dim"]
    config |= {
        "dim": heads * width, "num_heads": heads, "head_dim": width, "ffn_dim": 18, "freq_dim": 12,
        "num_layers": sizes["num_layers"], "latent_hw": list(sizes["hw"]),
        "text_len": sizes["text"][0], "text_dim": sizes["text"][1],
    }  # fmt: skip
    if config.get("use_audio"):
        config |= {"audio_dim": 6, "audio_hidden_size": 5}
    case.pop("weights_from", None)
    return case | {"batch": BATCH}


def is_input(name):
    leaf = name.rpartition(".")[2]
    whole = {"prompt_embeds", "audio_emb", "audio_rows", "y", "noise", "initial_latent",
             "ref_latent"}  # fmt: skip
    is_call = name.startswith("call") and leaf in ("x", "timestep")
    return name in whole or is_call or name in ("x", "timestep") or name.startswith("renoise")


def inputs_of(name, case, sizes):
    """Random inputs of the resized case, in the record's layout."""
    generator = torch.Generator().manual_seed(7)
    rows = case["config"].get("audio_dim", 0)
    io = {}
    for key, tensor in load_file(CASES / name / "io.safetensors").items():
        if not is_input(key):
            continue
        shape = list(tensor.shape)
        if key.endswith("timestep") or key.startswith("renoise_"):
            is_index = key.startswith("renoise_")
            io[key] = tensor if is_index else tensor.expand(BATCH, -1).clone()
            continue
        shape[BATCH_AXIS.get(key, 0)] = BATCH
        if key == "prompt_embeds":
            shape[1:] = sizes["text"]
        elif key in ("audio_emb", "audio_rows"):
            shape[2] = rows
        else:
            shape[-2:] = sizes["hw"]
        io[key] = torch.randn(shape, generator=generator)
    return io


def run(folder, case, io):
    """What the runner computes for these inputs."""
    report = Recorder(io)
    parity.runner_of(case)(folder, case, report)
    return report.outputs


@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("name", KINDS)
def test_a_batch_gives_what_its_samples_give_alone(name, size, tmp_path):
    sizes = SIZES[size]
    case = resized(json.loads((CASES / name / "case.json").read_text()), sizes)
    if "num_blocks" in case:
        shorten(case)
    torch.manual_seed(3)
    model = CausalTransformer(parity_model.transformer_config(case))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    public = to_public(model.state_dict(), model.config)
    save_file({n: t.contiguous() for n, t in public.items()}, tmp_path / "weights.safetensors")
    io = inputs_of(name, case, sizes)
    together = run(tmp_path, case, io)
    wanted = [n for n in together if n.endswith(("flow", "x0", "output", "output_final"))]
    assert wanted
    for sample in range(BATCH):
        own = {
            key: tensor
            if key.startswith("renoise_")
            else tensor.narrow(BATCH_AXIS.get(key, 0), sample, 1)
            for key, tensor in io.items()
        }
        alone = run(tmp_path, case | {"batch": 1}, own)
        for key in wanted:
            difference = (together[key][sample] - alone[key][0]).abs().max()
            assert difference < 2e-4 * max(1.0, float(alone[key].abs().max())), key
    # Samples differ, or the comparison would say nothing.
    assert not torch.allclose(together[wanted[-1]][0], together[wanted[-1]][1], atol=1e-2)


def shorten(case):
    """As many blocks as make the cache evict; the draws of later ones stay unused."""
    block = case["config"]["num_frame_per_block"]
    case["num_blocks"] = case["config"]["cache_frames"] // block + 3


def test_steps_that_no_table_of_a_thousand_has():
    """LiveTalk's own table has as many entries as steps, whatever their number."""
    case = json.loads((CASES / "livetalk_blockwise" / "case.json").read_text())
    assert exact_levels(case) is None
    shares = (1.0, 2 / 3, 1 / 3)
    case["sigmas"] = [5 * s / (1 + 4 * s) for s in shares]
    levels = exact_levels(case)
    assert [levels[2 * index].sigma for index in range(3)] == case["sigmas"]
    assert levels[0].timestep == 1000
    assert levels[6].sigma == 0
    assert len(parity_model.sampler_profile(case).main_steps) == 3
