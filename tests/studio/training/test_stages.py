"""The distillation stages from a configuration file to weights on disk."""

import dataclasses
import json
import tomllib

import pytest
import torch
from safetensors.torch import load_file
from toy_run import toy_run

from joyflash_cli.config import from_dict, to_dict
from joyflash_cli.errors import CheckpointError, ConfigError, UsageError
from joyflash_cli.studio.training.export import exported_sampler
from joyflash_cli.studio.training.run_config import RunConfig, load_run_config
from joyflash_cli.studio.training.stages import run_stage


@pytest.fixture
def run_file(tmp_path):
    return toy_run(tmp_path)


def test_from_clips_to_a_distilled_generator(run_file, tmp_path):
    threads, reports = torch.get_num_threads(), []
    try:
        for stage in ("teacher", "ode-pairs", "ode", "dmd"):
            run_stage(stage, run_file, report=reports.append)
    finally:
        torch.set_num_threads(threads)
    work = tmp_path / "work"
    names = ("generator/generator", "teacher/teacher", "ode/student", "dmd/generator")
    results = [load_file(work / f"{name}.safetensors") for name in names]
    for before, after in zip(results, results[1:], strict=False):
        assert before.keys() == after.keys()
        assert any((before[key] != after[key]).any() for key in before)
    assert {"shard": 1, "of": 1} in reports
    assert json.loads((work / "dmd" / "state.json").read_text())["folder"] == "state-00000002"
    assert load_run_config(run_file).dmd.ablation.mci is False


def test_a_stage_names_the_weights_it_misses(run_file):
    threads = torch.get_num_threads()
    try:
        with pytest.raises(CheckpointError, match="student.safetensors"):
            run_stage("dmd", run_file)
    finally:
        torch.set_num_threads(threads)
    with pytest.raises(UsageError, match="ode-pairs"):
        run_stage("odes", run_file)


@pytest.mark.parametrize(
    ("table", "key"),
    [("dmd", "generator_evry"), ("ode", "batches"), ("ode_pairs", "steps"), ("teacher", "epochs"),
     ("weights", "student")],
)  # fmt: skip
def test_a_misspelt_key_is_an_error(table, key):
    values = {"work_dir": ".", "assets_dir": ".", "version": "1", table: {key: 1}}
    with pytest.raises(ConfigError, match=key):
        from_dict(RunConfig, values)


def test_a_run_configuration_survives_the_way_through_json(run_file):
    run = load_run_config(run_file)
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(run)))) == run
    assert dataclasses.is_dataclass(run.dmd.rollout)
    assert tomllib.loads(run_file.read_text())["dmd"]["steps"] == run.dmd.steps


@pytest.mark.parametrize(
    ("weights", "guidance"),
    [
        ({}, 2.0),
        ({"exported": "generator/generator.safetensors"}, 2.0),
        ({"exported": "ode/student.safetensors"}, 1.0),
        ({"exported": "dmd/generator.safetensors"}, 1.0),
        ({"exported": "start/transformer.safetensors"}, 2.0),
        ({"exported": "start/transformer.safetensors", "distilled": True}, 1.0),
        ({"exported": "dmd/generator.safetensors", "distilled": False}, 2.0),
    ],
)
def test_the_run_says_whether_what_it_exports_needs_guidance(weights, guidance):
    values = {"work_dir": ".", "assets_dir": ".", "version": "1", "weights": weights}
    assert exported_sampler(from_dict(RunConfig, values)).audio_guidance == guidance
