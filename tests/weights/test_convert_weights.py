"""Conversion of files in the published layouts: what comes out, what is refused, what it costs."""

import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
from public_layouts import from_public, to_public
from published import AVATAR, TEXT_DIM, random_transformer, with_adapters, write_profile
from safetensors.torch import load_file, save_file

from joyflash_cli.codec.config import WanCodecConfig
from joyflash_cli.config import from_dict
from joyflash_cli.errors import CheckpointError, OutputError, UsageError
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.weights import convert_write
from joyflash_cli.weights.convert import convert_weights, read_template
from joyflash_cli.weights.convert_transformer import plan_transformer
from joyflash_cli.weights.manifest import read_manifest
from joyflash_cli.weights.store import resolve_checkpoint
from joyflash_cli.weights.tensors import part_files

LIVETALK, AVATARFORCING = "livetalk-1.3b", "avatarforcing-1.3b"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Both public profiles in their published layouts."""
    folder = tmp_path_factory.mktemp("published")
    return {name: write_profile(folder / name, name) for name in (LIVETALK, AVATARFORCING)}


@pytest.fixture(scope="module")
def converted(published, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    return {
        name: convert_weights(name, source=source, out_dir=folder / name, dtype="fp32")
        for name, source in published.items()
    }


@pytest.fixture
def copy(published, tmp_path):
    """The files of AvatarForcing, to be spoilt."""
    import shutil

    return shutil.copytree(published[AVATARFORCING], tmp_path / "source")


def tensors(directory, part):
    found = {}
    for path in part_files(directory, part):
        found |= load_file(path)
    return found


def training_file(folder):
    return next(folder.rglob("model.pt"))


def expected_avatarforcing(source, entry):
    """Adapters merged by hand, names and shapes ours."""
    state = torch.load(training_file(source), weights_only=True)[entry]
    plain = {}
    for name, tensor in state.items():
        name = name.removeprefix("model.").replace("_fsdp_wrapped_module.", "")
        if ".lora_" not in name:
            plain[name.replace(".base_layer.", ".")] = tensor
    for name, down in state.items():
        if ".lora_A." in name:
            up = state[name.replace(".lora_A.", ".lora_B.")]
            linear = name.removeprefix("model.").replace("_fsdp_wrapped_module.", "")
            plain[linear.partition(".lora_A.")[0] + ".weight"] += 0.5 * up @ down
    return from_public(plain, AVATAR)


def test_livetalk_is_copied_name_by_name(published, converted):
    source = load_file(published[LIVETALK] / "LiveTalk-1.3B-V0.1" / "model.safetensors")
    found = tensors(converted[LIVETALK], "transformer")
    back = to_public(found, AVATAR)
    assert back.keys() == source.keys()
    assert all(torch.equal(back[name], source[name]) for name in source)


@pytest.mark.parametrize("choice", ["auto", "ema", "generator"])
def test_avatarforcing_takes_the_right_copy_and_merges_its_adapters(published, tmp_path, choice):
    out = convert_weights(
        AVATARFORCING, source=published[AVATARFORCING], out_dir=tmp_path / "c", dtype="fp32",
        generator=choice,
    )  # fmt: skip
    entry = "generator" if choice == "generator" else "generator_ema"
    expected = expected_avatarforcing(published[AVATARFORCING], entry)
    found = tensors(out, "transformer")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=1e-6), name


def test_the_result_describes_itself(converted):
    for name, out in converted.items():
        files = resolve_checkpoint(name, out)
        assert files.name == name
        assert files.description.transformer == AVATAR
        assert files.description.codec == WanCodecConfig({"base_dim": 4, "z_dim": 16})
        assert files.description.front_end.config["hidden_size"] == 16
        assert files.description.text_encoder["d_model"] == TEXT_DIM
        assert (out / "tokenizer.json").is_file()
        assert not [path for path in out.rglob("*") if path.suffix in (".pt", ".pth")]


def test_bf16_is_the_default_and_what_computes_in_float32_keeps_it(published, tmp_path):
    out = convert_weights(LIVETALK, source=published[LIVETALK], out_dir=tmp_path / "c")
    kinds = {
        part: {tensor.dtype for tensor in tensors(out, part).values()}
        for part in ("transformer", "text_encoder", "codec", "front_end")
    }
    assert kinds == {
        "transformer": {torch.bfloat16},
        "text_encoder": {torch.bfloat16},
        "codec": {torch.float32},
        "front_end": {torch.float32},
    }


def test_large_parts_are_written_in_shards(published, tmp_path, monkeypatch):
    monkeypatch.setattr(convert_write, "MIN_SHARD_BYTES", 100_000)
    steps = []
    out = convert_weights(
        LIVETALK, source=published[LIVETALK], out_dir=tmp_path / "c", on_progress=steps.append
    )
    shards = part_files(out, "transformer")
    assert len(shards) > 3
    index = json.loads((out / "transformer.safetensors.index.json").read_text())
    assert {out / name for name in index["weight_map"].values()} == set(shards)
    assert index["metadata"]["total_size"] == sum(
        tensor.numel() * 2 for tensor in tensors(out, "transformer").values()
    )
    assert any("file 2 of" in step for step in steps)
    from presets import AUDIO_LIVETALK as AUDIO_LIVETALK

    from joyflash_cli.render.load import load_parts
    from joyflash_cli.render.placement import Placement

    files, cpu = resolve_checkpoint(LIVETALK, out), torch.device("cpu")
    parts = load_parts(files, Placement(cpu, torch.float32, cpu))
    whole = tensors(out, "transformer")
    for name, tensor in parts.transformer.state_dict().items():
        assert torch.equal(tensor, whole[name].float()), name
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=shards[1].name):
        resolve_checkpoint(LIVETALK, out)


def test_a_single_file_of_the_user_replaces_the_transformer(published, tmp_path):
    """As after training further; its other parts lie beside it."""
    own = published[LIVETALK] / "own.safetensors"
    save_file({n: t.contiguous() for n, t in to_public(random_transformer().state_dict(),
                                                      AVATAR).items()}, own)  # fmt: skip
    out = convert_weights(LIVETALK, source=own, out_dir=tmp_path / "c", dtype="fp32")
    own_weight = load_file(own)["head.head.weight"]
    assert torch.equal(tensors(out, "transformer")["head.projection.weight"], own_weight)


def test_adapters_of_the_diffusers_layout_and_every_container_prefix(tmp_path, published):
    from joyflash_cli.weights.convert_names import DIFFUSERS_NAMES

    model = random_transformer()
    state = to_public(model.state_dict(), AVATAR, names=DIFFUSERS_NAMES)
    for prefix in ("model.", "module.model.", "model.diffusion_model.", "_orig_mod."):
        path = tmp_path / "own.pt"
        torch.save({"state_dict": {f"{prefix}{n}": t for n, t in state.items()}}, path)
        (tmp_path / "config.json").write_text('{"model_type": "another"}')
        _, config, _ = plan_transformer((path,), read_template(LIVETALK))
        assert config == AVATAR


class Evil:
    """What a malicious file holds: unpickling it would make a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("where", ["whole", "beside", "inside", "codec", "text_encoder"])
def test_nothing_in_a_pickle_executes(copy, tmp_path, where):
    marker, out = tmp_path / "executed", tmp_path / "out"
    evil = Evil(marker)
    path = training_file(copy)
    payload = torch.load(path, weights_only=True)
    if where == "whole":
        torch.save(evil, path)
    elif where == "beside":
        torch.save(payload | {"critic": evil}, path)
    elif where == "inside":
        payload["generator_ema"]["model.patch_embedding.weight"] = evil
        torch.save(payload, path)
    else:
        name = {"codec": "Wan2.1_VAE.pth", "text_encoder": "models_t5_umt5-xxl-enc-bf16.pth"}[where]
        torch.save({"conv1.weight": evil}, next(copy.rglob(name)))
    with pytest.raises(CheckpointError) as caught:
        convert_weights(AVATARFORCING, source=copy, out_dir=out)
    assert caught.value.code == "E-CHECKPOINT-PICKLE"
    assert "execute" in caught.value.message
    assert not marker.exists()
    assert not out.exists()
    assert [p.name for p in tmp_path.iterdir() if "out" in p.name] == []


def test_a_raw_pickle_executes_nothing_either(copy, tmp_path):
    import pickle

    marker = tmp_path / "executed"
    training_file(copy).write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(CheckpointError):
        convert_weights(AVATARFORCING, source=copy, out_dir=tmp_path / "out")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cannot be read"),
        (b"<!DOCTYPE html><html>", "cannot be read"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "cannot be read"),
        (b"PK\x03\x04" + bytes(200), "cannot be read"),
    ],
)
def test_files_that_are_no_weights(copy, tmp_path, data, words):
    training_file(copy).write_bytes(data)
    with pytest.raises(CheckpointError, match=words) as caught:
        convert_weights(AVATARFORCING, source=copy, out_dir=tmp_path / "out")
    assert caught.value.code == "E-CHECKPOINT-DAMAGED"
    assert not (tmp_path / "out").exists()


def test_a_cut_pickle_is_refused(copy, tmp_path):
    path = training_file(copy)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        convert_weights(AVATARFORCING, source=copy, out_dir=tmp_path / "out")


def edited(copy, edit):
    path = training_file(copy)
    payload = torch.load(path, weights_only=True)
    edit(payload["generator_ema"])
    torch.save({"generator_ema": payload["generator_ema"]}, path)


PREFIX = "model._fsdp_wrapped_module."


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda s: s.pop(f"{PREFIX}blocks.2.norm3.weight"), r"lacks blocks\.2\.norm3\.weight"),
        (lambda s: s.update({f"{PREFIX}vace.weight": torch.ones(1)}), r"unexpected vace\.weight"),
        (lambda s: s.update({f"{PREFIX}head.head.bias": torch.ones(3)}), r"head\.head\.bias"),
        (
            lambda s: s.pop(f"{PREFIX}blocks.1.ffn.0.lora_B.default.weight"),
            r"adapter of blocks\.1\.ffn\.0 is incomplete",
        ),
        (
            lambda s: s.update({f"{PREFIX}blocks.1.ffn.0.lora_B.default.weight": torch.ones(3, 4)}),
            r"adapter of blocks\.1\.ffn\.0",
        ),
        (lambda s: s.update({"module.head.modulation": torch.ones(1, 2, 128)}), "twice"),
        (lambda s: s.clear(), "No generator"),
    ],
    ids=["missing", "unknown", "shape", "half adapter", "wrong adapter", "twice", "empty"],
)
def test_other_layouts_are_refused_by_name(copy, tmp_path, edit, words):
    edited(copy, edit)
    with pytest.raises(CheckpointError, match=words) as caught:
        convert_weights(AVATARFORCING, source=copy, out_dir=tmp_path / "out")
    assert caught.value.code == "E-CHECKPOINT-LAYOUT"


@pytest.mark.parametrize("name", ["Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"])
def test_another_model_in_place_of_an_encoder(copy, tmp_path, name):
    torch.save({"token_embedding.weight": torch.ones(2, 2)}, next(copy.rglob(name)))
    with pytest.raises(CheckpointError) as caught:
        convert_weights(AVATARFORCING, source=copy, out_dir=tmp_path / "out")
    assert caught.value.code == "E-CHECKPOINT-LAYOUT"


def test_missing_files_are_named_with_the_command(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    next(copy.rglob("Wan2.1_VAE.pth")).unlink()
    with pytest.raises(CheckpointError, match=r"Wan2\.1_VAE\.pth") as caught:
        convert_weights(AVATARFORCING, source=copy, out_dir=tmp_path / "out")
    assert "joyflash weights fetch avatarforcing-1.3b --role codec" in caught.value.hint


def test_without_the_text_encoder_the_rest_is_converted(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    next(copy.rglob("models_t5_umt5-xxl-enc-bf16.pth")).unlink()
    out = convert_weights(AVATARFORCING, source=copy, out_dir=tmp_path / "out")
    assert not resolve_checkpoint(AVATARFORCING, out).has("text_encoder")


def test_an_existing_checkpoint_is_left_alone(published, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        convert_weights(LIVETALK, source=published[LIVETALK], out_dir=out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    convert_weights(LIVETALK, source=published[LIVETALK], out_dir=out, overwrite=True)
    assert not (out / "mine.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_told_before_anything_is_written(published, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OutputError, match="free on its disk"):
        convert_weights(LIVETALK, source=published[LIVETALK], out_dir=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("profile", "dtype", "words"),
    [("tiny", "bf16", "tiny"), ("big", "bf16", "big"), (LIVETALK, "int4", "int4")],
)
def test_what_cannot_be_converted(tmp_path, profile, dtype, words):
    with pytest.raises(UsageError, match=words):
        convert_weights(profile, source=None, out_dir=tmp_path / "out", dtype=dtype)


def test_the_image_to_video_base_is_converted_with_its_picture_encoder(tmp_path):
    from published import CLIP

    name = "wan2.1-fun-1.3b-inp"
    source = write_profile(tmp_path / "source", name)
    out = convert_weights(name, source=source, out_dir=tmp_path / "out", dtype="fp32")
    description = json.loads((out / "checkpoint.json").read_text())
    assert description["image_encoder"]["config"] == CLIP
    found = tensors(out, "image_encoder")
    public = torch.load(next(source.rglob("*huge-14.pth")), weights_only=True)
    joint = public["visual.transformer.1.attn.to_qkv.weight"]
    for index, letter in enumerate("qkv"):
        ours = found[f"encoder.layers.1.self_attn.{letter}_proj.weight"]
        assert torch.equal(ours, joint[80 * index : 80 * (index + 1)])


def test_templates_are_the_profiles_of_the_code():
    """The files that travel with checkpoints say the published numbers."""
    from dataclasses import asdict

    import presets

    from joyflash_cli.conditioning.config import ConditioningConfig
    from joyflash_cli.media.inputs.framing import SizeRule
    from joyflash_cli.sampler.settings import PAPER, SamplerSettings

    expected = {
        LIVETALK: (presets.AVATAR_1_3B, presets.LIVETALK, asdict(presets.AUDIO_LIVETALK)),
        AVATARFORCING: (
            presets.AVATAR_1_3B,
            presets.AVATARFORCING,
            asdict(presets.AUDIO_AVATARFORCING),
        ),
        "joyavatar-flash-1.3b": (presets.JOYAVATAR_1_3B, PAPER, None),
    }
    for name, (transformer, profile, options) in expected.items():
        template = read_template(name)
        assert from_dict(TransformerConfig, template["transformer"]) == transformer
        assert from_dict(SamplerSettings, template["sampler"]) == profile
        assert options is None or template["front_end"]["options"] == options
        from_dict(SizeRule, template["framing"])
        from_dict(ConditioningConfig, template["conditioning"])
    known = {
        name
        for name, entry in read_manifest().items()
        if entry.source != "embedded" and entry.kind != "measure"
    }
    assert all(read_template(name) for name in known)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_below_one_copy_of_the_model(published, tmp_path):
    """Measured in a process of its own: the peak of resident memory above its own baseline."""
    script = textwrap.dedent(
        """
        import gc, sys
        from pathlib import Path
        from joyflash_cli.weights.convert import convert_weights
        small, folder = Path(sys.argv[1]), Path(sys.argv[2])

        def memory(field):
            lines = Path("/proc/self/status").read_text().splitlines()
            return 1024 * int(next(l for l in lines if l.startswith(field)).split()[1])

        convert_weights("avatarforcing-1.3b", source=small, out_dir=folder / "warm")
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        before = memory("VmRSS")
        target = folder / "big" / "model.pt"
        convert_weights("avatarforcing-1.3b", source=target, out_dir=folder / "out")
        size = sum(p.stat().st_size for p in (folder / "out").glob("transformer*.safetensors"))
        print(memory("VmHWM") - before, size)
        """
    )
    write_big(published[AVATARFORCING], tmp_path / "big")
    done = subprocess.run(
        [sys.executable, "-c", script, str(published[AVATARFORCING]), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    growth, size = map(int, done.stdout.split()[-2:])
    assert size > 100e6
    assert growth < size, f"{growth / 1e6:.0f} MB more for a model of {size / 1e6:.0f} MB"


def write_big(small, folder):
    """AvatarForcing's layout with 56 million parameters, beside the small encoders."""
    import dataclasses
    import shutil

    shutil.copytree(small, folder)
    config = dataclasses.replace(AVATAR, dim=512, num_heads=4, num_layers=10, ffn_dim=3072)
    public = to_public(random_transformer(config).state_dict(), config)
    averaged = {f"model._fsdp_wrapped_module.{n}": t for n, t in with_adapters(public).items()}
    # The critic shares the values: the file stays small, the number of names is as published.
    torch.save({"generator_ema": averaged, "critic": dict(averaged)}, folder / "model.pt")


def test_the_command_converts_and_prints_where(published, tmp_path, monkeypatch, capsys):
    from joyflash_cli.cli.app import run

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    source = published[LIVETALK] / "own.safetensors"
    source.unlink(missing_ok=True)
    model = published[LIVETALK] / "LiveTalk-1.3B-V0.1" / "model.safetensors"
    source.write_bytes(model.read_bytes())
    out = tmp_path / "out"
    arguments = ["weights", "convert", LIVETALK, "--source", str(source), "--output", str(out)]
    assert run([*arguments, "--accept-license"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [str(out)]
    assert "transformer" in printed.err
    assert resolve_checkpoint(LIVETALK, out).name == LIVETALK
    assert run(arguments) == 6
    assert "exists" in capsys.readouterr().err
