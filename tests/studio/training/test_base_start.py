"""A base as the first weights of a network to train: the base's own numbers, and fresh paths."""

import dataclasses
import json

import pytest
import torch
from public_layouts import to_public
from published import AVATAR, TEXT_DIM, random_transformer
from safetensors.torch import load_file, save_file

from joyflash_cli.cli.app import run
from joyflash_cli.config import from_dict, to_dict
from joyflash_cli.errors import CheckpointError, OutputError
from joyflash_cli.model.config import (
    AudioAttentionConfig,
    AudioPackConfig,
    FaceAttentionConfig,
    TransformerConfig,
)
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.studio.training.base_start import convert_start
from joyflash_cli.studio.training.sharding import load_weights
from joyflash_cli.types import Conditioning
from joyflash_cli.weights import convert_write
from joyflash_cli.weights.tensors import part_files

NAME = "wan2.1-t2v-14b"
BASE = dataclasses.replace(AVATAR, in_channels=16, audio_pack=None)
NETWORK = dataclasses.replace(
    BASE,
    in_channels=33,
    audio_attention=AudioAttentionConfig(audio_dim=12, tokens_per_latent=3, projection_dim=20),
    face_attention=FaceAttentionConfig(face_dim=8, num_tokens=2),
)
OTHER = dataclasses.replace(NETWORK, dim=256, num_heads=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The base in its published layout: six files, here of one tensor in six each."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(2)
    model = random_transformer(BASE).eval()
    public = list(to_public(model.state_dict(), BASE).items())
    for index in range(6):
        part = {name: tensor.contiguous() for name, tensor in public[index::6]}
        save_file(part, folder / f"diffusion_pytorch_model-0000{index + 1}-of-00006.safetensors")
    (folder / "config.json").write_text(json.dumps({"dim": 128, "num_heads": 1}))
    return folder, model


def load(directory, network=NETWORK):
    model = CausalTransformer(network)
    load_weights(model, part_files(directory, "transformer"))
    return model.eval()


def predict(model, image, audio, face):
    generator = torch.Generator().manual_seed(4)
    latents = torch.randn(1, 3, 16, 4, 4, generator=generator)
    text = torch.randn(1, 5, TEXT_DIM, generator=generator)
    config = model.config
    conditioning = Conditioning(
        text=text,
        image=image if config.image_channels else None,
        audio=audio if config.audio_attention or config.audio_pack else None,
        face=face if config.face_attention else None,
    )
    with torch.no_grad():
        timesteps = torch.tensor([[1000.0, 500.0, 0.0]])
        return model(latents, timesteps, conditioning, positions=torch.arange(3)).prediction


def test_it_begins_by_computing_what_the_base_computes(base, tmp_path):
    folder, model = base
    out = convert_start(NAME, [OTHER, NETWORK], source=folder, out_dir=tmp_path / "start")
    start = load(out)
    image, audio, face = torch.randn(1, 3, 17, 4, 4), torch.randn(1, 3, 3, 12), torch.randn(1, 8)
    expected = predict(model, image, audio, face)
    # Whatever is shown and said: the new paths carry nothing yet.
    assert torch.allclose(predict(start, image, audio, face), expected, atol=1e-5)
    # They can learn: keys and values are zero, what they are made from is not.
    assert start.audio_projection.projection.weight.abs().mean() > 0.01
    assert start.face_embedding.feed_forward.input.weight.abs().mean() > 0.01
    assert (start.audio_projection.norm.weight == 1).all()
    assert not any(layer.cross_attention.audio_value.weight.any() for layer in start.layers)
    with torch.no_grad():
        for layer in start.layers:
            layer.cross_attention.audio_value.weight.normal_(std=0.2)
    assert not torch.allclose(predict(start, image, audio, face), expected, atol=1e-3)


def test_the_additive_audio_pack_begins_with_nothing_too(base, tmp_path):
    folder, model = base
    network = dataclasses.replace(BASE, audio_pack=AudioPackConfig(6, 2, 5))
    out = convert_start(NAME, [network], source=folder, out_dir=tmp_path / "start")
    start = load(out, network)
    audio = torch.randn(1, 3, 2, 6)
    assert torch.allclose(
        predict(start, None, audio, None), predict(model, None, audio, None), atol=1e-5
    )
    assert start.audio_pack.projection.weight.abs().mean() > 0.01


def test_the_result_says_what_it_is_and_its_seed_decides(base, tmp_path):
    folder, _ = base
    options = {"source": folder, "dtype": "bf16"}
    one = convert_start(NAME, [NETWORK], out_dir=tmp_path / "a", **options)
    two = convert_start(NAME, [NETWORK], out_dir=tmp_path / "b", **options)
    other = convert_start(NAME, [NETWORK], out_dir=tmp_path / "c", seed=1, **options)
    said = json.loads((one / "transformer.json").read_text())
    assert (said["base"], said["seed"], said["licence"]) == (NAME, 0, "Apache-2.0")
    assert from_dict(TransformerConfig, said["transformer"]) == NETWORK
    files = [folder / "transformer.safetensors" for folder in (one, two, other)]
    assert files[0].read_bytes() == files[1].read_bytes()
    tensors = [load_file(file) for file in files]
    assert {tensor.dtype for tensor in tensors[0].values()} == {torch.bfloat16}
    changed = {name for name in tensors[0] if not torch.equal(tensors[0][name], tensors[2][name])}
    assert {name.partition(".")[0] for name in changed} == {"audio_projection", "face_embedding"}


def test_large_networks_are_written_in_shards_that_training_reads(base, tmp_path, monkeypatch):
    from joyflash_cli.studio.training.run_config import DistillationWeights, RunConfig
    from joyflash_cli.studio.training.run_parts import weight_files

    monkeypatch.setattr(convert_write, "MIN_SHARD_BYTES", 100_000)
    convert_start(NAME, [NETWORK], source=base[0], out_dir=tmp_path / "base-14b")
    config = RunConfig(
        work_dir=str(tmp_path), assets_dir="", version="",
        weights=DistillationWeights(teacher_start="base-14b"),
    )  # fmt: skip
    files = weight_files(config, config.weights.teacher_start)
    assert len(files) > 3
    load_weights(CausalTransformer(NETWORK), files)
    assert weight_files(config, "base-14b/" + files[0].name) == (files[0],)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_layers": 5}, "num_layers = 4; the network to train has 5"),
        ({"ffn_dim": 50}, "ffn_dim = 48"),
        ({"text_dim": None}, "text_dim = 16"),
        ({"image_token_dim": 8}, "image_token_dim = None"),
        ({"in_channels": 16}, None),
    ],
)
def test_networks_of_other_sizes_are_refused(base, tmp_path, changes, words):
    network = dataclasses.replace(NETWORK, **changes)
    if words is None:
        convert_start(NAME, [network], source=base[0], out_dir=tmp_path / "out")
        return
    with pytest.raises(CheckpointError, match=words) as caught:
        convert_start(NAME, [network], source=base[0], out_dir=tmp_path / "out")
    assert caught.value.code == "E-CHECKPOINT-LAYOUT"
    assert not (tmp_path / "out").exists()


def test_missing_shards_are_named(base, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    folder = shutil.copytree(base[0], tmp_path / "base")
    next(folder.glob("*00004*")).unlink()
    with pytest.raises(CheckpointError, match="00004-of-00006") as caught:
        convert_start(NAME, [NETWORK], source=folder, out_dir=tmp_path / "out")
    assert caught.value.hint == f"joyflash weights fetch {NAME} --role transformer"


def test_an_existing_folder_stays(base, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(OutputError, match="exists"):
        convert_start(NAME, [NETWORK], source=base[0], out_dir=tmp_path / "out")


def test_the_command_makes_the_network_of_a_recipe(base, tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"

    def table(name, values):
        rows = [f"[{name}]"]
        for key, value in values.items():
            if isinstance(value, dict):
                value = "{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) + " }"
            elif value is None:
                continue
            else:
                value = json.dumps(value)
            rows.append(f"{key} = {value}")
        return "\n".join(rows) + "\n"

    recipe.write_text(
        f'work_dir = "{tmp_path}"\nassets_dir = ""\nversion = "1"\n'
        + table("weights.teacher_transformer", to_dict(NETWORK))
        + table("generator.transformer", to_dict(OTHER))
    )
    arguments = ["weights", "convert", NAME, "--recipe", str(recipe), "--source", str(base[0])]
    assert run(arguments) == 2
    assert "--recipe needs --output" in capsys.readouterr().err
    assert run([*arguments, "-o", str(tmp_path / "start")]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 'start'}\n"
    assert "transformer" in shown.err
    assert load_file(tmp_path / "start" / "transformer.safetensors").keys() == (
        CausalTransformer(NETWORK).state_dict().keys()
    )
