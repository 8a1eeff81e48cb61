"""A ``checkpoint.json`` that asks for the impossible: refused in one line, before it costs memory.

Every case is one that a fuzzing program found, or of the same kind.
"""

import json
import shutil
from pathlib import Path

import pytest

from joyflash_cli.errors import JoyFlashError
from joyflash_cli.render import JoyFlash
from joyflash_cli.render.memory import PlannedRun, check_memory
from joyflash_cli.render.placement import choose_placement
from joyflash_cli.weights.store import resolve_checkpoint

HUGE = 10**9


@pytest.fixture
def copy(toy_checkpoint, tmp_path):
    return shutil.copytree(toy_checkpoint, tmp_path / "copy")


def changed(folder, section, **changes):
    """The files of a checkpoint whose section has other values; ``None`` takes a value away."""
    file = folder / "checkpoint.json"
    values = json.loads(file.read_text())
    merged = values.get(section, {}) | changes
    values[section] = {key: value for key, value in merged.items() if value != "absent"}
    file.write_text(json.dumps(values))
    return resolve_checkpoint("tiny", folder)


CASES = [
    ("transformer", {"num_heads": "absent"}, "num_heads"),
    ("transformer", {"num_heads": 0}, "num_heads"),
    ("transformer", {"dim": "wide"}, "dim"),
    ("transformer", {"num_layers": HUGE}, "num_layers"),
    ("transformer", {"num_layers": -1}, "num_layers"),
    ("transformer", {"ffn_dim": HUGE}, "ffn_dim"),
    ("transformer", {"eps": float("nan")}, "eps"),
    ("transformer", {"patch_size": [1, 0, 2]}, "patch_size"),
    ("transformer", {"position_embedding": HUGE}, "position_embedding"),
    ("transformer", {"audio_attention": {"audio_dim": 16, "tokens_per_latent": HUGE}}, "tokens"),
    ("conditioning", {"image_convention": "wan-i2v"}, "image channels"),
    ("codec", {"decoder_dim": HUGE}, "decoder_dim"),
    ("codec", {"decoder_dim": 16_000}, "another layout"),
    ("codec", {"decoder_dim": 12}, "multiple of 8"),
    ("codec", {"reference_dim": 0}, "reference_dim"),
    ("codec", {"latent_channels": 1_000}, "another layout"),
    ("codec", {"patch_px": 0}, "patch_px"),
    ("codec", {"patch_px": "a"}, "patch_px"),
    ("codec", {"num_drawing_layers": HUGE}, "num_drawing_layers"),
    ("codec", {"kind": ["tiny"]}, "codec"),
    ("codec", {"kind": "x" * 5_000}, "codec"),
    ("codec", {"kind": "wan"}, "codec"),
    ("codec", {"kind": "wan", "dim_mult": 5}, "codec"),
    ("codec", {"kind": "wan", "dim_mult": [1] * 5_000}, "dim_mult"),
    ("codec", {"kind": "wan", "num_res_blocks": HUGE}, "num_res_blocks"),
    ("framing", {"szies": [[64, 32]]}, "szies"),
    ("front_end", {"num_mels": HUGE}, "num_mels"),
    ("front_end", {"hidden": 60_000}, "another layout"),
    ("front_end", {"num_blocks": HUGE}, "num_blocks"),
    ("front_end", {"kind": "wav2vec2", "options": 3}, "front_end"),
    ("front_end", {"kind": "wav2vec2", "options": {"rate_hz": 25}, "config": 3}, "front_end"),
    ("sampler", {"block_frames": HUGE}, "block_frames"),
    ("sampler", {"window_blocks": HUGE}, "window_blocks"),
    ("sampler", {"context_frames": HUGE}, "context_frames"),
    ("sampler", {"fps": HUGE}, "fps"),
    ("sampler", {"shift": float("inf")}, "shift"),
    ("conditioning", {"padded_clip_latents": HUGE}, "padded_clip_latents"),
    ("conditioning", {"audio_windows": {"kind": "own-frames-margin", "margin": HUGE}}, "margin"),
]


@pytest.mark.parametrize(("section", "changes", "words"), CASES)
def test_refused_in_one_line(copy, section, changes, words):
    with pytest.raises(JoyFlashError) as caught:
        JoyFlash.load(changed(copy, section, **changes), device="cpu", dtype="float32")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1_000
    assert str(caught.value).isprintable()
    assert caught.value.exit_code in (2, 4)


@pytest.mark.parametrize(("section", "changes", "words"), CASES)
def test_the_preflight_never_stumbles(copy, section, changes, words):
    """It reads only part of the description; what it does read, it checks."""
    placement = choose_placement("cpu", "float32")
    try:
        check_memory(PlannedRun(changed(copy, section, **changes), (64, 64)), placement)
    except JoyFlashError as error:
        told = str(error)
    else:
        told = ""
    assert "\n" not in told
    assert len(told) < 1_000


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_a_refusal_takes_no_memory(copy):
    """Weights of a size that the files do not have are never made room for."""
    files = changed(copy, "codec", decoder_dim=16_000, num_drawing_layers=200)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    with pytest.raises(JoyFlashError):
        JoyFlash.load(files, device="cpu", dtype="float32")
    assert resident("VmHWM") - before < 200 << 20


def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
