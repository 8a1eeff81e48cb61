"""What marks a video as generated, from the request to frames, file and record."""

import numpy as np
import pytest

from joyflash_cli.batch.renderer import RendererSettings
from joyflash_cli.cli.app import run
from joyflash_cli.errors import UsageError
from joyflash_cli.render import FrameOptions, JoyFlash, read_request
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
    from joyflash_cli.media.inputs.audio import write_wav

    write_wav(tmp_path / "v.wav", VOICE)
    arguments = ["render", str(toy_picture), str(tmp_path / "v.wav"), "--dry-run"]
    arguments += ["--checkpoint", str(toy_checkpoint), "--max-size", "128"]
    assert run([*arguments, "--label", "bell \x07"]) == 2
    assert "error[E-LABEL]" in capfd.readouterr().err
    assert run([*arguments, "--label", "AI"]) == 0
