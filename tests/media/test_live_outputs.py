"""Outputs that are watched while they grow: a pipe, HLS, numbered pictures; and cut fragments."""

import io
import os
import shutil

import av
import numpy as np
import pytest

from joyflash_cli.errors import OutputError
from joyflash_cli.media.outputs.mp4_boxes import drop_cut_fragment
from joyflash_cli.media.outputs.tracks import SoundTrack, exact_fps, samples_until
from joyflash_cli.media.outputs.writer import open_muxer
from joyflash_cli.types import AudioClip, SoundFormat

from .videos import check_flash_and_click, decode_sound, names, noise_frames, tone


def flash_and_click(num_frames: int = 50, flash: int = 30, rate_hz: int = 16_000):
    samples = np.zeros((samples_until(num_frames, rate_hz, exact_fps(25)), 1), np.float32)
    samples[samples_until(flash, rate_hz, exact_fps(25))] = 0.9
    frames = np.zeros((num_frames, 48, 64, 3), np.uint8)
    frames[flash] = 255
    return frames, AudioClip(samples, rate_hz)


def write_in_chunks(muxer, frames: np.ndarray, audio: AudioClip) -> None:
    """Frames and sound together, as a stream gives them: 9, 12, 12, ... frames."""
    start, taken = 0, 0
    while start < len(frames):
        stop = min(start + (12 if start else 9), len(frames))
        until = samples_until(stop, audio.sample_rate_hz, exact_fps(25))
        until = len(audio.samples) if stop == len(frames) else until
        sound = AudioClip(audio.samples[taken:until], audio.sample_rate_hz)
        muxer.write(frames[start:stop], sound)
        start, taken = stop, until


def check_played(source, num_frames: int = 50, flash: int = 30) -> None:
    """Every frame is there, the flash in its place and the click at its time."""
    with av.open(source) as container:
        shown = [
            (float(frame.pts * frame.time_base), frame.to_ndarray(format="gray").mean())
            for frame in container.decode(video=0)
        ]
    times, levels = zip(*shown, strict=True)
    assert len(levels) == num_frames
    assert int(np.argmax(levels)) == flash
    np.testing.assert_allclose(np.diff(times), 1 / 25, atol=1e-4)
    first_s, rate_hz, sound = decode_sound(source)
    click_s = first_s + np.abs(sound[0]).argmax() / rate_hz
    assert click_s == pytest.approx(times[flash], abs=0.0005)
    assert times[0] <= 0.022


class Pipe(io.RawIOBase):
    """Takes at most 1000 bytes at a time and keeps them; cannot seek."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.data += bytes(data[:1_000])
        return min(len(data), 1_000)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".mov"])
def test_sound_that_comes_with_the_frames_lies_right(tmp_path, suffix):
    frames, audio = flash_and_click()
    path = tmp_path / f"a{suffix}"
    with open_muxer(path, size=(64, 48), fps=25, audio=SoundFormat(16_000, 1)) as muxer:
        write_in_chunks(muxer, frames, audio)
        assert muxer.finish().num_frames == 50
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    assert int(np.argmax(pictures)) == 30
    first_s, rate_hz, sound = decode_sound(path)
    assert first_s + np.abs(sound[0]).argmax() / rate_hz == pytest.approx(1.2, abs=0.0007)


def test_flash_and_click_coincide_on_a_pipe(tmp_path):
    frames, audio = flash_and_click()
    pipe = Pipe()
    metadata = {"comment": "AI-generated"}
    with open_muxer(
        pipe, size=(64, 48), fps=25, audio=SoundFormat(16_000, 1), metadata=metadata
    ) as muxer:
        write_in_chunks(muxer, frames, audio)
        assert muxer.finish() is None
    assert not pipe.closed
    assert b"mfra" not in pipe.data  # the index of a stream would grow for as long as it lasts
    path = tmp_path / "a.mp4"
    path.write_bytes(pipe.data)
    check_played(str(path))
    with av.open(str(path)) as container:
        assert container.metadata["comment"] == "AI-generated"


def test_frames_leave_a_pipe_at_once(tmp_path):
    """What was written so far plays but for the frames of one unfinished fragment."""
    frames, audio = flash_and_click()
    pipe = Pipe()
    with open_muxer(pipe, size=(64, 48), fps=25, audio=SoundFormat(16_000, 1)) as muxer:
        muxer.write(frames[:9], AudioClip(audio.samples[: 9 * 640], 16_000))
        (tmp_path / "a.mp4").write_bytes(pipe.data)
        with av.open(str(tmp_path / "a.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) >= 7
        assert muxer.keep_partial() is None  # ended properly, under no other name
    (tmp_path / "b.mp4").write_bytes(pipe.data)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 9


def test_a_reader_that_leaves_is_a_broken_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as stream, pytest.raises(BrokenPipeError):  # noqa: PT012, SIM117
        with open_muxer(stream, size=(64, 48), fps=25) as muxer:
            for _ in range(20):
                muxer.write(noise_frames(12))


def test_a_full_device_is_an_output_error():
    class Full(Pipe):
        def write(self, data) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError) as caught, open_muxer(Full(), size=(64, 48), fps=25) as muxer:  # noqa: PT012
        for _ in range(20):
            muxer.write(noise_frames(12))
    assert (caught.value.code, caught.value.exit_code) == ("E-OUTPUT-FULL", 6)


def test_hls_plays_while_it_grows(tmp_path):
    frames, audio = flash_and_click(num_frames=80)
    path = tmp_path / "a%b.m3u8"
    with open_muxer(path, size=(64, 48), fps=25, audio=SoundFormat(16_000, 1)) as muxer:
        write_in_chunks(muxer, frames, audio)
        growing = path.read_text()
        assert growing.count("#EXTINF") >= 2
        assert "#EXT-X-ENDLIST" not in growing
        shutil.copytree(tmp_path, tmp_path.with_name("killed"))
        muxer.finish()
    finished = path.read_text()
    assert finished.count("#EXTINF") == 4
    assert "#EXT-X-ENDLIST" in finished
    assert str(tmp_path) not in finished  # the folder can be moved
    segments = [f"a_b-{i:05d}.m4s" for i in range(4)]
    assert names(tmp_path) == ["a%b.m3u8", *segments, "a_b-init.mp4"]
    check_played(str(path), num_frames=80)
    killed = tmp_path.with_name("killed") / path.name
    with av.open(str(killed), options={"live_start_index": "0"}) as container:
        shown = 0
        for _ in container.decode(video=0):
            shown += 1
            if shown == 50:
                break
    assert shown == 50


def test_hls_needs_a_folder_without_a_percent_sign(tmp_path):
    folder = tmp_path / "100%"
    folder.mkdir()
    with pytest.raises(OutputError, match="percent"):
        open_muxer(folder / "a.m3u8", size=(64, 48), fps=25)
    assert names(folder) == []


def test_hls_replaces_nothing_silently_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.m3u8"
    with open_muxer(path, size=(64, 48), fps=25, audio=tone(10.0)) as muxer:
        muxer.write(noise_frames(60))
        assert muxer.keep_partial() == path
    assert "#EXT-X-ENDLIST" in path.read_text()
    before = names(tmp_path)
    with pytest.raises(OutputError) as caught:
        open_muxer(path, size=(64, 48), fps=25)
    assert caught.value.code == "E-OUTPUT-EXISTS"
    path.unlink()
    with pytest.raises(OutputError, match="and 3 other files of this output exist already"):
        open_muxer(path, size=(64, 48), fps=25)
    (tmp_path / "a-notes.txt").write_text("mine")
    with open_muxer(path, size=(64, 48), fps=25, overwrite=True) as muxer:
        muxer.write(noise_frames(30))
    assert names(tmp_path) == ["a-notes.txt"]
    assert len(before) == 5  # three segments, their head and the playlist


@pytest.mark.parametrize(("suffix", "slack"), [(".png", 0), (".webp", 0), (".jpg", 60)])
def test_pictures_are_the_frames_themselves(tmp_path, suffix, slack):
    from PIL import Image

    frames = noise_frames(5, 33, 35)
    audio = tone(0.2, 44_100, 2)
    pattern = tmp_path / f"face-%03d{suffix}"
    metadata = {"comment": "AI-generated é"}
    with open_muxer(
        pattern, size=(33, 35), fps=25, audio=SoundFormat(44_100, 2), metadata=metadata
    ) as muxer:
        muxer.write(frames[:2], AudioClip(audio.samples[:3_528], 44_100))
        muxer.write(frames[2:], AudioClip(audio.samples[3_528:], 44_100))
        muxer.finish()
    assert names(tmp_path) == [*(f"face-{i:03d}{suffix}" for i in range(5)), "face-sound.wav"]
    for index, expected in enumerate(frames):
        with Image.open(tmp_path / f"face-{index:03d}{suffix}") as picture:
            shown = np.asarray(picture.convert("RGB")).astype(int)
            if suffix == ".png":
                assert picture.info["Comment"] == "AI-generated é"
        assert np.abs(shown - expected).mean() <= slack
        assert slack or np.array_equal(shown, expected)
    _, rate_hz, sound = decode_sound(tmp_path / "face-sound.wav")
    assert rate_hz == 44_100
    np.testing.assert_array_equal(sound.T, audio.samples)


def test_pictures_stay_and_are_not_replaced(tmp_path):
    pattern = tmp_path / "%04d.png"
    with open_muxer(pattern, size=(64, 48), fps=25, audio=tone(1.0)) as muxer:
        muxer.write(noise_frames(2))
        assert muxer.keep_partial() == pattern
    assert names(tmp_path) == ["0000.png", "0001.png", "sound.wav"]
    with pytest.raises(OutputError) as caught:
        open_muxer(pattern, size=(64, 48), fps=25)
    assert caught.value.code == "E-OUTPUT-EXISTS"
    with open_muxer(tmp_path / "n-%d.png", size=(64, 48), fps=25, audio=tone(1.0)):
        pass
    assert names(tmp_path) == ["0000.png", "0001.png", "sound.wav"]


def test_sound_is_given_in_pieces_of_any_length():
    samples = np.arange(1_000, dtype=np.float32)[:, None] / 1_000
    track = SoundTrack(SoundFormat(16_000, 1), exact_fps(25))
    for part in np.array_split(samples, [1, 7, 700]):
        track.add(AudioClip(part, 16_000))
    assert len(track.take(1)) == 640
    assert track.duration_s == 1_000 / 16_000
    np.testing.assert_array_equal(track.take(2)[:, 0], samples[640:, 0])
    assert len(track.take(3)) == 0
    with pytest.raises(ValueError, match="channels"):
        track.add(AudioClip(np.zeros((1, 2), np.float32), 16_000))


def test_a_cut_fragment_is_dropped(tmp_path):
    pipe = Pipe()
    with open_muxer(pipe, size=(64, 48), fps=25, audio=tone(4.0)) as muxer:
        muxer.write(noise_frames(100))
        path = tmp_path / "a.mp4"
        path.write_bytes(pipe.data[:-500])
    drop_cut_fragment(path)
    assert 0 < path.stat().st_size < len(pipe.data) - 500
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 80
    for data in (b"", b"nothing of that kind", pipe.data[:40]):
        path.write_bytes(data)
        drop_cut_fragment(path)
        assert path.read_bytes() == data


def test_an_ordinary_mp4_has_no_fragments_to_drop(tmp_path):
    path = tmp_path / "a.mp4"
    check_flash_and_click(path, 25, 16_000, 1)
    before = path.read_bytes()
    drop_cut_fragment(path)
    assert path.read_bytes() == before
