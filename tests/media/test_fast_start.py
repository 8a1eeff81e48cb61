"""The index of finished files stands before their pictures, and all else stays as it was."""

import errno
import os
from fractions import Fraction

import av
import numpy as np
import pytest

from joyflash_cli.media.outputs import mp4_boxes
from joyflash_cli.media.outputs.mp4_boxes import write_fast_start
from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.media.outputs.writer import open_muxer

from .videos import decode_frames, decode_sound, names, noise_frames, tone


def boxes(data: bytes) -> list[bytes]:
    kinds, position = [], 0
    while position < len(data):
        kinds.append(data[position + 4 : position + 8])
        position += int.from_bytes(data[position : position + 4], "big")
    assert position == len(data)
    return kinds


def written(path, **options):
    with open_muxer(path, size=(64, 48), fps=25, audio=tone(2.0), **options) as muxer:
        for start in range(0, 50, 12):
            muxer.write(noise_frames(50)[start : start + 12])
        muxer.finish()
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov"])
def test_the_index_comes_first(tmp_path, suffix):
    path = written(tmp_path / f"a{suffix}", metadata={"comment": "AI-generated"})
    kinds = boxes(path.read_bytes())
    assert kinds.index(b"moov") < kinds.index(b"mdat")
    assert names(tmp_path) == [path.name]
    info = probe(path)
    assert (info.num_frames, info.video_s, info.audio_s) == (50, 2.0, 2.0)
    assert info.metadata["comment"] == "AI-generated"
    times, _ = decode_frames(path)
    assert times == [Fraction(index, 25) for index in range(50)]


def test_nothing_else_changes(tmp_path, monkeypatch):
    front = written(tmp_path / "front.mp4")
    monkeypatch.setattr("joyflash_cli.media.outputs.file_writer.write_fast_start", lambda *_: False)
    behind = written(tmp_path / "behind.mp4")
    assert boxes(behind.read_bytes())[-1] == b"moov"
    assert front.stat().st_size == behind.stat().st_size
    assert front.stat().st_mode == behind.stat().st_mode
    for decode in (lambda p: decode_frames(p)[1], lambda p: decode_sound(p)[2]):
        np.testing.assert_array_equal(decode(front), decode(behind))
    assert not write_fast_start(front, tmp_path / "again.mp4")
    assert names(tmp_path) == ["behind.mp4", "front.mp4"]


def test_places_beyond_4_gb(tmp_path, monkeypatch):
    """Places of 64 bits: the index grows, and everything is still found."""
    monkeypatch.setattr(mp4_boxes, "_MAX_32_BIT", 1_000)
    path = written(tmp_path / "a.mp4")
    index = path.read_bytes().partition(b"mdat")[0]
    assert index.count(b"co64") == 2
    assert b"stco" not in index
    assert len(decode_frames(path)[0]) == 50
    assert decode_sound(path)[2].shape[1] >= 96_000


def test_no_room_for_both_keeps_the_one(tmp_path, monkeypatch):
    def full(source, target):
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("joyflash_cli.media.outputs.file_writer.write_fast_start", full)
    path = written(tmp_path / "a.mp4")
    assert names(tmp_path) == ["a.mp4"]
    assert probe(path).num_frames == 50


@pytest.mark.parametrize("data", [b"", b"nothing of that kind", b"\0\0\0\x08ftyp\0\0\0\x08moov"])
def test_what_is_no_mp4_is_left_alone(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    assert not write_fast_start(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == ["a"]


def test_a_playlist_begins_at_zero(tmp_path):
    path = written(tmp_path / "a.m3u8")
    with av.open(str(path), options={"live_start_index": "0"}) as container:
        first = next(container.decode(video=0))
        assert first.pts == 0
    with av.open(str(path), options={"live_start_index": "0"}) as container:
        sound = list(container.decode(audio=0))
    assert sound[0].pts == 0
    assert 2.0 <= sum(frame.samples for frame in sound) / 48_000 < 2.0 + 1_024 / 48_000


def test_a_part_that_was_kept_has_it_too(tmp_path):
    with open_muxer(tmp_path / "a.mp4", size=(64, 48), fps=25, audio=tone(2.0)) as muxer:
        muxer.write(noise_frames(30))
        partial = muxer.keep_partial()
    kinds = boxes(partial.read_bytes())
    assert kinds.index(b"moov") < kinds.index(b"mdat")
    assert names(tmp_path) == ["a.partial.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm", ".m3u8", "-%d.png", "pipe"])
@pytest.mark.parametrize("output_fps", [1, 1.5, 2, 23.98])
def test_low_rates_keep_the_end_of_the_sound(tmp_path, suffix, output_fps):
    from joyflash_cli.types import AudioClip

    path = tmp_path / ("a.mp4" if suffix == "pipe" else f"a{suffix}")
    sound = tone(2.0)
    sound.samples[-800:] = 0.9
    target = path.open("wb") if suffix == "pipe" else path
    options = {"size": (64, 48), "fps": output_fps, "given_fps": 25}
    with open_muxer(target, audio=AudioClip(sound.samples[:0], 16_000), **options) as muxer:
        for start in range(0, 50, 12):
            piece = sound.samples[start * 640 : (start + 12) * 640]
            muxer.write(noise_frames(50)[start : start + 12], AudioClip(piece, 16_000))
        muxer.finish()
    if suffix == "pipe":
        target.close()
    heard = tmp_path / "a-sound.wav" if suffix == "-%d.png" else path
    _, rate_hz, samples = decode_sound(heard)
    assert 2.0 <= samples.shape[1] / rate_hz + 0.001 < 2.03
    assert np.abs(samples[:, round(1.96 * rate_hz) : round(1.99 * rate_hz)]).mean() > 0.3


@pytest.mark.parametrize("num_frames", [9, 10, 11, 12, 33])
def test_players_show_every_picture(tmp_path, num_frames):
    """The picture encoded last need not be the last one: players go by the edit list."""
    path = tmp_path / "a.mp4"
    still = np.full((num_frames, 48, 64, 3), 90, np.uint8)
    still[:, 10:20, 10:20] += np.arange(num_frames, dtype=np.uint8)[:, None, None, None]
    with open_muxer(path, size=(64, 48), fps=25, audio=tone(num_frames / 25)) as muxer:
        muxer.write(still)
        muxer.finish()
    assert len(decode_frames(path)[0]) == num_frames
