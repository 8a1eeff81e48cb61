"""The paper's chain from OmniAvatar's files: data set, teacher, ODE pairs, ODE, DMD, export.

The recipe is the full-size one with its numbers made small; the networks come out of the published
key layout, a wider "14B" as real score and a "1.3B" as everything else.
"""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from published import AVATAR, write_profile
from safetensors.torch import load_file, save_file
from toy_run import lines

from joyflash_cli.cli.app import run
from joyflash_cli.media.inputs.audio import write_wav
from joyflash_cli.sampler.segment_settings import even_steps
from joyflash_cli.studio.clips.clip_file import write_frames
from joyflash_cli.studio.training.run_config import load_run_config
from joyflash_cli.studio.training.run_parts import read_geometry
from joyflash_cli.types import AudioClip, Conditioning
from joyflash_cli.weights.convert import convert_weights
from joyflash_cli.weights.store import resolve_checkpoint
from joyflash_cli.weights.tensors import part_files, read_tensors

SIZE = (48, 32)
DEEP = dataclasses.replace(AVATAR, num_layers=6)
"""The real score: deeper than the generator, and so with one audio projection more."""

SMALL = {
    r'device = "cuda"': 'device = "cpu"',
    r"\bsteps = \d+": "steps = 1",
    r"warmup_steps = \d+": "warmup_steps = 0",
    r"num_steps = \d+": "num_steps = 8",
    r"\bbatch = \d+": "batch = 1",
    r"threads = \d+": "threads = 1",
    r"gpus = \d+": "gpus = 1",
    r"num_pairs = \d+": "num_pairs = 1",
    r"num_(latents|frames) = 21": r"num_\1 = 7",
    r"score_frames = \d+": "score_frames = 4",
    r"num_blocks = 7": "num_blocks = 2",
    r"num_blocks = \[7, 9\]": "num_blocks = [2, 2]",
    r"(generator|critic)_every = \d+": r"\1_every = 1",
    r"every = 500": "every = 0",
    r"latent_size = \[.*?\]": "latent_size = [4, 6]",
    r"tensorboard = true": "tensorboard = false",
    r"learning_rate = [\de.-]+": "learning_rate = 1e-3",
}


def tables(text, name, config):
    """The recipe's table of a network with other sizes."""
    plain = {k: v for k, v in config.to_dict().items() if not isinstance(v, dict)}
    pack = f"[{name}.audio_pack]\n{lines(config.to_dict()['audio_pack'])}\n\n"
    return re.sub(
        rf"\[{re.escape(name)}\].*?\n\n", f"[{name}]\n{lines(plain)}\n{pack}", text, flags=re.S
    )


@pytest.fixture(scope="module")
def recipe(repository, tmp_path_factory):
    """The recipe in small, beside converted checkpoints and two films."""
    folder = tmp_path_factory.mktemp("chain")
    for name, config in (("omniavatar-1.3b", AVATAR), ("omniavatar-14b", DEEP)):
        source = write_profile(folder / f"{name}-files", name, config)
        made = convert_weights(name, source=source, out_dir=folder / name)
        about = json.loads((made / "checkpoint.json").read_text())
        about["framing"]["sizes"] = [SIZE]
        about["sampler"] |= {"steps": even_steps(2), "max_tokens": 32}
        (made / "checkpoint.json").write_text(json.dumps(about))
    rng = np.random.default_rng(0)
    (folder / "films").mkdir()
    for index in range(2):
        film = folder / "films" / f"film-{index}.mp4"
        still = rng.integers(0, 255, (1, SIZE[1], SIZE[0], 3), np.uint8)
        write_frames(film, np.repeat(still, 26, axis=0), fps=25)
        sound = rng.normal(size=(26 * 640, 1)).astype(np.float32) * 0.1
        write_wav(film.with_suffix(".wav"), AudioClip(sound, 16_000))
        film.with_suffix(".txt").write_text("a person")
    text = (repository / "runs" / "paper-1.3b.toml").read_text()
    for pattern, small in SMALL.items():
        text = re.sub(pattern, small, text)
    text = text.replace('"~/joyflash-1.3b"', f'"{folder}"')
    text = text.replace("~/joyflash-1.3b/", f"{folder}/").replace(
        '"~/talking-videos"', f'"{folder / "films"}"'
    )
    text = tables(text, "weights.teacher_transformer", DEEP)
    text = tables(text, "generator.transformer", AVATAR)
    path = folder / "paper.toml"
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "prompts"))


def test_the_recipe_names_omniavatar_s_networks(repository):
    from presets import AVATAR_1_3B, AVATAR_14B

    real = load_run_config(repository / "runs" / "paper-1.3b.toml")
    sizes = read_geometry(real)  # which the dry run counts: 1.421 B, 1.421 B and 14.293 B
    assert (sizes.student, sizes.teacher) == (AVATAR_1_3B, AVATAR_14B)
    assert real.generator.sampler.fps == 25
    weights = real.weights
    assert weights.teacher == "omniavatar-14b"
    assert (weights.fake_score, weights.ode_start) == ("omniavatar-1.3b", "omniavatar-1.3b")


def test_the_chain_runs_from_converted_weights_to_a_checkpoint(
    recipe, toy_picture, toy_voice, capsys
):
    folder, threads = recipe.parent, torch.get_num_threads()
    try:
        for stage in ("dataset", "teacher", "ode-pairs", "ode", "dmd", "export"):
            code = run(["train", stage, "--config", str(recipe)])
            assert code == 0, (stage, capsys.readouterr().err)
    finally:
        torch.set_num_threads(threads)
    trained_from = {
        "teacher/teacher": "omniavatar-14b",
        "ode/student": "omniavatar-1.3b",
        "dmd/generator": "omniavatar-1.3b",
    }
    for name, origin in trained_from.items():
        start = read_tensors(part_files(folder / origin, "transformer"))
        trained = load_file(folder / f"{name}.safetensors")
        assert trained.keys() == start.keys()
        assert any(not torch.equal(trained[k], start[k].float()) for k in start), name
    pairs = load_file(next((folder / "ode-pairs").glob("pairs-*.safetensors")))
    assert pairs["states"].isfinite().all()
    assert "negative_text" not in pairs
    files = resolve_checkpoint("tiny", folder / "checkpoint")
    assert not files.description.codec.tiled  # a stream goes on from block to block
    assert files.description.sampler.num_window_blocks == 4
    output = folder / "talk.mp4"
    code = run([
        "render", "--checkpoint", str(folder / "checkpoint"), "--image", str(toy_picture),
        "--audio", str(toy_voice), "-o", str(output), "--device", "cpu", "--quiet",
        "--prompt", "a person",
    ])  # fmt: skip
    assert code == 0, capsys.readouterr().err
    assert output.is_file()


def test_no_text_means_the_negative_prompt_where_there_is_one():
    from joyflash_cli.studio.training.scores import without

    given = Conditioning(
        text=torch.ones(1, 2, 3), negative_text=-torch.ones(1, 2, 3), audio=torch.ones(1, 2, 4, 3)
    )
    assert torch.equal(without(given, ("audio", "text")).text, given.negative_text)
    assert torch.equal(without(given, ("audio",)).text, given.text)
    assert not without(given, ("audio",)).audio.any()
    plain = given.with_frames(negative_text=None)
    assert not without(plain, ("text",)).text.any()


def test_weights_of_another_network_are_refused_in_one_line(recipe, tmp_path, capsys):
    folder = recipe.parent
    text = recipe.read_text().replace(
        'teacher = "omniavatar-14b"', f'teacher = "{tmp_path / "wrong.safetensors"}"'
    )
    save_file({"patch_embedding.weight": torch.zeros(3, 3)}, tmp_path / "wrong.safetensors")
    other = folder / "wrong.toml"
    other.write_text(text)
    assert run(["train", "ode-pairs", "--config", str(other)]) != 0
    err = capsys.readouterr().err
    assert "wrong.safetensors" in err
    assert "Traceback" not in err
