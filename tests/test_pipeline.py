"""The whole way with a small random checkpoint: frames, files, seeds, stops and failures."""

import dataclasses
import hashlib
import json
import shutil

import av
import numpy as np
import pytest
import torch
from conftest import TOY_AUDIO_S, TOY_PICTURE_PX, TOY_RATE_HZ

from joyflash_cli.errors import (
    CheckpointError,
    ConfigError,
    DeviceError,
    JoyFlashError,
    OutputError,
    UsageError,
)
from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.render import (
    FrameOptions,
    JoyFlash,
    choose_device,
    choose_dtype,
    read_request,
)
from joyflash_cli.render.record import read_sidecar, weights_sha256
from joyflash_cli.streaming import StopRequested
from joyflash_cli.types import AudioClip
from joyflash_cli.weights.store import resolve_checkpoint

NUM_FRAMES = 33  # ceil(1.3 s * 25)
NUM_BLOCKS = 3  # 4 * 3 * 3 - 3 = 33 frames


@pytest.fixture(scope="module")
def joyflash(toy_checkpoint):
    return JoyFlash.load("tiny", toy_checkpoint, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def request_(joyflash, toy_picture, toy_voice):
    return read_request(joyflash.files, toy_picture, toy_voice, seed=7)


def read_frames(path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def frames_of(joyflash, request) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in joyflash.stream(request)])


def with_silence(request, num_samples: int):
    samples = np.zeros((num_samples, 1), np.float32)
    return dataclasses.replace(request, audio=AudioClip(samples, TOY_RATE_HZ))


def test_chunks_tile_the_sound(joyflash, request_):
    chunks = list(joyflash.stream(request_))
    assert [chunk.index for chunk in chunks] == list(range(NUM_BLOCKS))
    assert [len(chunk.frames) for chunk in chunks] == [9, 12, 12]
    assert [chunk.first_frame for chunk in chunks] == [0, 9, 21]
    assert all(chunk.num_blocks == NUM_BLOCKS for chunk in chunks)
    assert chunks[0].frames.dtype == np.uint8
    assert chunks[0].frames.shape[1:] == (TOY_PICTURE_PX[1], TOY_PICTURE_PX[0], 3)
    times = [chunk.elapsed_s for chunk in chunks]
    assert times == sorted(times)
    assert times[0] > 0


@pytest.mark.parametrize(
    ("num_samples", "num_frames", "num_blocks"),
    [(240, 1, 1), (9 * 960, 9, 1), (9 * 960 + 1, 10, 2), (21 * 960, 21, 2), (22 * 960, 22, 3)],
)
def test_frames_are_trimmed_to_the_sound(joyflash, request_, num_samples, num_frames, num_blocks):
    request = with_silence(request_, num_samples)
    plan = joyflash.plan(request)
    assert (plan.num_frames, plan.num_blocks) == (num_frames, num_blocks)
    assert len(frames_of(joyflash, request)) == num_frames


@pytest.mark.parametrize(
    ("num_samples", "rate_hz", "fps", "expected"),
    [
        (44_100, 44_100, 25, 25),
        (44_101, 44_100, 25, 26),
        (3 * 44_100, 44_100, 16, 48),
        (8_000, 16_000, 29.97, 15),
        (1, 48_000, 25, 1),
        (30_030, 30_000, 30_000 / 1001, 30),
    ],
)
def test_frames_cover_the_sound_in_exact_arithmetic(request_, num_samples, rate_hz, fps, expected):
    clip = AudioClip(np.zeros((num_samples, 1), np.float32), rate_hz)
    assert dataclasses.replace(request_, audio=clip).num_frames(fps) == expected


def test_same_seed_same_frames(joyflash, request_):
    first = frames_of(joyflash, request_)
    assert np.array_equal(first, frames_of(joyflash, request_))
    other = dataclasses.replace(request_, seed=8)
    assert not np.array_equal(first, frames_of(joyflash, other))


def test_the_sound_reaches_the_frames(joyflash, request_):
    silent = with_silence(request_, request_.audio.num_samples)
    assert not np.array_equal(frames_of(joyflash, request_), frames_of(joyflash, silent))


def test_streams_do_not_leave_inference_mode_on(joyflash, request_):
    stream = joyflash.stream(request_)
    next(stream)
    assert not torch.is_inference_mode_enabled()
    stream.close()


def test_render_writes_a_playable_file(joyflash, request_, tmp_path):
    seen = []
    result = joyflash.render(request_, tmp_path / "out.mp4", on_chunk=seen.append)
    info = probe(result.output)
    assert (info.num_frames, info.fps, info.width) == (NUM_FRAMES, 25, TOY_PICTURE_PX[0])
    assert info.audio_codec == "aac"
    assert abs(info.audio_s - TOY_AUDIO_S) <= 1 / 25
    assert "AI-generated" in info.metadata["comment"]
    assert result.complete
    assert result.video_frames == NUM_FRAMES
    assert result.video_s == pytest.approx(NUM_FRAMES / 25)
    assert result.realtime_factor == pytest.approx(result.video_s / result.wall_s)
    assert 0 < result.first_frame_s <= result.wall_s
    assert len(seen) == NUM_BLOCKS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "out.mp4.json"]
    assert result.sidecar == tmp_path / "out.mp4.json"


def test_the_record_says_how_it_was_made(joyflash, request_, toy_picture, toy_voice, tmp_path):
    result = joyflash.render(request_, tmp_path / "out.mp4")
    record = read_sidecar(result.output)
    assert (record["status"], record["output"], record["seed"]) == ("complete", "out.mp4", 7)
    assert record["image_sha256"] == hashlib.sha256(toy_picture.read_bytes()).hexdigest()
    assert record["audio_sha256"] == hashlib.sha256(toy_voice.read_bytes()).hexdigest()
    assert record["weights_sha256"] == weights_sha256(joyflash.files)
    assert (record["image"], record["audio"]) == (toy_picture.name, toy_voice.name)
    assert (record["profile"], record["device"], record["dtype"]) == ("toy", "cpu", "float32")
    assert (record["video_frames"], record["fps"]) == (NUM_FRAMES, 25)
    assert (record["width"], record["height"]) == TOY_PICTURE_PX
    assert record["audio_s"] == pytest.approx(TOY_AUDIO_S)
    assert len(record["block_timings_s"]) == NUM_BLOCKS
    assert record["parameters"]["sampler"]["fps"] == 25
    assert record["notice"] == probe(result.output).metadata["comment"]
    assert record["error"] is None


def test_a_stop_keeps_what_is_ready(joyflash, request_, tmp_path):
    seen = []
    result = joyflash.render(
        request_, tmp_path / "out.mp4", on_chunk=seen.append, should_stop=lambda: bool(seen)
    )
    assert not result.complete
    assert result.output == tmp_path / "out.partial.mp4"
    assert probe(result.output).num_frames == result.video_frames == 9
    names = ["out.partial.mp4", "out.partial.mp4.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert read_sidecar(result.output)["status"] == "partial"


def test_a_stop_before_the_first_frame_leaves_nothing(joyflash, request_, tmp_path):
    with pytest.raises(StopRequested):
        joyflash.render(request_, tmp_path / "out.mp4", should_stop=lambda: True)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_what_is_ready_and_says_where(joyflash, request_, tmp_path, monkeypatch):
    real_stream = joyflash.stream

    def failing(request, **_):
        stream = real_stream(request)
        yield next(stream)
        stream.close()
        raise DeviceError("out of memory", hint="give a shorter sound")

    monkeypatch.setattr(joyflash, "stream", failing)
    with pytest.raises(DeviceError, match=r"9 frames are kept in .*out\.partial\.mp4"):
        joyflash.render(request_, tmp_path / "out.mp4")
    record = read_sidecar(tmp_path / "out.partial.mp4")
    assert (record["status"], record["video_frames"]) == ("partial", 9)
    assert record["error"].startswith("out of memory; 9 frames are kept")


def test_a_failure_before_the_first_frame_leaves_nothing(joyflash, request_, tmp_path, monkeypatch):
    def failing(request, **_):
        raise DeviceError("out of memory")
        yield

    monkeypatch.setattr(joyflash, "stream", failing)
    with pytest.raises(DeviceError, match="^out of memory$"):
        joyflash.render(request_, tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_left_alone(joyflash, request_, tmp_path):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        joyflash.render(request_, target)
    assert target.read_bytes() == b"mine"
    joyflash.render(request_, target, overwrite=True)
    assert probe(target).num_frames == NUM_FRAMES


def test_a_prompt_is_refused_where_nothing_hears_it(joyflash, toy_picture, toy_voice):
    with pytest.raises(UsageError, match="no text control"):
        read_request(joyflash.files, toy_picture, toy_voice, prompt="smile")


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_impossible_seeds(joyflash, toy_picture, toy_voice, seed):
    with pytest.raises(UsageError, match="seed"):
        read_request(joyflash.files, toy_picture, toy_voice, seed=seed)


def test_warnings_travel_with_the_request(joyflash, toy_picture, tmp_path):
    silent = with_silence(read_request(joyflash.files, toy_picture, _tone(tmp_path)), 4800).audio
    frame = FrameOptions("face", 512)
    request = read_request(joyflash.files, toy_picture, silent, frame=frame)
    assert any("silent" in warning for warning in request.warnings)
    assert any("face is small" in warning for warning in request.warnings)


def _tone(folder):
    from conftest import write_tone

    return write_tone(folder / "tone.wav", 0.2)


def test_devices_and_dtypes():
    cpu = choose_device("cpu")
    assert choose_dtype("float32", cpu) == torch.float32
    assert choose_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
    with pytest.raises(DeviceError, match="float16"):
        choose_dtype("float16", cpu)
    with pytest.raises(UsageError, match="float99"):
        choose_dtype("float99", cpu)
    with pytest.raises(DeviceError, match="nonsense"):
        choose_device("nonsense")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_missing_device_is_one_line():
    with pytest.raises(DeviceError) as caught:
        choose_device("cuda")
    assert "\n" not in str(caught.value)


def edited_checkpoint(toy_checkpoint, folder, **changes):
    shutil.copytree(toy_checkpoint, folder)
    description = json.loads((folder / "checkpoint.json").read_text())
    for section, values in changes.items():
        description[section].update(values)
    (folder / "checkpoint.json").write_text(json.dumps(description))
    return folder


def test_weights_of_another_layout_are_refused_by_name(toy_checkpoint, tmp_path):
    folder = edited_checkpoint(toy_checkpoint, tmp_path / "c", transformer={"ffn_dim": 48})
    with pytest.raises(CheckpointError, match=r"instead of .* and \d+ more|instead of") as caught:
        JoyFlash.load("tiny", folder, device="cpu", dtype="float32")
    assert caught.value.code == "E-CHECKPOINT-LAYOUT"
    assert caught.value.message.count(" instead of ") <= 5


def test_a_wrong_setting_is_refused_by_name(toy_checkpoint, tmp_path):
    folder = edited_checkpoint(toy_checkpoint, tmp_path / "c", sampler={"shfit": 5.0})
    with pytest.raises(ConfigError, match="shfit") as caught:
        JoyFlash.load(resolve_checkpoint("tiny", folder), device="cpu", dtype="float32")
    assert isinstance(caught.value, JoyFlashError)
    assert "shift" in caught.value.hint
