"""Text without the text encoder: a prompt is encoded where it is, and fetched where it is not."""

import json
import re
from pathlib import Path

import pytest
import torch
from published import TEXT_DIM, write_profile
from safetensors.torch import load_file, save_file

from joyflash_cli.cli.app import run
from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.render import JoyFlash, read_request
from joyflash_cli.weights.integrity import write_checksums
from joyflash_cli.weights.manifest import find_profile
from joyflash_cli.weights.places import converted_directory, prompts_directory
from joyflash_cli.weights.prompt_cache import read_embedding
from joyflash_cli.weights.store import resolve_checkpoint

NAME = "livetalk-1.3b"
SIZE = (48, 32)
PLACE = "someone/prompts"
WEIGHTS = Path(__file__).resolve().parents[1] / "weights.toml"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_profile(tmp_path_factory.mktemp("published"), NAME)


@pytest.fixture
def hub(hub_case, published, monkeypatch):
    """A Hub that has the small profile in its published layout, pinned to nothing."""
    real = WEIGHTS.read_text()
    for key, empty in (("revision", '""'), ("sha256", '""'), ("bytes", "0")):
        real = re.sub(rf"^{key} = .*$", f"{key} = {empty}", real, flags=re.M)
    hub_case.manifest.write_text(real)
    hub_case.hub.files = {
        f"{file.repo}/{file.path}": (
            published / file.repo.partition("/")[2] / file.path
        ).read_bytes()
        for file in find_profile(NAME).files
        if file.is_published and not file.optional
    }
    monkeypatch.setenv("HOME", str(hub_case.folder))
    return hub_case


@pytest.fixture
def joyflash(hub, capsys):
    """Runs a command; gives its exit code, standard output and standard error."""

    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


@pytest.fixture
def elsewhere(joyflash, hub, tmp_path, monkeypatch):
    """The embedding of the default prompt, made on a machine that has only the text encoder."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "other" / "hf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other" / "cache"))
    roles = ("--role", "text_encoder", "--role", "tokenizer")
    assert joyflash("weights", "fetch", NAME, *roles, "-q")[0] == 0
    file = tmp_path / "other" / "prompt_embedding.safetensors"
    code, out, err = joyflash("weights", "prompt", NAME, "-o", file)
    assert (code, out) == (0, f"{file}\n"), err
    assert "A realistic video of a person talking" in err
    monkeypatch.setenv("HF_HOME", str(hub.folder / "hf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(hub.folder / "cache"))
    hub.hub.seen.clear()
    return file


def make_small(directory):
    """Small pictures, so that rendering takes a moment."""
    path = directory / "checkpoint.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps(description | {"framing": {"sizes": [SIZE]}}))
    write_checksums(directory)


def fetch_and_convert(joyflash):
    """Everything but the text encoder, as a user would."""
    without = ("--without", "text_encoder", "--without", "tokenizer")
    assert joyflash("weights", "fetch", NAME, *without, "--accept-license")[0] == 0
    code, _, err = joyflash("render", "--profile", NAME, "--image", "a.png", "--audio", "b.wav")
    assert code == 4
    assert "downloaded but not converted yet" in err
    code, _, err = joyflash("weights", "convert", NAME)
    assert code == 0
    assert "no text encoder; rendering needs the states of its prompt" in err
    directory = converted_directory(NAME)
    make_small(directory)
    return directory


@pytest.mark.parametrize("way", ["hub", "file", "folder"])
def test_the_prompt_role_alone_replaces_the_text_encoder(
    joyflash, hub, elsewhere, toy_picture, toy_voice, tmp_path, way
):
    directory = fetch_and_convert(joyflash)
    assert not resolve_checkpoint(NAME).has("text_encoder")
    output = tmp_path / "video.mp4"
    render = ("render", "--profile", NAME, "--image", toy_picture, "--audio", toy_voice,
              "-o", output, "--device", "cpu", "--dtype", "fp32", "-q")  # fmt: skip
    code, _, err = joyflash(*render)
    assert code == 4
    # One line, with both ways as commands.
    assert len(err.splitlines()) == 1
    assert f"joyflash weights fetch {NAME} --role text_encoder --role tokenizer" in err
    assert f"joyflash weights prompt {NAME}" in err
    assert f"joyflash weights fetch {NAME} --role prompt_embedding --from" in err

    hub.hub.files[f"{PLACE}/prompt_embedding.safetensors"] = elsewhere.read_bytes()
    place = {"hub": PLACE, "file": elsewhere, "folder": elsewhere.parent}[way]
    code, out, err = joyflash(
        "weights", "fetch", NAME, "--role", "prompt_embedding", "--from", place
    )
    assert code == 0, err
    assert out.strip().endswith(".safetensors")
    assert (way == "hub") == any(PLACE in seen.path for seen in hub.hub.seen)
    assert joyflash(*render)[0] == 0
    assert probe(output).num_frames == 21
    # Nothing of the text encoder came here.
    assert not list(hub.cache.glob("**/models_t5*"))
    assert not list(directory.glob("text_encoder*"))


def test_the_frames_are_those_of_the_text_encoder(
    joyflash, hub, elsewhere, toy_picture, toy_voice, published, tmp_path
):
    fetch_and_convert(joyflash)
    joyflash("weights", "fetch", NAME, "--role", "prompt_embedding", "--from", elsewhere)
    full = tmp_path / "full"
    assert joyflash("weights", "convert", NAME, "--source", published, "-o", full, "-q")[0] == 0
    make_small(full)

    def first_frames(checkpoint):
        model = JoyFlash.load(NAME, checkpoint, device="cpu", dtype="float32")
        stream = model.stream(read_request(model.files, toy_picture, toy_voice))
        frames = next(stream).frames
        stream.close()
        return frames

    own = first_frames(None)
    for kept in prompts_directory().glob("*"):
        kept.unlink()
    assert (own == first_frames(full)).all()


def test_fetched_before_converting_it_goes_into_the_checkpoint(joyflash, hub, elsewhere, tmp_path):
    source = tmp_path / "mine"
    source.mkdir()
    (source / "prompt_embedding.safetensors").write_bytes(elsewhere.read_bytes())
    without = ("--without", "text_encoder", "--without", "tokenizer")
    joyflash("weights", "fetch", NAME, *without, "--accept-license", "-q")
    assert joyflash("weights", "convert", NAME, "--source", source, "-q")[0] == 0
    files = resolve_checkpoint(NAME)
    assert files.description.stated["prompt_embedding"]["prompt"].startswith("A realistic video")
    stated = read_embedding(files.directory / "prompt_embedding.safetensors")
    assert files.description.conditioning.text_encoder == stated.encoder


def test_another_prompt_and_a_checkpoint_as_its_source(joyflash, hub, published, tmp_path):
    full = tmp_path / "full"
    assert joyflash(
        "weights", "convert", NAME, "--source", published, "-o", full, "-q", "--accept-license"
    )[0] == 0  # fmt: skip
    values = []
    for option in (("--checkpoint", full), ("--source", published)):
        code, out, err = joyflash(
            "weights", "prompt", NAME, "--prompt", "the  person &amp; smile", "--json", *option
        )
        assert code == 0, err
        values.append(json.loads(out))
        assert load_file(values[-1]["file"])["states"].shape[-1] == TEXT_DIM
    # Both are the same text encoder and the same cleaned prompt, so there is one file.
    assert values[0] == values[1]
    assert values[0]["prompt"] == "the person & smile"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("fetch", NAME, "--role", "prompt_embedding"), 2, "nobody has published"),
        (("fetch", NAME, "--role", "prompt_embedding", "--from", "no such"), 2, "OWNER/NAME"),
        (("fetch", NAME, "--role", "prompt_embedding", "--from", "a/b@main"), 2, "40 hexadecimal"),
        (("fetch", NAME, "--role", "codec", "--from", "a/b"), 2, "nobody has published"),
        (("fetch", NAME, "--role", "prompt_embedding", "--from", "a/none"), 4, "a/none"),
        (("prompt", NAME), 4, f"joyflash weights fetch {NAME} --role text_encoder"),
        (("prompt", "tiny"), 4, "no text encoder"),
        (("prompt", "joyavatar-flash-1.3b"), 4, "--checkpoint DIR"),
        (("prompt", NAME, "--source", "a", "--checkpoint", "b"), 2, "exclude"),
        (("prompt", "huge"), 2, "one of tiny"),
    ],
)
def test_mistakes_are_one_line_with_the_next_step(joyflash, arguments, code, words):
    found, out, err = joyflash("weights", *arguments)
    assert (found, out) == (code, "")
    errors = [line for line in err.splitlines() if line.startswith("joyflash: error[")]
    assert len(errors) == 1
    assert words in errors[0]


def states(**changes):
    values = {"key": "", "prompt": "a", "encoder": "e"} | changes
    return {"states": torch.ones(1, 3, TEXT_DIM)}, values


@pytest.mark.parametrize("kind", ["text", "other", "wrong key", "infinite", "huge", "missing"])
def test_what_is_no_embedding_is_refused(joyflash, hub, tmp_path, kind):
    path = tmp_path / "file.safetensors"
    tensors, said = states()
    if kind == "text":
        path.write_text("hello")
    elif kind == "huge":
        path.write_bytes(bytes(8) + b"\0" * (65 << 20))
    elif kind != "missing":
        if kind == "other":
            tensors = {"weight": torch.ones(3)}
        if kind == "infinite":
            from joyflash_cli.weights.prompt_cache import prompt_key

            tensors["states"][0, 0, 0] = torch.inf
            said["key"] = prompt_key("e", "a")
        save_file(tensors, path, metadata=said)
    code, out, err = joyflash(
        "weights", "fetch", NAME, "--role", "prompt_embedding", "--from", path
    )
    assert (code, out) == ((2 if kind == "missing" else 4), "")
    assert len(err.splitlines()) == 1
    assert not prompts_directory().exists()


def test_the_list_says_that_the_encoder_is_optional(joyflash):
    _, out, _ = joyflash("weights", "list")
    assert f"prompt {NAME}" in out
    assert "--role prompt_embedding --from PLACE" in out
