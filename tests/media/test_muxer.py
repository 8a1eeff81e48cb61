import io
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyflash_cli.errors import OutputError
from joyflash_cli.media.outputs.formats import FORMATS
from joyflash_cli.media.outputs.names import OutputNames, check_suffix
from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.media.outputs.tracks import Film, TrackWriter, exact_fps, samples_until
from joyflash_cli.media.outputs.writer import open_muxer
from joyflash_cli.types import exact_rate

from .videos import (
    check_flash_and_click,
    decode_frames,
    decode_sound,
    names,
    noise_frames,
    tone,
)

SUFFIXES = [".mp4", ".mkv", ".mov", ".webm"]


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_flash_and_click_coincide_in_mp4(tmp_path, rate_hz, channels):
    check_flash_and_click(tmp_path / "a.mp4", 25, rate_hz, channels)


@pytest.mark.parametrize("fps", [16, 24, 30000 / 1001, 60])
def test_flash_and_click_coincide_at_other_rates(tmp_path, fps):
    check_flash_and_click(tmp_path / "a.mp4", fps, 16_000, 1)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_flash_and_click_coincide_in_other_containers(tmp_path, suffix, rate_hz):
    check_flash_and_click(tmp_path / f"a{suffix}", 25, rate_hz, 1)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_holds_what_was_written(tmp_path, suffix):
    path = tmp_path / f"-y a b;$(touch pwn)'{suffix}"
    audio = tone(1.99, 44_100, 2)
    metadata = {"comment": 'AI-generated\n"=;# é', "title": "-x"}
    with open_muxer(path, size=(64, 48), fps=25, audio=audio, metadata=metadata) as muxer:
        muxer.write(noise_frames(20))
        assert muxer.num_frames == 20
        muxer.write(noise_frames(30))
        assert names(tmp_path) != [path.name]
        assert not path.exists()
        info = muxer.finish()
    assert info == probe(path)
    assert names(tmp_path) == [path.name]
    assert (info.width, info.height, info.fps, info.num_frames) == (64, 48, 25.0, 50)
    assert info.video_s == pytest.approx(2.0, abs=0.001)
    assert info.audio_s == pytest.approx(1.99, abs=0.01)
    assert info.audio_channels == 2
    assert info.audio_rate_hz in (44_100, 48_000)
    tags = {key.lower(): value for key, value in info.metadata.items()}
    assert tags["comment"] == metadata["comment"]
    assert tags["title"] == "-x"


def test_mp4_keeps_the_rate_from_44_kilohertz_on(tmp_path):
    for rate_hz, expected_hz in ((8_000, 48_000), (44_100, 44_100), (96_000, 96_000)):
        path = tmp_path / f"{rate_hz}.mp4"
        with open_muxer(path, size=(32, 32), fps=25, audio=tone(0.2, rate_hz)) as muxer:
            muxer.write(noise_frames(5, 32, 32))
            assert muxer.finish().audio_rate_hz == expected_hz


def test_mkv_keeps_the_sound_exactly(tmp_path):
    audio = tone(1.0, 22_050, 2)
    with open_muxer(tmp_path / "a.mkv", size=(32, 32), fps=25, audio=audio) as muxer:
        muxer.write(noise_frames(25, 32, 32))
        muxer.finish()
    _, rate_hz, sound = decode_sound(tmp_path / "a.mkv")
    assert rate_hz == 22_050
    np.testing.assert_allclose(sound.T, audio.samples, atol=1e-4)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_colours_survive(tmp_path, suffix):
    colours = np.array([[220, 40, 40], [40, 200, 60], [50, 60, 220], [230, 180, 150]], np.uint8)
    frames = np.repeat(np.repeat(colours[None, None], 48, axis=1), 16, axis=2)
    path = tmp_path / f"a{suffix}"
    with open_muxer(path, size=(64, 48), fps=25, crf=10) as muxer:
        muxer.write(np.repeat(frames, 5, axis=0))
        muxer.finish()
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (1, 1)  # BT.709, limited range
        frame = frame.reformat(format="rgb24", src_colorspace="ITU709", src_color_range="MPEG")
        shown = frame.to_ndarray()
    np.testing.assert_allclose(shown[24, 8::16].astype(int), colours, atol=6)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("size", [(65, 48), (64, 47), (33, 35)])
def test_odd_sides_grow_by_one_and_are_not_rescaled(tmp_path, suffix, size):
    width, height = size
    frames = np.zeros((3, height, width, 3), np.uint8)
    frames[:, :, -1] = frames[:, -1] = 255
    path = tmp_path / f"a{suffix}"
    with open_muxer(path, size=size, fps=25, crf=5) as muxer:
        muxer.write(frames)
        info = muxer.finish()
    assert (info.width, info.height) == (width + width % 2, height + height % 2)
    _, shown = decode_frames(path, "gray")
    assert shown[0, : height - 4, : width - 4].max() < 60
    assert shown[0, height - 1 :, :].min() > 200
    assert shown[0, :, width - 1 :].min() > 200


def test_frames_of_another_shape_are_a_mistake_of_the_caller():
    tracks = TrackWriter(io.BytesIO(), FORMATS[".mp4"], Film((64, 48), exact_fps(25)), options={})
    for frames in (np.zeros((1, 48, 66, 3), np.uint8), np.zeros((1, 48, 64, 3), np.float32)):
        with pytest.raises(ValueError, match="expected"):
            tracks.write(frames)


@given(
    fps=st.sampled_from([Fraction(16), Fraction(25), Fraction(30_000, 1001), Fraction(60)]),
    rate_hz=st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000]),
    num_frames=st.integers(0, 200_000),
)
def test_lock_step_never_drifts(fps, rate_hz, num_frames):
    until = samples_until(num_frames, rate_hz, fps)
    exact = num_frames * rate_hz / fps
    assert until <= exact < until + 1
    share = samples_until(num_frames + 1, rate_hz, fps) - until
    assert share in (int(rate_hz / fps), int(rate_hz / fps) + 1)


def test_lock_step_values():
    assert [samples_until(n, 16_000, Fraction(25)) for n in (1, 2)] == [640, 1280]
    assert [samples_until(n, 44_100, Fraction(16)) for n in (1, 2, 3)] == [2756, 5512, 8268]


def test_exact_fps():
    assert exact_fps(25) == 25
    assert exact_fps(29.97) == exact_fps(30_000 / 1001) == Fraction(30_000, 1001)
    assert exact_fps(12.5) == Fraction(25, 2)
    for short, rate in ((23.98, 24), (59.94, 60), (47.95, 48), (119.88, 120), (239.76, 240)):
        assert exact_fps(short) == exact_rate(short) == Fraction(rate * 1_000, 1_001)
    for fps in (0, -1, 1000):
        with pytest.raises(OutputError, match="frames a second"):
            exact_fps(fps)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_partial_is_cut_to_the_video(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    with open_muxer(path, size=(64, 48), fps=25, audio=tone(10.0)) as muxer:
        muxer.write(noise_frames(30))
        partial = muxer.keep_partial()
    assert partial == tmp_path / f"a.partial{suffix}"
    assert names(tmp_path) == [partial.name]
    info = probe(partial)
    assert info.num_frames == 30
    assert abs(info.audio_s - info.video_s) <= 0.04


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_every_other_way_out_leaves_nothing(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    options = {"size": (64, 48), "fps": 25, "audio": tone(2.0)}
    with pytest.raises(KeyboardInterrupt), open_muxer(path, **options) as muxer:  # noqa: PT012
        muxer.write(noise_frames(3))
        raise KeyboardInterrupt
    with open_muxer(path, **options) as muxer:
        muxer.write(noise_frames(3))
    with open_muxer(path, **options) as muxer:
        assert muxer.keep_partial() is None
    with open_muxer(path, **options) as muxer, pytest.raises(ValueError, match="no frame"):
        muxer.finish()
    with open_muxer(path, **options) as muxer, pytest.raises(ValueError, match="expected"):
        muxer.write(np.zeros((1, 2, 2, 3), np.uint8))
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_tracks_of_different_length_are_an_error(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    for audio_s in (1.1, 0.9):
        audio = tone(audio_s)
        with open_muxer(path, size=(64, 48), fps=25, audio=audio, overwrite=True) as muxer:
            muxer.write(noise_frames(25))
            with pytest.raises(OutputError) as caught:
                muxer.finish()
        assert caught.value.code == "E-OUTPUT-TRACKS"
        assert names(tmp_path) == [f"a.partial{suffix}"]


def test_existing_file_is_never_overwritten_silently(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError) as caught:
        open_muxer(path, size=(64, 48), fps=25)
    assert (caught.value.code, caught.value.exit_code) == ("E-OUTPUT-EXISTS", 6)
    with open_muxer(path, size=(64, 48), fps=25, overwrite=True) as muxer:
        muxer.write(noise_frames(2))
        assert path.read_bytes() == b"precious"
    assert path.read_bytes() == b"precious"
    with open_muxer(path, size=(64, 48), fps=25, overwrite=True) as muxer:
        muxer.write(noise_frames(2))
        muxer.finish()
    assert probe(path).num_frames == 2
    assert names(tmp_path) == ["a.mp4"]


def test_file_that_appears_meanwhile_is_not_overwritten(tmp_path):
    path = tmp_path / "a.mp4"
    with open_muxer(path, size=(64, 48), fps=25) as muxer:
        muxer.write(noise_frames(2))
        path.write_bytes(b"precious")
        with pytest.raises(OutputError, match="appeared"):
            muxer.finish()
    assert path.read_bytes() == b"precious"
    assert names(tmp_path) == ["a.mp4", "a.partial.mp4"]


def test_whoever_watches_the_target_never_sees_a_part(tmp_path):
    path = tmp_path / "a.mp4"
    with open_muxer(path, size=(64, 48), fps=25) as muxer:
        muxer.write(noise_frames(3))
        assert not path.exists()
        muxer.finish()
    first = path.read_bytes()
    with open_muxer(path, size=(64, 48), fps=25, overwrite=True) as muxer:
        muxer.write(noise_frames(5))
        assert path.read_bytes() == first
        muxer.finish()
    assert probe(path).num_frames == 5


def test_a_file_system_without_locks_is_written_all_the_same(tmp_path, monkeypatch):
    import errno
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with open_muxer(tmp_path / "a.mp4", size=(64, 48), fps=25) as muxer:
        muxer.write(noise_frames(3))
        assert muxer.finish().num_frames == 3


def test_two_writers_of_one_file(tmp_path):
    path = tmp_path / "a.mp4"
    with open_muxer(path, size=(64, 48), fps=25) as first:
        first.write(noise_frames(3))
        with pytest.raises(OutputError, match="another program is writing") as caught:
            open_muxer(path, size=(64, 48), fps=25)
        assert caught.value.code == "E-OUTPUT-EXISTS"
        first.write(noise_frames(2))
        assert first.finish().num_frames == 5
    assert names(tmp_path) == ["a.mp4"]


def test_what_a_killed_writer_left_is_taken_over(tmp_path):
    (tmp_path / ".a.part.mp4").write_bytes(b"left behind" * 10_000)
    with pytest.raises(OutputError, match=r"\.a\.part\.mp4 exists already"):
        open_muxer(tmp_path / "a.mp4", size=(64, 48), fps=25)
    with open_muxer(tmp_path / "a.mp4", size=(64, 48), fps=25, overwrite=True) as muxer:
        muxer.write(noise_frames(3))
        muxer.finish()
    assert names(tmp_path) == ["a.mp4"]
    assert b"left behind" not in (tmp_path / "a.mp4").read_bytes()


def test_a_link_in_the_temporary_files_place_is_not_followed(tmp_path):
    (tmp_path / "theirs").write_text("mine")
    (tmp_path / ".a.part.mp4").symlink_to(tmp_path / "theirs")
    with pytest.raises(OutputError, match="is a link"):
        open_muxer(tmp_path / "a.mp4", size=(64, 48), fps=25, overwrite=True)
    assert (tmp_path / "theirs").read_text() == "mine"


def test_targets_that_cannot_be_written(tmp_path, monkeypatch):
    cases = [(tmp_path / "no" / "a.mp4", "E-OUTPUT-FOLDER"), (tmp_path, "E-OUTPUT-EXISTS")]
    for path, code in cases:
        with pytest.raises(OutputError) as caught:
            OutputNames(path).check(overwrite=True)
        assert (caught.value.code, caught.value.exit_code) == (code, 6)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="not writable"):
        OutputNames(tmp_path / "a.mp4").check()


def test_name_too_long(tmp_path):
    with pytest.raises(OutputError) as caught:
        open_muxer(tmp_path / ("a" * 250 + ".mp4"), size=(64, 48), fps=25)
    assert caught.value.code == "E-OUTPUT-WRITE"
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.gif", "a", "a.mp4.exe"])
def test_unknown_suffix_names_the_known_ones(tmp_path, name):
    with pytest.raises(OutputError, match=r"\.mp4.*\.webm") as caught:
        open_muxer(tmp_path / name, size=(64, 48), fps=25)
    assert caught.value.code == "E-OUTPUT-SUFFIX"
    check_suffix(Path("A.MP4"))


def test_probe_of_what_is_no_video(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    for path in (tmp_path / "a.mp4", tmp_path / "missing.mp4"):
        with pytest.raises(OutputError) as caught:
            probe(path)
        assert caught.value.code == "E-OUTPUT-UNREADABLE"
