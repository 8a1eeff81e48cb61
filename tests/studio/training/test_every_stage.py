"""Every stage that makes the embedded model, in order, from an empty folder, at toy sizes."""

import dataclasses
import re
import wave

import numpy as np
import pytest
import torch
from toy_run import lines

from joyflash_cli.cli.app import run
from joyflash_cli.model.config import TINY
from joyflash_cli.studio.clips import sources
from joyflash_cli.studio.heads import makehuman_pack
from joyflash_cli.studio.speech import speech_build
from joyflash_cli.studio.speech.phonemes import Phoneme
from joyflash_cli.studio.training.stages import STAGES

pytest.importorskip("numba", reason="the extra train is not installed")

SOUNDS = ("pau", "m", "aa", "m", "iy", "pau")
SIZES = {
    r"\bsteps = \d+": "steps = 1",
    r"warmup_steps = \d+": "warmup_steps = 1",
    r"num_steps = \d+": "num_steps = 8",
    r"\bbatch = \d+": "batch = 2",
    r"(processes|threads) = \d+": r"\1 = 1",
    r"num_utterances = \d+": "num_utterances = 3",
    r"num_clips = \d+": "num_clips = 2",
    r"num_frames = 19": "num_frames = 7",
    r"num_blocks = 6": "num_blocks = 2",
    r"num_pairs = \d+": "num_pairs = 2",
    r"pairs_per_shard = \d+": "pairs_per_shard = 2",
    r"drawn_share = [\d.]+": "drawn_share = 1.0",
    r"(ict|photo)_share = [\d.]+": r"\1_share = 0.0",
    r"generator_every = \d+": "generator_every = 1",
    r'folder = "real"': 'folder = ""',
    r"pair_share = [\d.]+": "pair_share = 0.0",
    r"(photo_clips\]\n)num_clips = \d+": r"\1num_clips = 0",
    r"rollout = \{.*\}\n": "",
    r'\b(generator_)?start = "[^"]*"': r'\1start = ""',
}
"""What of the file is made small; the rest stays, every stage and part included."""

ASIDE = {"dataset", "points"}
"""Stages for other models and for the face networks."""


def made_stages(repository):
    """The stages of ``make train-tiny``."""
    text = (repository / "Makefile").read_text().replace("\\\n", " ")
    return re.search(r"for stage in ([^;]+);", text)[1].split()


@pytest.fixture
def toy_voices(monkeypatch):
    """Instead of the programs that speak and align: a hum with known sounds."""

    def say(*_args, **_options):
        samples = np.arange(16_000) / 16_000
        hum = 0.3 * np.sin(2 * np.pi * 150 * samples) * (1 - np.cos(2 * np.pi * 3 * samples))
        ends = np.linspace(0, 1, len(SOUNDS) + 1)
        spans = zip(SOUNDS, ends, ends[1:], strict=False)
        return hum.astype(np.float32), [Phoneme("arpabet", s, a, b) for s, a, b in spans]

    for name in ("speak_flite", "speak_espeak", "speak_hibari"):
        monkeypatch.setattr(speech_build, name, say)
    monkeypatch.setattr(speech_build, "align_phonemes", lambda *_args: say()[1])


@pytest.fixture
def packs(tmp_path, monkeypatch):
    """A folder of source packs of which a drawn head needs none, and its manifest."""
    folder = tmp_path / "packs"
    recordings = folder / "speech" / "kathleen-en"
    recordings.mkdir(parents=True)
    (folder / "heads").mkdir()
    rows = [f"take.wav,Sentence number {index}." for index in range(110)]
    (recordings / "transcripts.csv").write_text("\n".join(["file,text", *rows]) + "\n")
    with wave.open(str(recordings / "take.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.full(16_000, 900, "<i2").tobytes())
    monkeypatch.setattr(makehuman_pack, "load_makehuman", lambda _folder: None)
    pack = sources.Pack(
        "speech", "speech", 2, sources.checksum(folder / "speech"), "CC0-1.0", "toys", ("here",)
    )
    monkeypatch.setattr(sources, "read_sources", lambda: (pack,))
    return folder


@pytest.fixture
def config(repository, tmp_path):
    """The file of the embedded model, in an empty folder and made small."""
    text = (repository / "runs" / "tiny.toml").read_text()
    text = text.replace('"~/joyflash-work"', f'"{tmp_path / "work" / "new"}"')
    for pattern, small in SIZES.items():
        text = re.sub(pattern, small, text)
    # Two layers of the model's own width, and rollouts of two blocks.
    sizes = dataclasses.asdict(dataclasses.replace(TINY, num_layers=2))
    tables = {name: value for name, value in sizes.items() if isinstance(value, dict)}
    plain = {name: value for name, value in sizes.items() if name not in tables}
    text += "\n[dmd.rollout]\nnum_blocks = [2, 2]\n\n[generator.transformer]\n" + lines(plain)
    for name, values in tables.items():
        text += f"\n\n[generator.transformer.{name}]\n{lines(values)}"
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    return path


@pytest.mark.usefixtures("toy_voices")
def test_every_stage_runs_in_order_from_an_empty_folder(
    repository, tmp_path, packs, config, capsys, toy_voice
):
    threads, stages = torch.get_num_threads(), made_stages(repository)
    assert set(stages) == set(STAGES) - ASIDE
    try:
        for stage in stages:
            command = ["train", stage, "--config", str(config), "--assets", str(packs)]
            assert run(command) == 0, (stage, capsys.readouterr().err)
    finally:
        torch.set_num_threads(threads)
    video = tmp_path / "video.mp4"
    command = ["render", "--image", str(repository / "examples" / "face.png"), "--quiet"]
    command += ["--audio", str(toy_voice), "--output", str(video)]
    command += ["--checkpoint", str(tmp_path / "work" / "new" / "checkpoint")]
    assert run(command) == 0, capsys.readouterr().err
    assert video.stat().st_size > 1000


def test_the_stages_are_told_in_the_same_order_everywhere(repository):
    told = (repository / "runs" / "tiny.toml").read_text().replace("\\\n#", " ")
    assert re.search(r"for stage in ([^;]+);", told)[1].split() == made_stages(repository)


def test_a_stage_before_its_time_says_what_is_missing(config, packs, capsys):
    assert run(["train", "predictions", "--config", str(config), "--assets", str(packs)]) == 3
    assert "is missing (hint: run the stages before this one first)" in capsys.readouterr().err


def test_a_work_folder_that_cannot_be_made_is_named(config, packs, tmp_path, capsys):
    (tmp_path / "work").write_text("a file in the way")
    assert run(["train", "sources", "--config", str(config), "--assets", str(packs)]) == 6
    assert str(tmp_path / "work") in capsys.readouterr().err


@pytest.mark.usefixtures("toy_voices")
def test_a_package_that_is_not_installed_is_named(config, packs, monkeypatch, capsys):
    def missing(*_args, **_options):
        raise ModuleNotFoundError("No module named 'hibari'", name="hibari")

    monkeypatch.setattr(speech_build, "speak_hibari", missing)
    assert run(["train", "speech", "--config", str(config), "--assets", str(packs)]) == 2
    told = capsys.readouterr().err
    assert "hibari is not installed" in told
    assert "joyflash[train]" in told
