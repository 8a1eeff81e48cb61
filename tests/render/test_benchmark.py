"""``joyflash benchmark``: operations as counted by hand, peaks, and the figures of a real run."""

import json
from dataclasses import replace

import pytest
import torch
from presets import AVATARFORCING, CONFIGURATIONS, LIVETALK

from joyflash_cli.cli.app import run
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.render.benchmark import BENCHMARK_FORMAT, blocks_before_steady
from joyflash_cli.render.operations import (
    PassShape,
    block_operations,
    meta_pass,
    meta_transformer,
    peak_operations,
)
from joyflash_cli.render.steady import random_transformer, steady_stream
from joyflash_cli.sampler.settings import PAPER, TINY

PLAIN = TransformerConfig(
    dim=64, num_layers=2, num_heads=4, ffn_dim=128, in_channels=8, out_channels=8, text_dim=None
)
GRID = (4, 6)


def layer_operations(config, own: int, keys: int, text: int = 0) -> float:
    """Multiplications and additions of one layer, as in every textbook."""
    dim, across = config.dim, 2 if text else 0
    linear = 2 * own * ((4 + across) * dim**2 + 2 * dim * config.ffn_dim)
    return linear + 4 * dim * own * (keys + text)


def test_layers_cost_what_the_formula_says():
    shape = PassShape(5, 3)
    tokens = PLAIN.tokens_per_frame(*GRID)
    counted = [
        meta_pass(meta_transformer(replace(PLAIN, num_layers=n)), shape, GRID, count=True)
        for n in (1, 2)
    ]
    by_hand = layer_operations(PLAIN, 5 * tokens, 8 * tokens)
    assert counted[1] - counted[0] == pytest.approx(by_hand, rel=0.01)


def test_a_block_of_the_papers_size_costs_what_the_formula_says():
    """A layer of 1.3B at 832 x 480: 13 frames attend 22, then 3 frames attend theirs."""
    one, two = (replace(CONFIGURATIONS["avatar-1.3b"], num_layers=n) for n in (1, 2))
    tokens = one.tokens_per_frame(60, 104)
    assert tokens == 1560
    by_hand = layer_operations(one, 13 * tokens, 22 * tokens, 512)
    by_hand += layer_operations(one, 3 * tokens, 12 * tokens, 512)
    counted = [block_operations(config, PAPER, (60, 104)) for config in (one, two)]
    assert counted[1] - counted[0] == pytest.approx(by_hand, rel=0.02)


def test_guidance_and_windows_of_one_block_are_counted():
    one = block_operations(PLAIN, replace(PAPER, clean_kv="last-pass"), GRID)
    guided = replace(PAPER, clean_kv="last-pass", audio_guidance=2.0)
    assert block_operations(PLAIN, guided, GRID) == pytest.approx(2 * one)
    single = replace(LIVETALK, clean_kv="last-pass")
    passes = block_operations(PLAIN, single, GRID)
    shape = PassShape(3, 12)
    with torch.no_grad():
        once = meta_pass(meta_transformer(PLAIN), shape, GRID, static=True, count=True)
    assert passes == pytest.approx(4 * once)


@pytest.mark.parametrize("settings", [PAPER, TINY, LIVETALK, AVATARFORCING])
def test_the_steady_stream_is_steady(settings):
    """Every block costs the operations that are counted for it, the first one's passes apart."""
    sizes = []
    transformer = random_transformer(PLAIN, torch.float32)
    stream = steady_stream(transformer, settings, GRID)

    def note(_module, args, kwargs):
        context = kwargs["context"]
        sizes[-1].append((args[0].shape[1], 0 if context is None else len(context.positions)))

    transformer.register_forward_pre_hook(note, with_kwargs=True)
    sizes.append([])
    with torch.inference_mode():
        for block in stream.iterate():
            if block is not None:
                sizes.append([])
            if len(sizes) == 5:
                break
    assert sizes[1] == sizes[2] == sizes[3] != []


def test_peaks_are_known_or_a_reason_is_given():
    assert peak_operations("NVIDIA H100 80GB HBM3", torch.bfloat16) == (989e12, "")
    assert peak_operations("NVIDIA H100 PCIe", torch.float16) == (756e12, "")
    assert peak_operations("NVIDIA H100 PCIe", torch.float32)[0] is None
    peak, reason = peak_operations("Voodoo 2", torch.bfloat16)
    assert peak is None
    assert "Voodoo 2" in reason


def test_a_small_model_is_measured(tmp_path, capsys, toy_checkpoint):
    out = tmp_path / "figures.json"
    command = ["benchmark", "tiny", "--checkpoint", str(toy_checkpoint), "--seconds", "6"]
    command += ["--threads", "1", "--dtype", "fp32", "--device", "cpu"]
    assert run([*command, "--json", "-o", str(out), "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    report = json.loads(shown.out)
    assert json.loads(out.read_text()) == report
    assert report["format"] == BENCHMARK_FORMAT
    assert report["fps_dit"] > 0
    assert report["fps"] > 0
    assert report["video_frames"] == 150
    assert (report["device"], report["dtype"], report["attention"]) == ("cpu", "float32", "sdpa")
    assert (report["kv_frames"], report["size_px"]) == (22, [128, 128])
    assert report["mfu"] is None
    assert "CPU" in report["reasons"]["mfu"]
    assert report["first_block_s"] > 0
    assert report["peak_bytes"] > 1e8


def test_too_short_a_sound_says_how_much_is_needed(capsys):
    assert run(["benchmark", "tiny", "--seconds", "1", "--quiet"]) == 2
    least = TINY.video_start(blocks_before_steady(TINY) + 6) / TINY.fps
    assert f"{least:.1f} s are needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", [["--px", "832x480"], ["--random-weights", "--px", "100x100"], ["--random-weights"]]
)
def test_options_that_do_not_fit_are_refused(more, capsys):
    assert run(["benchmark", "tiny", *more]) == 2
    assert capsys.readouterr().err.startswith("joyflash: error[E-")
