"""What is left when an MP4 cannot be finished: killed, disk full, closing fails, old library."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from joyflash_cli.errors import OutputError
from joyflash_cli.media.outputs import file_writer
from joyflash_cli.media.outputs.probe import probe
from joyflash_cli.media.outputs.writer import open_muxer

from .videos import check_flash_and_click, decode_frames, names, noise_frames

WRITER = """
import os, resource, signal, sys
import numpy as np
from pathlib import Path
from joyflash_cli.errors import OutputError
from joyflash_cli.media.outputs.writer import open_muxer
from joyflash_cli.types import AudioClip

path, limit_bytes = Path(sys.argv[1]), int(sys.argv[2])
sound = np.sin(np.arange(20 * 16000) * 0.1).astype(np.float32)[:, None] * 0.5
muxer = open_muxer(path, size=(64, 48), fps=25, audio=AudioClip(sound, 16000))
if limit_bytes:  # the system then refuses writes beyond it, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
rng = np.random.default_rng(0)
try:
    for _ in range(200):
        muxer.write(rng.integers(0, 256, (1, 48, 64, 3), dtype=np.uint8))
    if limit_bytes:
        muxer.finish()
except OutputError as error:
    print(error.code, error.exit_code)
    sys.exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def run_writer(path: Path, limit_bytes: int) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", WRITER, str(path), str(limit_bytes)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_killed_process_leaves_a_playable_part(tmp_path, suffix):
    done = run_writer(tmp_path / f"a.{suffix}", 0)
    assert done.returncode == -9
    assert names(tmp_path) == [f".a.part.{suffix}"]
    times, _ = decode_frames(tmp_path / f".a.part.{suffix}")
    assert len(times) >= 200 - 25  # a second at most is lost
    info = probe(tmp_path / f".a.part.{suffix}")
    assert abs(info.audio_s - info.video_s) < 0.5
    # The next run takes the name over.
    path = tmp_path / f"a.{suffix}"
    with open_muxer(path, size=(64, 48), fps=25, overwrite=True) as muxer:
        muxer.write(noise_frames(2))
        muxer.finish()
    assert names(tmp_path) == [f"a.{suffix}"]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_full_disk_keeps_the_playable_part(tmp_path, suffix):
    done = run_writer(tmp_path / f"a.{suffix}", 300_000)
    assert done.stdout.split() == ["E-OUTPUT-FULL", "6"], done.stderr
    assert names(tmp_path) == [f"a.partial.{suffix}"]
    times, _ = decode_frames(tmp_path / f"a.partial.{suffix}")
    assert len(times) >= 25


def test_disk_full_from_the_start_leaves_nothing(tmp_path):
    done = run_writer(tmp_path / "a.mp4", 100)
    assert done.stdout.split() == ["E-OUTPUT-FULL", "6"], done.stderr
    assert names(tmp_path) == []


def test_failure_while_closing_is_not_swallowed(tmp_path, monkeypatch):
    with open_muxer(tmp_path / "a.mp4", size=(64, 48), fps=25) as muxer:
        muxer.write(noise_frames(2))

        class Full:
            def mux(self, packets):
                raise OSError(28, "No space left on device")

            def close(self):
                raise OSError(28, "No space left on device")

        tracks = muxer.tracks
        whole, tracks._container = tracks._container, Full()
        with pytest.raises(OutputError) as caught:
            muxer.finish()
        whole.close()
    assert caught.value.code == "E-OUTPUT-FULL"
    assert not (tmp_path / "a.mp4").exists()


def test_old_libavformat_falls_back_to_plain_fragments(tmp_path, monkeypatch):
    flags = file_writer._MOVFLAGS
    monkeypatch.setattr(file_writer, "_MOVFLAGS", ("no_such_flag", *flags[1:]))
    file_writer._movflags.cache_clear()
    try:
        assert file_writer._movflags() == flags[1]
        check_flash_and_click(tmp_path / "a.mp4", 25, 16_000, 1)
    finally:
        monkeypatch.undo()
        file_writer._movflags.cache_clear()
    assert file_writer._movflags() == flags[0]


def test_pauses_between_frames_change_no_byte(tmp_path):
    """Several threads inside the encoder gave other bytes now and then."""
    rng = np.random.default_rng(0)
    rows = np.arange(64)[:, None, None]
    base = rng.integers(0, 255, (64, 64, 3)) * 0.5 + 60
    frames = [base + 40 * np.sin(i / 3 + rows / 9) for i in range(10)]
    clip = np.stack(frames).clip(0, 255).astype(np.uint8)
    written = set()
    for round_ in range(30):
        with open_muxer(tmp_path / f"{round_}.mp4", size=(64, 64), fps=25) as muxer:
            for frame in clip:
                muxer.write(frame[None])
                time.sleep(rng.choice([0, 0.0005, 0.003]))
            muxer.finish()
        written.add((tmp_path / f"{round_}.mp4").read_bytes())
    assert len(written) == 1
