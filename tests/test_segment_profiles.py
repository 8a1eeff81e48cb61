"""FlashHead and LeapTalk the whole way: published files converted, then rendered by profile alone.

The widths are small and random; layouts, encoders, codecs and the sampler are the real ones.
"""

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
import torch
from published_segments import (
    ALPHA,
    FLASHHEAD,
    LEAPTALK,
    RANK,
    SMALL,
    write_segment_profile,
)
from safetensors.torch import load_file, save_file

from joyflash_cli.cli.app import run
from joyflash_cli.errors import JoyFlashError
from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.render import JoyFlash, read_request
from joyflash_cli.render.placement import ExecutionOptions, place
from joyflash_cli.weights.convert import convert_weights, read_template
from joyflash_cli.weights.store import resolve_checkpoint
from joyflash_cli.weights.tensors import read_tensors

SIZE = (48, 32)
PROFILES = (FLASHHEAD, LEAPTALK)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    return {name: write_segment_profile(folder / name, name) for name in PROFILES}


@pytest.fixture(scope="module")
def checkpoints(published, tmp_path_factory):
    """Converted, with frames that are small."""
    folder = tmp_path_factory.mktemp("converted")
    made = {}
    for name, source in published.items():
        made[name] = convert_weights(name, source=source, out_dir=folder / name, dtype="fp32")
        path = made[name] / "checkpoint.json"
        description = json.loads(path.read_text()) | {"framing": {"sizes": [SIZE]}}
        path.write_text(json.dumps(description))
    return made


def load(checkpoints, name, **execution):
    options = ExecutionOptions(**execution)
    return JoyFlash.load(name, checkpoints[name], device="cpu", dtype="float32", execution=options)


def chunks_of(joyflash, picture, sound, **changes):
    return list(joyflash.stream(read_request(joyflash.files, picture, sound, **changes)))


@pytest.mark.parametrize("name", PROFILES)
def test_a_file_is_covered_to_its_last_frame(checkpoints, toy_picture, toy_voice, name):
    """1.3 s are 33 frames and one segment: the reference makes none of it, or 0 of 33."""
    joyflash = load(checkpoints, name)
    (chunk,) = chunks_of(joyflash, toy_picture, toy_voice)
    assert chunk.frames.shape == (33, SIZE[1], SIZE[0], 3)
    as_stream = chunks_of(joyflash, toy_picture, toy_voice, look_ahead_blocks=0)
    assert [len(chunk.frames) for chunk in as_stream] == [28, 5]


@pytest.mark.parametrize("name", PROFILES)
def test_the_command_line_renders_files_and_pipes(
    checkpoints, toy_picture, toy_voice, tmp_path, name, monkeypatch
):
    command = ["render", "--profile", name, "--checkpoint", str(checkpoints[name]), "--quiet"]
    command += ["--image", str(toy_picture), "--device", "cpu", "--dtype", "fp32"]
    out = tmp_path / "file.mp4"
    assert run([*command, "--audio", str(toy_voice), "-o", str(out)]) == 0
    assert probe(out).num_frames == 33
    record = json.loads((tmp_path / "file.mp4.json").read_text())
    assert record["parameters"]["sampler"]["kind"] == "segments"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(toy_voice.read_bytes())))
    live = tmp_path / "live.mp4"
    assert run([*command, "--audio", "-", "-o", str(live)]) == 0
    assert probe(live).num_frames == 33


def test_picture_sound_and_seed_reach_the_frames_where_they_should(
    checkpoints, toy_picture, toy_voice
):
    for name, hears_seed in ((FLASHHEAD, True), (LEAPTALK, False)):
        joyflash = load(checkpoints, name, fast_decode=False)
        request = read_request(joyflash.files, toy_picture, toy_voice)

        def first(request, joyflash=joyflash):
            return next(joyflash.stream(request)).frames

        base = first(request)
        assert np.array_equal(base, first(request))
        assert np.array_equal(base, first(dataclasses.replace(request, seed=1))) != hears_seed
        inverted = dataclasses.replace(request.face, pixels=255 - request.face.pixels)
        assert not np.array_equal(base, first(dataclasses.replace(request, face=inverted)))
        streamed = dataclasses.replace(request, look_ahead_blocks=0)
        assert not np.array_equal(base[:28], first(streamed))


def test_leaptalk_uses_its_small_codec_unless_told_otherwise(checkpoints, toy_picture, toy_voice):
    usual, large = load(checkpoints, LEAPTALK), load(checkpoints, LEAPTALK, fast_decode=False)
    assert type(usual._parts.codec).__name__ == "FastDecodeCodec"
    assert type(large._parts.codec).__name__ == "WanCodec"
    one, other = (chunks_of(joyflash, toy_picture, toy_voice) for joyflash in (usual, large))
    assert one[0].frames.shape == other[0].frames.shape
    assert not np.array_equal(one[0].frames, other[0].frames)
    # FlashHead decodes with the small one only where it is asked to.
    assert type(load(checkpoints, FLASHHEAD)._parts.codec).__name__ == "WanCodec"
    fast = load(checkpoints, FLASHHEAD, fast_decode=True)
    assert type(fast._parts.codec).__name__ == "FastDecodeCodec"


@pytest.mark.parametrize(
    ("words", "fast_decode"),
    [([], None), (["--fast-decode"], True), (["--fast-decode", "off"], False),
     (["--fast-decode=on"], True), (["--fast-decode", "face.png"], True)],
)  # fmt: skip
def test_the_decoder_is_chosen_in_words(words, fast_decode):
    from joyflash_cli.cli.options import chosen_decoder, spelled_out

    spelled = spelled_out(words)
    chosen = chosen_decoder("--fast-decode" in spelled, "--no-fast-decode" in spelled)
    assert chosen is fast_decode
    assert ("face.png" in spelled) == ("face.png" in words)


def test_conversion_drops_what_is_unused_and_merges_by_the_stated_scale(published, checkpoints):
    base = load_file(published[LEAPTALK] / "SoulX-FlashHead-1_3B/Model_Pro/"
                     "diffusion_pytorch_model.safetensors")  # fmt: skip
    factors = load_file(published[LEAPTALK] / "leaptalk/lora/adapter_model.safetensors")
    files = resolve_checkpoint(LEAPTALK, checkpoints[LEAPTALK])
    merged = read_tensors(files.shards("transformer"))
    down, up = (
        factors[f"base_model.model.blocks.1.cross_attn.k.lora_{side}.weight"] for side in "AB"
    )
    expected = base["blocks.1.cross_attn.k.weight"] + ALPHA / RANK * up @ down
    assert torch.allclose(merged["layers.1.cross_attention.audio_key.weight"], expected, atol=1e-6)
    projector = torch.load(published[LEAPTALK] / "leaptalk/audio_proj_step_10400.pt")
    assert torch.equal(merged["audio_projection.first.weight"], projector["proj1.weight"].float())
    assert not [name for name in merged if "text_embedding" in name or "audio_emb" in name]
    assert files.description.transformer == SMALL


def damaged(folder, relative, change):
    path = next(folder.rglob(relative))
    if path.suffix == ".json":
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    elif path.suffix == ".safetensors":
        save_file(change(load_file(path)), path)
    else:
        torch.save(change(torch.load(path)), path)


WRONG = [
    ("diffusion_pytorch_model.safetensors", lambda s: s | {"blocks.9.x.weight": torch.ones(2)},
     "unexpected blocks.9.x.weight"),
    ("diffusion_pytorch_model.safetensors",
     lambda s: {n: t for n, t in s.items() if n != "blocks.1.cross_attn.norm_k.weight"},
     "lacks blocks.1.cross_attn.norm_k.weight"),
    ("adapter_config.json", lambda s: s | {"rank_pattern": {"q": 2}}, "rank_pattern"),
    ("adapter_config.json", lambda s: s | {"r": 2}, "rank 4"),
    ("audio_proj_step_10400.pt", lambda s: {n: t for n, t in s.items() if "proj2" not in n},
     "audio_proj.proj2"),
    ("audio_proj_step_10400.pt", lambda s: {f"model.{n}x": t for n, t in s.items()}, "audio_proj"),
    ("taew2_1.pth", lambda s: {n: t for n, t in s.items() if n.startswith("decoder.")},
     "no encoder"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "change", "told"), WRONG)
def test_damaged_and_foreign_files_are_one_line(published, tmp_path, file, change, told):
    source = shutil.copytree(published[LEAPTALK], tmp_path / "source")
    damaged(source, file, change)
    with pytest.raises(JoyFlashError) as caught:
        convert_weights(LEAPTALK, source=source, out_dir=tmp_path / "out", dtype="fp32")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_projector_is_named_with_its_command(published, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    source = shutil.copytree(published[LEAPTALK], tmp_path / "source")
    next(source.rglob("audio_proj_step_10400.pt")).unlink()
    with pytest.raises(JoyFlashError, match="audio_proj_step_10400.pt") as caught:
        convert_weights(LEAPTALK, source=source, out_dir=tmp_path / "out")
    assert "--role projector" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("sampler", {"kind": "chunks"}),
        ("sampler", {"overlap_frames": 40}),
        ("conditioning", {"audio_windows": {"kind": "video-rows"}}),
        ("conditioning", {"audio_windows": {"kind": "segment", "margin": 3}}),
        ("sampler", {"kind": "rolling"}),
    ],
)
def test_descriptions_that_do_not_agree_are_refused(checkpoints, tmp_path, section, change):
    folder = shutil.copytree(checkpoints[FLASHHEAD], tmp_path / "copy")
    path = folder / "checkpoint.json"
    description = json.loads(path.read_text())
    own = {} if change == {"kind": "rolling"} else description[section]
    path.write_text(json.dumps(description | {section: own | change}))
    with pytest.raises(JoyFlashError, match=r"checkpoint\.json|overlap_frames is 40"):
        resolve_checkpoint(FLASHHEAD, folder)


def test_the_published_sizes_are_counted():
    from joyflash_cli.render.operations import meta_transformer

    config = TransformerConfig.from_dict(read_template(FLASHHEAD)["transformer"])
    parameters = list(meta_transformer(config).parameters())
    assert sum(parameter.numel() for parameter in parameters) == 1_497_264_704
    template = read_template(LEAPTALK)
    assert TransformerConfig.from_dict(template["transformer"]) == config


def test_guidance_and_steps_by_option(checkpoints, toy_picture, toy_voice, tmp_path):
    command = ["render", "--profile", LEAPTALK, "--checkpoint", str(checkpoints[LEAPTALK]),
               "--quiet", "--image", str(toy_picture), "--audio", str(toy_voice)]  # fmt: skip
    out = tmp_path / "two.mp4"
    options = ["--sampling", "steps=2", "--sampling", "guidance=1.6", "--dtype", "fp32"]
    assert run([*command, *options, "-o", str(out)]) == 0
    sampler = json.loads((tmp_path / "two.mp4.json").read_text())["parameters"]["sampler"]
    assert (sampler["steps"], sampler["audio_guidance"]) == ([1000.0, 500.0], 1.6)
    for wrong in ("steps=none", "guidance=nan", "rolling", "steps=0"):
        assert run([*command, "--sampling", wrong, "-o", str(tmp_path / "x.mp4")]) == 2


def test_placement_names_the_decoder(checkpoints):
    files = resolve_checkpoint(LEAPTALK, checkpoints[LEAPTALK])
    assert "fast decoder" in place(files, "cpu", "float32").describe()
