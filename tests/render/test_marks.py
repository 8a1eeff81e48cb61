"""What marks a video as generated, from the request to frames, file and record."""

import hashlib
import io
from dataclasses import replace

import numpy as np
import pytest

from joyflash_cli.batch.publish import publish
from joyflash_cli.batch.renderer import RendererSettings
from joyflash_cli.cli.app import run
from joyflash_cli.errors import OutputError, UsageError
from joyflash_cli.media.inputs.audio import write_wav
from joyflash_cli.provenance.identity import make_identity
from joyflash_cli.provenance.reading import read_claims
from joyflash_cli.render import FrameOptions, JoyFlash, read_request
from joyflash_cli.render.record import read_sidecar
from joyflash_cli.types import AudioClip

VOICE = AudioClip(np.sin(np.arange(4_800) * 0.07, dtype=np.float32)[:, None] * 0.2, 16_000)
SMALL = FrameOptions(max_size_px=128)


@pytest.fixture(scope="module")
def joyflash(toy_checkpoint):
    return JoyFlash.load("tiny", toy_checkpoint, device="cpu", dtype="fp32")


def frames_of(joyflash, request) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in joyflash.stream(request)])


def test_a_label_is_in_every_frame_and_in_the_record(joyflash, toy_picture, tmp_path):
    plain = read_request(joyflash.files, toy_picture, VOICE, frame=SMALL)
    request = read_request(joyflash.files, toy_picture, VOICE, frame=SMALL, label="AI made")
    left, top, right, bottom = request.drawn_label().box
    frames, others = frames_of(joyflash, request), frames_of(joyflash, plain)
    differs = (frames != others).any(axis=-1)
    assert differs[:, top:bottom, left:right].any(axis=(1, 2)).all()
    differs[:, top:bottom, left:right] = False
    assert not differs.any()
    record = joyflash.render(request, tmp_path / "a.mp4")
    assert record.parameters["label"] == "AI made"
    assert "label" not in joyflash.render(plain, tmp_path / "b.mp4").parameters


def test_a_label_that_does_not_fit_is_told_before_any_work(joyflash, toy_picture):
    with pytest.raises(UsageError, match="wide"):
        read_request(joyflash.files, toy_picture, VOICE, frame=SMALL, label="much " * 20)


def test_a_batch_knows_its_rows_by_their_label():
    plain = RendererSettings().parameters
    assert "label" not in plain
    assert RendererSettings(label="AI").parameters == plain | {"label": "AI"}


def test_the_command_line_takes_a_label(toy_checkpoint, toy_picture, tmp_path, capfd):
    write_wav(tmp_path / "v.wav", VOICE)
    arguments = ["render", str(toy_picture), str(tmp_path / "v.wav"), "--dry-run"]
    arguments += ["--checkpoint", str(toy_checkpoint), "--max-size", "128"]
    assert run([*arguments, "--label", "bell \x07"]) == 2
    assert "error[E-LABEL]" in capfd.readouterr().err
    assert run([*arguments, "--label", "AI"]) == 0


@pytest.fixture
def signing(tmp_path):
    pytest.importorskip("c2pa")
    return make_identity(tmp_path / "id", "Ada", days=2, overwrite=False)


@pytest.fixture
def signed(joyflash, toy_picture, tmp_path, signing):
    """A request for a signed video of a file and a sound in memory."""
    return read_request(joyflash.files, toy_picture, VOICE, frame=SMALL, signing=signing)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize("output", ["a.mp4", "a.mov", "a.mkv", "a-%02d.png", "a-%02d.jpg"])
def test_every_file_is_signed_last_and_verifies(joyflash, signed, toy_picture, tmp_path, output):
    record = joyflash.render(signed, tmp_path / output)
    first = tmp_path / output.replace("%02d", "00")
    told = read_claims(first)["credentials"]
    assert told["state"] == "valid"
    assert told["facts"]["weights_sha256"] == record.weights_sha256
    digests = {one["title"]: one["sha256"] for one in told["ingredients"]}
    assert digests["picture"] == hashlib.sha256(toy_picture.read_bytes()).hexdigest()
    assert record.signed_by.startswith("CN=Ada,")
    assert read_sidecar(record.sidecar)["signed_by"] == record.signed_by
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_by_default_nothing_is_signed(joyflash, toy_picture, tmp_path):
    request = read_request(joyflash.files, toy_picture, VOICE, frame=SMALL)
    record = joyflash.render(request, tmp_path / "a.mkv")
    assert (record.signed_by, read_claims(record.output)["credentials"]) == (None, None)
    assert names(tmp_path) == ["a.mkv", "a.mkv.json"]


def test_a_statement_goes_with_the_video_it_was_about(joyflash, signed, tmp_path):
    joyflash.render(signed, tmp_path / "a.mkv")
    unsigned = replace(signed, signing=None)
    with pytest.raises(OutputError, match="exist"):
        joyflash.render(unsigned, tmp_path / "a.mkv")
    joyflash.render(unsigned, tmp_path / "a.mkv", overwrite=True)
    assert names(tmp_path) == ["a.mkv", "a.mkv.json"]


def test_a_live_video_is_signed_too(toy_checkpoint, toy_picture, signing, tmp_path, capfd):
    write_wav(tmp_path / "v.wav", VOICE)
    arguments = ["live", str(toy_picture), "--audio", str(tmp_path / "v.wav"), "--max-size", "128"]
    arguments += ["--checkpoint", str(toy_checkpoint), "--label", "AI"]
    arguments += ["--sign", str(signing.certificate), "--key", str(signing.key)]
    assert run([*arguments, "-o", "-"]) == 2
    assert "error[E-SIGN-OUTPUT]" in capfd.readouterr().err
    assert run([*arguments, "-o", str(tmp_path / "a.mp4")]) == 0
    assert read_claims(tmp_path / "a.mp4")["credentials"]["state"] == "valid"


@pytest.mark.parametrize("output", ["a.m3u8", None])
def test_what_cannot_carry_it_says_so_before_any_work(joyflash, signed, tmp_path, output):
    with pytest.raises(UsageError, match="cannot carry Content Credentials") as caught:
        joyflash.render(signed, io.BytesIO() if output is None else tmp_path / output)
    assert caught.value.code == "E-SIGN-OUTPUT"
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("output", "kept"), [("a.mp4", "a.partial.mp4"), ("a.mkv", "a.partial.mkv")]
)
def test_a_video_that_cannot_be_signed_is_kept(joyflash, signed, signing, tmp_path, output, kept):
    with pytest.raises(OutputError) as caught:
        joyflash.render(
            signed, tmp_path / output, on_chunk=lambda _: signing.key.unlink(missing_ok=True)
        )
    assert caught.value.code == "E-SIGN"
    assert f"unsigned, is in {tmp_path / kept}" in str(caught.value)
    assert names(tmp_path) == [kept, f"{kept}.json"]
    record = read_sidecar(tmp_path / kept)
    assert (record["signed_by"], record["status"]) == (None, "partial")
    assert "cannot be signed" in record["error"]
    assert read_claims(tmp_path / kept)["credentials"] is None


def test_pictures_stay_where_the_first_cannot_be_signed(joyflash, signed, signing, tmp_path):
    with pytest.raises(OutputError, match="the pictures, unsigned, are in"):
        joyflash.render(
            signed, tmp_path / "a-%02d.png", on_chunk=lambda _: signing.key.unlink(missing_ok=True)
        )
    assert read_claims(tmp_path / "a-00.png")["credentials"] is None


def test_what_was_cut_short_is_signed_too(joyflash, toy_picture, signing, tmp_path):
    long = AudioClip(np.tile(VOICE.samples, (6, 1)), 16_000)
    request = read_request(joyflash.files, toy_picture, long, frame=SMALL, signing=signing)
    seen = []
    record = joyflash.render(
        request, tmp_path / "a.mkv", on_chunk=seen.append, should_stop=lambda: len(seen) > 0
    )
    assert record.output.name == "a.partial.mkv"
    assert record.signed_by is not None
    assert read_claims(record.output)["credentials"]["state"] == "valid"


def test_a_batch_brings_the_statement_along_and_takes_an_old_one_away(tmp_path):
    (tmp_path / "staged").mkdir()
    staged, target = tmp_path / "staged" / "a.mkv", tmp_path / "a.mkv"
    for content in ("with", "without"):
        staged.write_text(content)
        if content == "with":
            staged.with_name("a.mkv.c2pa").write_text(content)
        publish(staged, target, overwrite=True)
        assert target.with_name("a.mkv.c2pa").exists() == (content == "with")


def test_a_batch_does_rows_again_to_sign_them(signing):
    plain = RendererSettings().parameters
    assert RendererSettings(signing=signing).parameters == plain | {"signed": True}


def test_the_command_line_signs(toy_checkpoint, toy_picture, tmp_path, signing, capfd, monkeypatch):
    write_wav(tmp_path / "v.wav", VOICE)
    output = str(tmp_path / "a.mp4")
    arguments = ["render", str(toy_picture), str(tmp_path / "v.wav"), "-o", output]
    arguments += ["--checkpoint", str(toy_checkpoint), "--max-size", "128"]
    assert run([*arguments, "--sign", str(signing.certificate)]) == 2
    assert "error[E-SIGN-KEY]" in capfd.readouterr().err
    assert run([*arguments, "--sign", "no.pem", "--key", "no.pem"]) == 2
    assert "error[E-SIGN-CERTIFICATE]" in capfd.readouterr().err
    monkeypatch.setenv("JOYFLASH_SIGN", str(signing.certificate))
    monkeypatch.setenv("JOYFLASH_RENDER_KEY", str(signing.key))
    assert run([*arguments[:-2], "-o", "-"]) == 2
    assert "error[E-SIGN-OUTPUT]" in capfd.readouterr().err
    assert run([*arguments, "--sign-thumbnail"]) == 0
    assert "signed by CN=Ada" in capfd.readouterr().err
    told = read_claims(tmp_path / "a.mp4")["credentials"]
    assert {one["title"]: one["thumbnail"] for one in told["ingredients"]} == {
        "picture": True,
        "sound": False,
    }
