"""OmniAvatar the whole way: published files converted, then rendered in overlapping segments."""

import json
import os
import shutil
import threading

import numpy as np
import pytest
import torch
from public_layouts import to_public
from published import AVATAR, adapted, write_profile

from joyflash_cli.errors import CheckpointError, UsageError
from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.render import JoyFlash, plan_render, read_request
from joyflash_cli.sampler.segment_settings import even_steps
from joyflash_cli.weights.convert import convert_weights
from joyflash_cli.weights.store import resolve_checkpoint
from joyflash_cli.weights.tensors import part_files, read_tensors

SMALL, LARGE = "omniavatar-1.3b", "omniavatar-14b"
SIZE = (48, 32)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The 1.3B profile's files in small."""
    return write_profile(tmp_path_factory.mktemp("omniavatar"), SMALL)


@pytest.fixture(scope="module")
def checkpoint(published):
    """Converted; two steps, and tokens for segments of 21 frames."""
    folder = convert_weights(SMALL, source=published, out_dir=published / "made", dtype="fp32")
    path = folder / "checkpoint.json"
    about = json.loads(path.read_text())
    about["framing"]["sizes"] = [SIZE]
    about["sampler"] |= {"steps": even_steps(2), "max_tokens": 32}
    path.write_text(json.dumps(about))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Prompt embeddings of one test are not another's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", [SMALL, LARGE])
def test_the_published_files_become_one_network(name, tmp_path):
    source = write_profile(tmp_path / "files", name)
    torch.manual_seed(5)
    expected = adapted()[2]
    folder = convert_weights(name, source=source, out_dir=tmp_path / "made", dtype="fp32")
    files = resolve_checkpoint(name, folder)
    found = to_public(read_tensors(part_files(folder, "transformer")), AVATAR)
    assert files.description.transformer == AVATAR
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)
    settings = files.description.sampler
    assert (len(settings.steps), settings.solver) == (50, "euler")
    assert settings.passes_per_block == 100  # the text's weight is the audio's
    assert settings.for_size(720, 400).segment_video_frames == 105
    assert files.description.codec.tiled
    assert files.description.conditioning.negative_prompt


def test_segments_overlap_and_cover_the_sound(checkpoint, toy_picture, toy_voice):
    joyflash = JoyFlash.load(SMALL, checkpoint, device="cpu", dtype="float32")
    request = read_request(joyflash.files, toy_picture, toy_voice, prompt="a person talking")
    chunks = list(joyflash.stream(request))
    assert [len(chunk.frames) for chunk in chunks] == [21, 8, 4]  # 33 frames of 1.3 s
    assert plan_render(request, joyflash.sampler).num_blocks == 3


def test_prompt_sound_and_guidance_reach_the_frames(checkpoint, toy_picture, toy_voice):
    from joyflash_cli.render.request import with_sampler_options

    joyflash = JoyFlash.load(SMALL, checkpoint, device="cpu", dtype="float32")

    def first(joyflash=joyflash, **changes):
        request = read_request(
            joyflash.files, toy_picture, toy_voice, **{"prompt": "a smile", **changes}
        )
        stream = joyflash.stream(request)
        frames = next(stream).frames
        stream.close()
        return frames

    base = first()
    assert not np.array_equal(base, first(prompt="the camera"))
    options = ["steps=1", "guidance=6", "text-guidance=5"]
    files, labels = with_sampler_options(joyflash.files, options)
    assert all("not trained" in label for label in labels)
    settings = files.description.sampler
    assert (settings.passes_per_block, settings.steps) == (3, (1000.0,))
    assert not np.array_equal(base, first(JoyFlash.load(files, device="cpu", dtype="float32")))


@pytest.mark.parametrize("live", [False, True], ids=["file", "pipe"])
def test_the_command_line_renders(checkpoint, toy_picture, toy_voice, tmp_path, live):
    from joyflash_cli.cli.app import run

    output, sound = tmp_path / "talk.mp4", toy_voice
    if live:
        sound = tmp_path / "pipe"
        os.mkfifo(sound)
        threading.Thread(
            target=lambda: sound.write_bytes(toy_voice.read_bytes()), daemon=True
        ).start()
    arguments = [
        "render", "--profile", SMALL, "--checkpoint", str(checkpoint), "--image", str(toy_picture),
        "--audio", str(sound), "-o", str(output), "--device", "cpu", "--dtype", "fp32",
        "--prompt", "a person", "--quiet",
    ]  # fmt: skip
    assert run(arguments) == 0
    info = probe(output)
    assert (info.num_frames, info.fps, info.width, info.height) == (33, 25, *SIZE)
    record = json.loads(output.with_name("talk.mp4.json").read_text())
    assert record["parameters"]["sampler"]["solver"] == "euler"


def test_the_negative_prompt_needs_its_embedding_too(
    checkpoint, toy_picture, toy_voice, tmp_path, monkeypatch
):
    from joyflash_cli.render.prompts import text_states

    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    files = resolve_checkpoint(SMALL, folder)
    negative = files.description.conditioning.negative_prompt
    device = torch.device("cpu")
    text_states(files, "a smile", device)
    kept = {path: path.read_bytes() for path in folder.glob("text_encoder*")}
    for path in kept:
        path.unlink()
    with pytest.raises(CheckpointError, match="Vivid color tones") as caught:
        read_request(resolve_checkpoint(SMALL, folder), toy_picture, toy_voice, prompt="a smile")
    assert caught.value.code == "E-CHECKPOINT-TEXT"
    assert "joyflash weights prompt" in caught.value.hint
    for path, content in kept.items():
        path.write_bytes(content)
    text_states(files, negative, device)
    for path in kept:
        path.unlink()
    read_request(resolve_checkpoint(SMALL, folder), toy_picture, toy_voice, prompt="a smile")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pytorch_model.pt", b"no pickle at all", "cannot be read"),
        ("pytorch_model.pt", None, "neither on this machine"),
        ("config.json", b"[]", "no configuration"),
        ("config.json", None, "alone states its scale"),
        ("config.json", b'{"lora_rank": 128, "lora_alpha": 64}', "states no target modules"),
    ],
)
def test_a_damaged_or_missing_adapter_is_told_in_one_line(
    published, tmp_path, name, content, message
):
    source = shutil.copytree(published, tmp_path / "files", ignore=lambda *_: ["made"])
    path = next((source / "OmniAvatar-1.3B").glob(name))
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        convert_weights(SMALL, source=source, out_dir=tmp_path / "made")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_a_picture_too_large_for_the_tokens_is_refused(checkpoint, toy_picture, toy_voice):
    from joyflash_cli.errors import ConfigError

    files = resolve_checkpoint(SMALL, checkpoint)
    with pytest.raises(ConfigError, match="smaller picture"):
        files.description.sampler.for_size(720, 720)


def test_other_options_do_not_exist_for_it(checkpoint):
    from joyflash_cli.render.request import with_sampler_options

    with pytest.raises(UsageError, match="for this profile"):
        with_sampler_options(resolve_checkpoint(SMALL, checkpoint), ["urcr"])
