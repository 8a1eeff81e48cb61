"""Users' videos: steady frames, sound on the same clock, whatever the container says."""

import io
from fractions import Fraction

import numpy as np
import pytest

from joyflash_cli.errors import DataError
from joyflash_cli.media.inputs.framing import FramingRule, SizeRule
from joyflash_cli.media.inputs.talking_video import read_talking_video
from joyflash_cli.studio.clips.clip_framing import ClipFraming

av = pytest.importorskip("av")
SIZE = 64
RATE_HZ = 16_000


def write_video(path, due_s, *, sound_from_s=None, sound_s=2.0):
    """Frames whose grey level is their number, due at these times; a click at 0.8 s."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=1000, options={"crf": "0", "bf": "0"})
        video.width = video.height = SIZE
        video.pix_fmt = "yuv444p"
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        sound = None
        if sound_from_s is not None:
            sound = container.add_stream("pcm_s16le", rate=RATE_HZ)
            sound.layout = "mono"
        for number, due in enumerate(due_s):
            pixels = np.full((SIZE, SIZE, 3), 10 * number, np.uint8)
            pixels[:16, :16] = 255  # the upper left corner
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(1000 * due), Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            samples = np.zeros(round(sound_s * RATE_HZ), np.int16)
            samples[round((0.8 - sound_from_s) * RATE_HZ)] = 20_000
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate, frame.time_base = RATE_HZ, Fraction(1, RATE_HZ)
            frame.pts = round(sound_from_s * RATE_HZ)
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def read(video, fps=25.0, **options):
    found = read_talking_video(video, fps=fps, fit=lambda pixels: pixels, **options)
    frames = list(found.frames)
    return [round(int(frame[SIZE // 2, SIZE // 2, 0]) / 10) for frame in frames], found.waveform


def test_a_steady_video_comes_frame_by_frame(tmp_path):
    path = write_video(tmp_path / "a.mkv", np.arange(10) / 25, sound_from_s=0.0)
    numbers, waveform = read(path)
    assert numbers == list(range(10))
    assert int(np.abs(waveform).argmax()) == 12_800


def test_another_rate_shows_the_newest_frame_due(tmp_path):
    path = write_video(tmp_path / "a.mkv", np.arange(10) / 50, sound_from_s=0.0)
    assert read(path)[0][:5] == [0, 2, 4, 6, 8]
    path = write_video(tmp_path / "b.mkv", np.arange(5) / 12.5, sound_from_s=0.0)
    assert read(path)[0][:9] == [0, 0, 1, 1, 2, 2, 3, 3, 4]


def test_a_variable_rate_becomes_steady(tmp_path):
    path = write_video(tmp_path / "a.mkv", [0.0, 0.04, 0.2, 0.24], sound_from_s=0.0)
    assert read(path)[0] == [0, 1, 1, 1, 1, 2, 3]


@pytest.mark.parametrize("begins_s", [0.25, -0.25])
def test_sound_that_begins_at_another_time_is_put_in_its_place(tmp_path, begins_s):
    """The click is at 0.8 s of the container's clock; the picture begins at 0.3 s."""
    picture_s = 0.3
    path = write_video(
        tmp_path / "a.mkv", picture_s + np.arange(10) / 25, sound_from_s=picture_s + begins_s
    )
    numbers, waveform = read(path)
    assert numbers == list(range(10))
    assert np.abs(waveform).argmax() == pytest.approx(0.5 * RATE_HZ, abs=20)


def test_a_sound_file_begins_with_the_picture(tmp_path):
    video = write_video(tmp_path / "a.mkv", 0.3 + np.arange(5) / 25)
    sound = write_video(tmp_path / "b.mkv", [0.0], sound_from_s=0.0)
    assert int(np.abs(read(video, sound=sound)[1]).argmax()) == 12_800


def test_open_streams_are_read_like_files(tmp_path):
    path = write_video(tmp_path / "a.mkv", np.arange(4) / 25, sound_from_s=0.0)
    numbers, waveform = read(io.BytesIO(path.read_bytes()))
    assert numbers == list(range(4))
    assert int(np.abs(waveform).argmax()) == 12_800


def test_what_cannot_be_used_is_named(tmp_path):
    mute = write_video(tmp_path / "mute.mkv", np.arange(3) / 25)
    with pytest.raises(DataError, match="holds no sound"):
        read(mute)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match="text.mp4 cannot be read"):
        read(tmp_path / "text.mp4")
    whole = write_video(tmp_path / "whole.mkv", np.arange(3) / 25, sound_from_s=0.0).read_bytes()
    with pytest.raises(DataError):
        read(io.BytesIO(whole[: len(whole) // 8]), name="half.mkv")


def test_every_frame_is_cut_as_the_first_one():
    """Without a face the middle is taken; a later frame may not move the cut."""
    framing = ClipFraming(FramingRule(32, eyes_x=0.5, eyes_y=0.42, eyes_to_mouth=0.25))
    wide = np.zeros((64, 96, 3), np.uint8)
    wide[:, 16:80] = 200
    assert framing(wide).shape == (32, 32, 3)
    assert framing(wide).min() > 180
    assert framing(np.roll(wide, 32, axis=1))[:, 0].max() < 20


def test_framing_by_size_covers_the_frame():
    framing = ClipFraming(SizeRule(sizes=((64, 32),)))
    pixels = np.zeros((80, 80, 3), np.uint8)
    pixels[20:60] = 200
    assert framing(pixels).shape == (32, 64, 3)
    assert framing(pixels).mean() > 180
