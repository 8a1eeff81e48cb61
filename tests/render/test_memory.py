"""Predicted memory against the storages that a real stream keeps alive."""

import contextlib
import dataclasses

import pytest
import torch
from live_memory import LiveMemory
from presets import AVATAR_1_3B, AVATARFORCING, LIVETALK

from joyflash_cli.model import kernels
from joyflash_cli.model.attention import use_backend
from joyflash_cli.model.config import AudioPackConfig, TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.render import memory as memory_module
from joyflash_cli.render.memory import (
    clean_pass_size,
    keys_values_bytes,
    stream_memory,
    window_pass_size,
)
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.settings import PAPER
from joyflash_cli.sampler.stream import Stream
from joyflash_cli.types import Conditioning

CONFIG = TransformerConfig(
    dim=64, num_layers=2, num_heads=2, ffn_dim=320, freq_dim=32, in_channels=9, out_channels=4,
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


def stream_of(config, profile, grid, dtype, backend):
    torch.manual_seed(0)
    transformer = CausalTransformer(config).to(dtype).eval().requires_grad_(False)
    use_backend(transformer, backend)
    shape = (config.out_channels, *grid)
    return lambda: Stream.start(
        transformer,
        profile,
        source=Source(config, grid, "cpu"),
        noise=SeededNoise(0, shape),
        latent_shape=shape,
        reference_latent=torch.zeros(1, *shape),
    )


@pytest.mark.parametrize(
    ("profile", "dtype", "backend", "grid"),
    [
        (PAPER, torch.bfloat16, "math", (16, 16)),
        (PAPER, torch.float32, "sdpa", (8, 12)),
        (LIVETALK, torch.bfloat16, "sdpa", (12, 20)),
        (LIVETALK, torch.float32, "math", (8, 12)),
        (AVATARFORCING, torch.bfloat16, "sdpa", (16, 8)),
    ],
    ids=["paper-math", "paper-fp32", "livetalk-sdpa", "livetalk-fp32-math", "avatarforcing"],
)
@torch.inference_mode()
def test_the_prediction_is_what_stays_alive(profile, dtype, backend, grid):
    predicted = stream_memory(
        CONFIG, profile, grid, element_bytes=dtype.itemsize, written_out=backend == "math"
    )
    start = stream_of(CONFIG, profile, grid, dtype, backend)
    with LiveMemory() as memory:
        stream = start()
        assert stream.cache.num_bytes == predicted.cache
        for _ in stream.iterate():
            if stream.num_emitted == NUM_STEADY:
                break
    assert memory.peak == pytest.approx(predicted.total, rel=TOLERANCE)


def test_memory_does_not_grow_along_the_stream():
    start = stream_of(CONFIG, PAPER, (8, 8), torch.float32, "sdpa")
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
        profile = dataclasses.replace(PAPER, clean_kv=rule)
        start = stream_of(CONFIG, profile, (16, 16), torch.float32, "sdpa")
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
    size = window_pass_size(PAPER, 64)
    kept = keys_values_bytes(CONFIG, size.own_tokens, 4)
    assert held["last-pass"] - held["extra-pass"] == pytest.approx(kept, rel=0.02)


@torch.inference_mode()
def test_the_true_width_too(monkeypatch):
    """One layer of the real 1.3B geometry at 480 x 832, on the device without memory."""
    config, grid = dataclasses.replace(AVATAR_1_3B, num_layers=1), (60, 104)
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: contextlib.nullcontext())
    size = window_pass_size(PAPER, config.tokens_per_frame(*grid))
    with torch.device("meta"):
        transformer = CausalTransformer(config).to(torch.bfloat16).eval().requires_grad_(False)
        frames = PAPER.window_frames + 1
        tokens = (1, size.context_tokens, config.num_heads, config.head_dim)
        keys = torch.empty(tokens, dtype=torch.bfloat16)
        with LiveMemory() as memory:
            from joyflash_cli.model.transformer import Context

            transformer(
                torch.empty(1, frames, config.out_channels, *grid),
                torch.empty(1, frames),
                Source(config, grid, "meta").frames(0, frames),
                positions=torch.empty(frames),
                context=Context(((keys, keys),), torch.empty(9)),
                keep_keys_values=False,
            )
    predicted = stream_memory(config, PAPER, grid, element_bytes=2, written_out=False)
    expected = predicted.activations + predicted.static
    assert memory.peak == pytest.approx(expected, rel=TOLERANCE)


def test_the_written_out_kernel_holds_what_is_counted():
    """The formulas import no torch, so the numbers stand in two places."""
    assert memory_module.MAX_SCORES == kernels.MAX_SCORES
    assert memory_module.GELU_ELEMENTS == kernels.GELU_ELEMENTS


def test_sizes_of_the_passes():
    assert window_pass_size(PAPER, 10).own_tokens == 130
    assert window_pass_size(PAPER, 10).context_tokens == 90
    assert clean_pass_size(PAPER, 10).own_tokens == 30
    assert window_pass_size(LIVETALK, 10).own_tokens == 30
    assert window_pass_size(LIVETALK, 10).context_tokens == 120
    last = dataclasses.replace(PAPER, clean_kv="last-pass")
    assert window_pass_size(last, 10).keeps_keys
    assert clean_pass_size(last, 10).own_tokens == 0


def test_known_sizes_of_the_full_model():
    """Bytes per latent frame that were computed independently: 189 MB and 288 MB."""
    for grid, expected in (((64, 64), 188.7e6), ((60, 104), 287.5e6)):
        memory = stream_memory(AVATAR_1_3B, PAPER, grid, element_bytes=2, written_out=False)
        assert memory.per_frame == pytest.approx(expected, rel=0.001)
        assert memory.cache == 9 * memory.per_frame
