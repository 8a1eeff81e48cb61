"""Predicted memory against the storages that a real stream keeps alive."""

import contextlib
import dataclasses
import json

import pytest
import torch
from live_memory import LiveMemory
from presets import AVATAR_1_3B, AVATARFORCING, LIVETALK

from joyflash_cli.model.attention import use_backend
from joyflash_cli.model.config import AudioPackConfig, TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer, Context, Lead
from joyflash_cli.render.memory import (
    activation_bytes,
    heap_holes_bytes,
    keys_values_bytes,
    static_bytes,
)
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.settings import PAPER
from joyflash_cli.sampler.stream import Stream
from joyflash_cli.types import Conditioning

CONFIG = TransformerConfig(
    dim=256, num_layers=2, num_heads=4, ffn_dim=1408, freq_dim=32, in_channels=9, out_channels=4,
    text_dim=48, text_len=20, audio_pack=AudioPackConfig(audio_dim=6, rows_per_latent=2),
)  # fmt: skip
NUM_BLOCKS = 9
NUM_STEADY = 5
"""Blocks after which cache and window of every profile are full."""

TOLERANCE = 0.10


class Source:
    """Conditioning of the right shapes."""

    def __init__(self, config: TransformerConfig, grid: tuple[int, int], device: str) -> None:
        self.config, self.grid, self.device = config, grid, device
        self.text = torch.zeros(1, config.text_len, config.text_dim, device=device)

    def has_block(self, block_index: int) -> bool:
        return block_index < NUM_BLOCKS

    def frames(self, start: int, stop: int) -> Conditioning:
        config, frames = self.config, stop - start
        rows = (config.audio_pack.rows_per_latent, config.audio_pack.audio_dim)
        image = torch.zeros(1, frames, config.image_channels, *self.grid, device=self.device)
        audio = torch.zeros(1, frames, *rows, device=self.device)
        return Conditioning(image=image, text=self.text, audio=audio)


def cached_frames(settings) -> int:
    return settings.sink_frames + settings.context_frames


def cache_bytes(config, settings, grid, dtype) -> int:
    tokens = cached_frames(settings) * config.tokens_per_frame(*grid)
    return keys_values_bytes(config, tokens, dtype.itemsize)


def predicted_bytes(config, settings, grid, dtype) -> int:
    """All but the weights."""
    tokens = config.tokens_per_frame(*grid)
    return (
        cache_bytes(config, settings, grid, dtype)
        + static_bytes(config, dtype.itemsize)
        + activation_bytes(config, settings, tokens, dtype.itemsize)
    )


def stream_of(config, settings, grid, dtype):
    torch.manual_seed(0)
    transformer = CausalTransformer(config).to(dtype).eval().requires_grad_(False)
    use_backend(transformer, "sdpa")
    shape = (config.out_channels, *grid)
    return lambda: Stream.start(
        transformer,
        settings,
        source=Source(config, grid, "cpu"),
        noise=SeededNoise(0, shape),
        latent_shape=shape,
        reference_latent=torch.zeros(1, *shape),
    )


@pytest.mark.parametrize(
    ("settings", "dtype", "grid"),
    [
        (PAPER, torch.bfloat16, (16, 16)),
        (PAPER, torch.float32, (12, 12)),
        (LIVETALK, torch.bfloat16, (16, 24)),
        (LIVETALK, torch.float32, (16, 16)),
        (AVATARFORCING, torch.bfloat16, (12, 16)),
    ],
    ids=["paper", "paper-fp32", "livetalk", "livetalk-fp32", "avatarforcing"],
)
@torch.inference_mode()
def test_a_real_stream_takes_what_is_predicted(settings, dtype, grid):
    start = stream_of(CONFIG, settings, grid, dtype)
    with LiveMemory() as memory:
        stream = start()
        assert stream.cache.num_bytes == cache_bytes(CONFIG, settings, grid, dtype)
        for _ in stream.iterate():
            if stream.num_emitted == NUM_STEADY:
                break
    predicted = predicted_bytes(CONFIG, settings, grid, dtype)
    assert memory.peak <= predicted * 1.1
    assert predicted <= memory.peak * 1.4


def test_memory_does_not_grow_along_the_stream():
    start = stream_of(CONFIG, PAPER, (8, 8), torch.float32)
    peaks = []
    with torch.inference_mode(), LiveMemory() as memory:
        for block in start().iterate():
            if block is not None and 3 < block.index < 6:
                peaks.append(memory.peak)
            memory.reset_peak()
    assert len(peaks) == 2
    assert max(peaks) == pytest.approx(min(peaks), rel=0.01)


def test_keys_of_the_window_do_not_outlive_their_layer():
    """Where the settings need none they cost nothing; else they are as large as predicted."""
    held = {}
    for rule in ("last-pass", "extra-pass"):
        settings = dataclasses.replace(PAPER, clean_kv=rule)
        start = stream_of(CONFIG, settings, (8, 8), torch.float32)
        with torch.inference_mode(), LiveMemory() as memory:
            stream = start()
            for _ in stream.iterate():
                if stream.num_emitted == 3:
                    break
            stream.admit_block()
            before = memory.now
            result = stream.window_pass()
            held[rule] = memory.now - before
            stream.finish_iteration(result)
            del result
    kept = keys_values_bytes(CONFIG, (PAPER.window_frames + 1) * 16, 4)
    assert held["last-pass"] - held["extra-pass"] == pytest.approx(kept, rel=0.02)


@pytest.mark.parametrize(
    "settings", [PAPER, LIVETALK, AVATARFORCING], ids=["paper", "livetalk", "avatarforcing"]
)
@torch.inference_mode()
def test_the_true_width_too(settings, monkeypatch):
    """One layer of the real 1.3B geometry at 480 x 832, on the device without memory."""
    is_led = settings.leads_next_pass
    config, grid = dataclasses.replace(AVATAR_1_3B, num_layers=1), (60, 104)
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: contextlib.nullcontext())
    frames, cached = settings.window_frames + int(settings.mci), cached_frames(settings)
    block = settings.block_frames
    with torch.device("meta"):
        transformer = CausalTransformer(config).to(torch.bfloat16).eval().requires_grad_(False)
        num_tokens = cached * config.tokens_per_frame(*grid)
        tokens = (1, num_tokens, config.num_heads, config.head_dim)
        keys = torch.empty(tokens, dtype=torch.bfloat16)
        source = Source(config, grid, "meta")
        with LiveMemory() as memory:
            transformer(
                *(torch.empty(1, frames, config.out_channels, *grid), torch.empty(1, frames)),
                source.frames(0, frames),
                positions=tuple(range(frames)),
                context=Context(((keys, keys),), tuple(range(cached + block * is_led))),
                lead=None
                if not is_led
                else Lead(
                    *(torch.empty(1, block, config.out_channels, *grid), torch.empty(1, block)),
                    source.frames(0, block),
                    positions=tuple(range(block)),
                    context=Context(((keys, keys),), tuple(range(cached))),
                ),
                keep_keys_values=is_led,
            )
    predicted = predicted_bytes(config, settings, grid, torch.bfloat16)
    predicted -= cache_bytes(config, settings, grid, torch.bfloat16)
    assert memory.peak == pytest.approx(predicted, rel=TOLERANCE)


@pytest.mark.parametrize(
    ("settings", "width", "grid", "dtype"),
    [
        ({}, 256, (8, 8), torch.float32),
        ({}, 256, (16, 16), torch.bfloat16),
        ({}, 512, (8, 8), torch.bfloat16),
        ({"context_frames": 9}, 256, (8, 8), torch.bfloat16),
        ({"mci": True}, 256, (8, 8), torch.bfloat16),
    ],
    ids=["dtype", "grid", "width", "context", "condition"],
)
def test_more_of_anything_takes_more(settings, width, grid, dtype):
    least = dataclasses.replace(PAPER, mci=False, context_frames=6)
    more = dataclasses.replace(least, **settings)
    wider = dataclasses.replace(CONFIG, dim=width)
    assert predicted_bytes(wider, more, grid, dtype) > predicted_bytes(
        CONFIG, least, (8, 8), torch.bfloat16
    )


def test_what_was_measured_at_full_size(repository):
    """Peaks of a whole process with the true 1.3B geometry, recorded beside what it read."""
    record = json.loads((repository / "runs" / "full-size-step.json").read_text())
    assert record["configuration"] == "avatar-1.3b"
    grid = (record["size_px"][1] // 8, record["size_px"][0] // 8)
    dtype = getattr(torch, record["dtype"])
    activations = activation_bytes(AVATAR_1_3B, PAPER, record["tokens_per_frame"], dtype.itemsize)
    predicted = record["weights_bytes"] + predicted_bytes(AVATAR_1_3B, PAPER, grid, dtype)
    predicted += heap_holes_bytes(activations)
    for run in record["runs"]:
        assert run["peak_bytes"] == pytest.approx(predicted, rel=TOLERANCE)


def test_known_sizes_of_the_full_model():
    """Bytes per latent frame that were computed independently: 189 MB and 288 MB."""
    for grid, expected in (((64, 64), 188.7e6), ((60, 104), 287.5e6)):
        total = cache_bytes(AVATAR_1_3B, PAPER, grid, torch.bfloat16)
        assert total == pytest.approx(9 * expected, rel=0.001)
