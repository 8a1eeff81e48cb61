"""What videos show, from request to file: every output, the record, and what is refused."""

import io
import json
import struct
import wave

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from joyflash_cli.cli.app import app
from joyflash_cli.errors import UsageError
from joyflash_cli.media.inputs.framing import SizeRule
from joyflash_cli.render import FrameOptions, JoyFlash, read_request
from joyflash_cli.render.record import read_sidecar, sidecar_path
from joyflash_cli.weights.store import resolve_checkpoint

runner = CliRunner()


@pytest.fixture(scope="module")
def joyflash(toy_checkpoint):
    return JoyFlash.load("tiny", toy_checkpoint, device="cpu", dtype="fp32")


@pytest.fixture(scope="module")
def photo(repository, tmp_path_factory):
    """The example's face with a striped wall around it; odd sides."""
    picture = np.zeros((421, 517, 3), np.uint8)
    picture[:] = (np.arange(517) % 7 * 30)[None, :, None]
    with Image.open(repository / "examples" / "face.png") as face:
        picture[60:360, 100:400] = np.asarray(face.convert("RGB").resize((300, 300)))
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(picture).save(path)
    return path


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    path = tmp_path_factory.mktemp("short") / "short.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        samples = np.sin(np.arange(9_600) * 0.07) * 8_000
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples.astype(int).tolist()))
    return path


def all_frames(joyflash, request) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in joyflash.stream(request)])


def decoded(source) -> np.ndarray:
    with av.open(source if isinstance(source, io.BytesIO) else str(source)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def test_the_picture_stands_still_around_the_face(joyflash, photo, voice):
    request = read_request(joyflash.files, photo, voice)
    assert request.size_px == (516, 420)
    frames = all_frames(joyflash, request)
    assert frames.shape == (15, 420, 516, 3)
    given = np.asarray(Image.open(photo))[:420, :516]
    left, top, right, bottom = (round(edge) for edge in request.scene.square.bounds())
    outside = np.ones((420, 516), bool)
    outside[max(top, 0) : bottom, max(left, 0) : right] = False
    assert outside.mean() > 0.2
    assert (frames[:, outside] == given[outside]).all()
    assert (frames[0] == given).all()
    assert (frames != given).any()


def test_every_frame_option_reaches_frames_and_record(joyflash, photo, voice, tmp_path):
    for number, (options, size, chosen) in enumerate([
        (FrameOptions(), (516, 420), {"frame": "picture", "max_size": 1280}),
        (FrameOptions(max_size_px=101), (100, 82), {"frame": "picture", "max_size": 101}),
        (FrameOptions("face"), (256, 256), {"frame": "face", "size": 256}),
        (FrameOptions("face", 512), (512, 512), {"frame": "face", "size": 512}),
    ]):  # fmt: skip
        request = read_request(joyflash.files, photo, voice, frame=options)
        result = joyflash.render(request, tmp_path / f"{number}.mp4")
        assert result.size_px == size
        record = read_sidecar(result.output)
        assert (record["width"], record["height"]) == size
        assert record["parameters"].items() >= chosen.items()
        square = request.scene.square
        assert record["parameters"]["square"]["side"] == pytest.approx(square.side, abs=1e-3)
        assert decoded(result.output).shape == (15, size[1], size[0], 3)


def test_a_tilted_head_moves_in_a_still_picture(joyflash, photo, voice, tmp_path):
    tilted = tmp_path / "tilted.png"
    Image.open(photo).rotate(20, Image.Resampling.BICUBIC).save(tilted)
    request = read_request(joyflash.files, tilted, voice)
    assert abs(request.scene.square.angle) > 0.2
    frames = all_frames(joyflash, request)
    assert (frames[:, :20] == np.asarray(Image.open(tilted))[:20, :516]).all()
    assert (frames[1:] != frames[:1]).any()


def test_files_pipes_and_playlists_show_the_same(joyflash, photo, voice, tmp_path):
    request = read_request(joyflash.files, photo, voice)
    plain = all_frames(joyflash, request)
    pipe = io.BytesIO()
    joyflash.render(request, pipe)
    with voice.open("rb") as live:
        heard = read_request(joyflash.files, photo, live)
        np.testing.assert_array_equal(all_frames(joyflash, heard), plain)
    playlist = tmp_path / "live.m3u8"
    joyflash.render(request, playlist)
    joyflash.render(request, tmp_path / "f-%03d.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "f-000.png")), plain[0])
    for shown in (decoded(io.BytesIO(pipe.getvalue())), decoded(playlist)):
        assert shown.shape == plain.shape
        wall = np.abs(shown[:, :40].astype(int) - plain[:, :40]).mean()
        assert wall < 12  # what coding leaves of narrow stripes


def test_the_command_line_says_and_does_it(photo, voice, toy_checkpoint, tmp_path):
    base = ["render", str(photo), str(voice), "--checkpoint", str(toy_checkpoint), "--quiet"]
    plan = runner.invoke(app, [*base, "--dry-run", "--json", "--max-size", "200"])
    assert plan.exit_code == 0, plan.output
    assert (json.loads(plan.stdout)["width"], json.loads(plan.stdout)["height"]) == (200, 162)
    output = tmp_path / "face.mp4"
    done = runner.invoke(app, [*base, "--frame", "face", "--size", "512", "-o", str(output)])
    assert done.exit_code == 0, done.output
    assert decoded(output).shape[1:3] == (512, 512)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("whole", None, None), "'whole' is not known"),
        (("face", 300, None), "300 px is not possible"),
        (("face", None, 900), "--max-size is for --frame picture"),
        ((None, 512, None), "--size is for --frame face"),
        ((None, None, 63), "63 px is not possible"),
        ((None, None, 4097), "4097 px is not possible"),
    ],
)
def test_what_cannot_be_shown_is_refused(toy_checkpoint, options, words):
    files = resolve_checkpoint("tiny", toy_checkpoint)
    with pytest.raises(UsageError, match=words) as caught:
        FrameOptions(*options).resolved(files.description.framing, files.name)
    assert (caught.value.code, caught.value.exit_code) == ("E-FRAME", 2)
    assert caught.value.hint


@pytest.mark.parametrize("options", [("picture",), ("face",), (None, 256), (None, None, 1280)])
def test_profiles_with_sizes_of_their_own_take_no_frame(toy_checkpoint, options):
    import dataclasses

    files = resolve_checkpoint("tiny", toy_checkpoint)
    described = dataclasses.replace(files.description, framing=SizeRule(area_px=399_360))
    large = dataclasses.replace(files, description=described)
    assert FrameOptions().resolved(large.description.framing, large.name) == FrameOptions()
    with pytest.raises(UsageError, match="has a frame of its own"):
        FrameOptions(*options).resolved(large.description.framing, large.name)


def test_a_batch_shows_whole_pictures_and_keeps_the_choice(photo, voice, toy_checkpoint, tmp_path):
    manifest = tmp_path / "rows.csv"
    manifest.write_text(f"id,image,audio\na,{photo},{voice}\n")
    command = ["batch", str(manifest), "--checkpoint", str(toy_checkpoint), "--workers", "1"]
    command += ["--out-dir", str(tmp_path / "out"), "--quiet"]
    done = runner.invoke(app, command)
    assert done.exit_code == 0, done.output
    video = tmp_path / "out" / "a.mp4"
    assert decoded(video).shape[1:3] == (420, 516)
    assert json.loads(sidecar_path(video).read_text())["parameters"]["frame"] == "picture"
    assert runner.invoke(app, [*command, "--frame", "face"]).exit_code != 0  # it lies there already
    again = runner.invoke(app, [*command, "--frame", "face", "--overwrite"])
    assert again.exit_code == 0, again.output
    assert decoded(video).shape[1:3] == (256, 256)
    refused = runner.invoke(app, [*command, "--size", "512"])
    assert refused.exit_code != 0
