"""What encoders add to a sound is no part of it: as long as it was, in every container."""

import io
import subprocess

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from joyflash_cli.media.inputs.audio import read_audio, write_wav
from joyflash_cli.media.inputs.sound import LiveSound
from joyflash_cli.types import AudioClip

RATE_HZ = 16_000
FRAGMENTED = ("-movflags", "frag_keyframe+empty_moov")
CASES = [
    ("a.mkv", ("-c:a", "aac")),
    ("a.m4a", ("-c:a", "aac")),
    ("a.mov", ("-c:a", "aac")),
    ("fragmented.m4a", ("-c:a", "aac", *FRAGMENTED)),
    ("delayed.m4a", ("-c:a", "aac", "-movflags", "frag_keyframe+delay_moov")),
    ("a.mp4", ("-c:a", "libopus")),
    ("a.webm", ("-c:a", "libopus")),
    ("mp3.mp4", ("-c:a", "libmp3lame")),
    ("a.mp3", ("-c:a", "libmp3lame")),
    ("flac.mkv", ("-c:a", "flac")),
]


@pytest.fixture(scope="module")
def click(tmp_path_factory):
    """A quiet tone of 1.5 s with a click at 0.75 s."""
    samples = 0.05 * np.sin(np.arange(24_000) * 0.1).astype(np.float32)[:, None]
    samples[12_000] = 0.95
    path = tmp_path_factory.mktemp("click") / "click.wav"
    write_wav(path, AudioClip(samples, RATE_HZ))
    return path


def converted(source, target, *options):
    subprocess.run(
        [get_ffmpeg_exe(), "-loglevel", "error", "-i", str(source), *options, str(target)],
        check=True,
    )
    return target


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_sound_keeps_its_length(click, tmp_path, name, options):
    found = read_audio(converted(click, tmp_path / name, *options))
    assert found.duration_s == 1.5
    assert abs(np.abs(found.samples[:, 0]).argmax() / found.sample_rate_hz - 0.75) < 0.005


def test_a_track_that_says_nothing_of_its_beginning(click, tmp_path):
    """As other programs copy it: neither an edit list nor a codec delay."""
    fragmented = converted(click, tmp_path / "a.m4a", "-c:a", "aac", *FRAGMENTED)
    copied = read_audio(converted(fragmented, tmp_path / "a.mkv", "-c", "copy"))
    assert abs(copied.duration_s - 1.5) <= 0.001


def test_a_moment_of_sound_is_left(click, tmp_path):
    for name in ("a.m4a", "a.mkv"):
        path = converted(click, tmp_path / name, "-t", "0.01", "-c:a", "aac")
        assert read_audio(path).duration_s == 0.01


def test_a_pipe_is_heard_as_the_file_is(click, tmp_path):
    for name, options in CASES[:4:3]:
        data = converted(click, tmp_path / name, *options).read_bytes()

        class Pipe(io.BytesIO):
            def seekable(self) -> bool:
                return False

        heard = LiveSound(Pipe(data)).open(lambda: None)
        num_samples = sum(len(piece) for piece in heard.pieces)
        assert num_samples / heard.format.sample_rate_hz == 1.5
