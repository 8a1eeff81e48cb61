"""The ablation's variants: one start for all, each trained once, sampled as its row says."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_distillation import CLEAN_CONFIG, SHAPE, toy_clips, toy_model

from joyflash_cli.config import to_dict
from joyflash_cli.sampler.settings import TINY
from joyflash_cli.studio import ablation_run as command
from joyflash_cli.studio.training.rollout import Ablation
from joyflash_cli.studio.training.run_config import load_run_config
from joyflash_cli.studio.training.study import Study, StudyBudget
from joyflash_cli.weights.integrity import CHECKSUMS, hash_file, read_checksums

RUN = """
work_dir = "{work}"
assets_dir = "nowhere"
version = "toy"
threads = 1
{more}
[teacher]
batch = 2
num_frames = 6
bf16 = false
optimiser = {{ steps = 9, learning_rate = 1e-3 }}
[ode_pairs]
num_steps = 8
num_blocks = 2
batch = 2
bf16 = false
guidance = {{ text = 1.0, audio = 1.0 }}
[ode]
batch = 2
bf16 = false
optimiser = {{ steps = 9, learning_rate = 1e-3 }}
[dmd]
batch = 2
bf16 = false
generator_every = 1
guidance = {{ text = 1.0, audio = 1.0 }}
rollout = {{ num_blocks = [2, 2] }}
generator = {{ learning_rate = 1e-3 }}
"""


@pytest.fixture
def config(tmp_path, toy_checkpoint):
    """A run whose clips fit the toy transformer; the checkpoint is made of it."""
    folder = tmp_path / "start"
    folder.mkdir()
    for path in toy_checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    about = json.loads((folder / "checkpoint.json").read_text())
    about |= {"transformer": to_dict(CLEAN_CONFIG), "sampler": to_dict(TINY)}
    (folder / "checkpoint.json").write_text(json.dumps(about))
    save_file(toy_model(CLEAN_CONFIG).state_dict(), folder / "transformer.safetensors")
    latents = tmp_path / "work" / "latents" / "train"
    latents.mkdir(parents=True)
    clips = toy_clips(4, num_frames=7)
    names = ("latents", "audio", "token_weights", "is_start")
    tensors = {name: getattr(clips, name) for name in names} | {"reference": clips.references}
    save_file(tensors, latents / "latents-0000.safetensors")
    path = tmp_path / "run.toml"
    path.write_text(RUN.format(work=tmp_path / "work", more=""))
    return path


def study(config, **changes):
    budget = StudyBudget(
        steps=2, teacher_steps=1, pairs=2, ode_steps=1,
        checkpoint=str(config.parent / "start"), **changes,
    )  # fmt: skip
    return Study(load_run_config(config), budget)


def test_variants_share_their_start_and_differ(config):
    ours = study(config)
    full = ours.train("first-frame", "full", Ablation(), 0)
    started = [p.stat().st_mtime_ns for p in sorted(full.parents[2].rglob("teacher.safetensors"))]
    variants = {
        "main_branch": Ablation(main_branch=False),
        "auxiliary_branch": Ablation(auxiliary_branch=False),
        "seed": Ablation(),
    }
    paths = [ours.train("first-frame", n, a, int(n == "seed")) for n, a in variants.items()]
    weights = [load_file(path) for path in (full, *paths)]
    for i, a in enumerate(weights):
        for b in weights[:i]:
            assert any((a[name] != b[name]).any() for name in a)
    again = [p.stat().st_mtime_ns for p in sorted(full.parents[2].rglob("teacher.safetensors"))]
    assert started == again
    before = full.stat().st_mtime_ns
    assert ours.train("first-frame", "full", Ablation(), 0).stat().st_mtime_ns == before


def test_the_place_of_the_reference_is_the_runs(config):
    ours = study(config)
    run = ours.prepare("first-frame")
    pairs = load_file(next(run.path("ode-pairs").glob("*.safetensors")))
    channels = SHAPE[0]
    assert pairs["image"][:, 0, :channels].abs().max() > 0
    assert (pairs["image"][:, 1:, :channels] == 0).all()
    assert (pairs["image"][:, 1:, channels] == 1).all()
    every = ours.run_at("every-frame")
    assert every.work_dir != run.work_dir
    assert every.latents_dir == run.latents_dir


def test_a_checkpoint_is_sampled_as_its_row_says(config, tmp_path):
    ours = study(config)
    weights = ours.run_at("first-frame").path("some.safetensors")
    weights.parent.mkdir(parents=True)
    save_file(toy_model(CLEAN_CONFIG, 5).state_dict(), weights)
    out = ours.export("first-frame", weights, Ablation(sink=False), tmp_path / "variant")
    sums = read_checksums(out)
    assert set(sums) == {file.name for file in out.iterdir()} - {CHECKSUMS}
    assert all(hash_file(out / name) == entry["sha256"] for name, entry in sums.items())
    about = json.loads((out / "checkpoint.json").read_text())
    expected = dataclasses.replace(TINY, sink_frames=0, audio_guidance=1.0, audio_free_weight=1.0)
    assert about["sampler"] == to_dict(expected)
    assert about["conditioning"]["image_convention"] == "avatar-first-frame"
    stored = load_file(out / "transformer.safetensors")
    assert stored["head.projection.weight"].dtype == torch.float16
    assert {path.name for path in out.iterdir()} >= {"codec.safetensors", "front_end.safetensors"}


def test_the_command_measures_what_is_missing_and_writes_the_table(config, tmp_path, monkeypatch):
    from joyflash_cli.studio.evaluation import generation, variant

    asked = []

    def measure_variant(renderer, pack, readers, *, horizon_s, seed, num_clips):
        about = json.loads((renderer / "checkpoint.json").read_text())
        asked.append((about["sampler"]["mci"], about["sampler"]["mci_noise"], seed))
        drift = {"60": {"colour": 1.0, "sharpness": 1.0, "identity": 1.0}}
        return {
            "lip_correlation": 0.5 + 0.1 * seed, "identity_similarity": 0.9, "sharpness": 1.0,
            "border_flicker": 1.0, "drift": drift, "videos": {"lip_correlation": 0.7},
        }  # fmt: skip

    monkeypatch.setattr(generation, "CheckpointRenderer", lambda checkpoint: checkpoint)
    monkeypatch.setattr(variant, "measure_variant", measure_variant)
    request = command.AblationRequest(
        table=3, config=config, steps=2, start_steps=2, seeds=1, horizon_s=60.0, clips=2,
        checkpoint=str(config.parent / "start"), output=tmp_path / "tables",
    )  # fmt: skip
    told = []
    written = command.run_ablation(request, told.append, lambda: False)
    assert [path.name for path in written] == ["ablation-table-3.json", "ablation-table-3.md"]
    per_place = [(False, True, 0), (True, False, 0), (True, True, 0)]
    assert asked == 2 * per_place
    assert len(told) > 0
    assert command.run_ablation(request, told.append, lambda: False) == written
    assert len(asked) == 6  # nothing is measured twice
    table = json.loads(written[0].read_text())
    assert set(table["references"]) == {"every-frame", "first-frame"}
    assert table["budget"]["steps"] == 2
