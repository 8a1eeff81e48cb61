"""A run of the distillation stages in miniature: configuration, clips and first weights."""

import json
from pathlib import Path

from safetensors.torch import save_file
from toy_distillation import CLEAN_CONFIG, toy_clips, toy_model

from joyflash_cli.config import to_dict

RUN = """
work_dir = "{work}"
assets_dir = "nowhere"
version = "toy"
threads = 1
save_every_steps = {save_every_steps}

[generator.sampler]
first_frame_rule = "replace"
fps = 25

[generator.transformer]
{transformer}
[generator.transformer.audio_attention]
{audio_attention}

[teacher]
batch = 2
num_frames = 6
optimiser = {{ steps = 2, warmup_steps = 1 }}

[ode_pairs]
num_pairs = 2
num_steps = 8
batch = 2
num_blocks = 2
guidance = {{ text = 1.0, audio = 2.0 }}

[ode]
batch = 2
optimiser = {{ steps = 2, learning_rate = 1e-3 }}

[dmd]
{dmd}
batch = 2
generator_every = 2
guidance = {{ text = 2.0, audio = 2.0 }}
rollout = {{ num_blocks = [2, 2] }}
ablation = {{ mci = false }}
"""


def lines(values: dict) -> str:
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items()
                     if value is not None and not isinstance(value, dict))  # fmt: skip


def toy_run(tmp_path: Path, *, save_every_steps: int = 0, **dmd) -> Path:
    """A configuration file, encoded clips and a generator to start from."""
    transformer = to_dict(CLEAN_CONFIG)
    text = RUN.format(
        dmd=lines({"steps": 2, **dmd}),
        save_every_steps=save_every_steps,
        work=tmp_path / "work",
        transformer=lines(transformer),
        audio_attention=lines(transformer["audio_attention"]),
    )
    path = tmp_path / "toy.toml"
    path.write_text(text)
    clips = toy_clips(4, num_frames=7)
    (tmp_path / "work" / "latents" / "train").mkdir(parents=True)
    save_file(
        {
            "latents": clips.latents, "reference": clips.references, "audio": clips.audio,
            "token_weights": clips.token_weights, "is_start": clips.is_start,
        },
        tmp_path / "work" / "latents" / "train" / "latents-0000.safetensors",
    )  # fmt: skip
    (tmp_path / "work" / "generator").mkdir()
    save_file(
        toy_model(CLEAN_CONFIG).state_dict(),
        tmp_path / "work" / "generator" / "generator.safetensors",
    )
    return path


def save_start(folder: Path) -> None:
    """The weights that the stage dmd begins with, without the stages before it."""
    for seed, name in enumerate(("teacher/teacher", "ode/student")):
        path = folder / "work" / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(toy_model(CLEAN_CONFIG, seed + 1).state_dict(), path)
