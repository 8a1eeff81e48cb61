"""Sound from files, pipes and memory: the same samples, checked before or while they are heard."""

import hashlib
import os
import threading
from fractions import Fraction

import numpy as np
import pytest

from joyflash_cli.errors import AudioError
from joyflash_cli.media.inputs.audio import ModelResampler, read_audio, to_model_waveform
from joyflash_cli.media.inputs.hearing import PcmFormat
from joyflash_cli.media.inputs.sound import ClipSound, LiveSound, check_sound_file
from joyflash_cli.types import AudioClip, SoundFormat

from .sounds import PipeStream, ramp_pcm16, wav_bytes


def all_of(sound) -> np.ndarray:
    return np.concatenate(list(sound.open().pieces))


def encoded(path, codec: str, rate_hz: int = 48_000):
    import av

    time_s = np.arange(rate_hz) / rate_hz
    samples = (0.5 * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_file_pipe_and_memory_sound_the_same(tmp_path):
    samples, data = ramp_pcm16(40_000)
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(data, channels=2, rate_hz=44_100))
    file = check_sound_file(path)
    assert (file.format, file.num_samples) == (SoundFormat(44_100, 2), 20_000)
    assert not file.is_silent
    clip = read_audio(path)
    for sound in (file, ClipSound(clip), LiveSound(PipeStream(path.read_bytes()))):
        np.testing.assert_array_equal(all_of(sound), clip.samples)
    np.testing.assert_array_equal(all_of(file), clip.samples)  # as often as one likes


@pytest.mark.parametrize(
    ("codec", "suffix"), [("flac", ".flac"), ("libmp3lame", ".mp3"), ("libopus", ".ogg")]
)
def test_compressed_sound_streams_too(tmp_path, codec, suffix):
    path = encoded(tmp_path / f"a{suffix}", codec)
    expected = read_audio(path).samples
    np.testing.assert_array_equal(all_of(check_sound_file(path)), expected)
    live = all_of(LiveSound(PipeStream(path.read_bytes())))
    # A pipe cannot be asked for what stands at its end (padding to cut off).
    np.testing.assert_array_equal(live[: len(expected)], expected)
    assert len(live) - len(expected) < 2_500


def test_the_bytes_of_a_file_are_hashed_as_they_are(tmp_path):
    path = tmp_path / "a.wav"
    for number in (5_000, 6_000):  # the second time it has changed since it was checked
        path.write_bytes(wav_bytes(ramp_pcm16(number)[1]))
        sound = sound if number > 5_000 else check_sound_file(path)
        assert sound.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    known = sound.sha256
    path.unlink()
    assert sound.sha256 == known


def test_what_was_checked_is_heard_whatever_its_name_means_now(tmp_path):
    path, other = tmp_path / "a.wav", tmp_path / "b.wav"
    path.write_bytes(wav_bytes(ramp_pcm16(5_000)[1]))
    other.write_bytes(wav_bytes(bytes(6_000)))
    expected, sound = read_audio(path).samples, check_sound_file(path)
    digest = sound.sha256
    other.replace(path)
    np.testing.assert_array_equal(all_of(sound), expected)
    assert sound.sha256 == digest


def test_a_checked_file_is_closed_with_its_value(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(ramp_pcm16(500)[1]))
    sound = check_sound_file(path)
    all_of(sound)
    file = sound.file
    assert not file.closed
    del sound
    assert file.closed


def test_the_bytes_of_a_pipe_are_hashed():
    data = wav_bytes(ramp_pcm16(5_000)[1])
    sound = LiveSound(PipeStream(data))
    all_of(sound)
    assert sound.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "E-AUDIO-EMPTY"),
        (b"ffconcat version 1.0\nfile secret.wav\n", "E-AUDIO-FORMAT"),
        (b"#EXTM3U\n#EXTINF:10,\nsecret.wav\n", "E-AUDIO-FORMAT"),
        (wav_bytes(bytes(200))[:30], "E-AUDIO-FORMAT"),
        (wav_bytes(bytes(200), rate_hz=3_000_000), "E-AUDIO-RATE"),
        (wav_bytes(bytes(200), rate_hz=0), "E-AUDIO-RATE"),
        (wav_bytes(bytes(180), channels=9), "E-AUDIO-FORMAT"),
    ],
)
def test_what_is_no_sound_is_told_at_the_beginning(tmp_path, data, code):
    with pytest.raises(AudioError) as caught:
        LiveSound(PipeStream(data)).open()
    assert caught.value.code == code
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with pytest.raises(AudioError) as caught:
        check_sound_file(path)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_a_checked_file_has_sound_and_numbers_only(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(b"\1"))
    with pytest.raises(AudioError) as caught:
        check_sound_file(path)
    assert caught.value.code == "E-AUDIO-EMPTY"
    samples = np.zeros(16_000, "<f4")
    samples[4_000] = np.nan
    path.write_bytes(wav_bytes(samples.tobytes(), bits=32, format_tag=3))
    with pytest.raises(AudioError, match=r"0\.250 s"):
        check_sound_file(path)
    with pytest.raises(AudioError, match="no such file"):
        check_sound_file(tmp_path / "http:" / "a.wav")
    path.write_bytes(wav_bytes(bytes(3_000)))
    assert check_sound_file(path).is_silent


def test_a_file_without_a_header_is_what_it_is_said_to_be(tmp_path):
    path = tmp_path / "a.pcm"
    path.write_bytes(np.float64([[0.5, -0.5], [2.0, 0.0]]).tobytes())
    sound = check_sound_file(path, PcmFormat("f64le", 8_000, 2))
    np.testing.assert_array_equal(all_of(sound), np.float32([[0.5, -0.5], [1.0, 0.0]]))


def test_waiting_for_a_pipe_can_be_interrupted():
    reader, writer = os.pipe()

    class Enough(Exception):
        pass

    is_enough = threading.Event()

    def check():
        if is_enough.is_set():
            raise Enough

    samples, data = ramp_pcm16(100)
    os.write(writer, wav_bytes(data, stated_size=0))
    with os.fdopen(reader, "rb") as stream:
        pieces = LiveSound(stream).open(check).pieces
        np.testing.assert_array_equal(next(pieces)[:, 0] * 32768, samples)
        timer = threading.Timer(0.3, is_enough.set)
        timer.start()
        with pytest.raises(Enough):  # the writer is still there, but says nothing
            next(pieces)
        timer.join()
    os.close(writer)


def test_samples_are_there_as_soon_as_they_arrive():
    """The reader must not wait for a full buffer: each write is heard before the next is made."""
    reader, writer = os.pipe()
    samples, data = ramp_pcm16(1_000)
    heard: list[np.ndarray] = []
    step = threading.Semaphore(0)

    def write():
        os.write(writer, wav_bytes(b"", stated_size=0xFFFFFFFF))
        for start in range(0, len(data), 100):
            os.write(writer, data[start : start + 100])
            step.acquire(timeout=30)
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reader, "rb") as stream:
        for piece in LiveSound(stream).open().pieces:
            heard.append(piece)
            step.release()
    thread.join()
    assert len(heard) >= 20
    np.testing.assert_array_equal(np.concatenate(heard)[:, 0] * 32768, samples)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 44_099])
@pytest.mark.parametrize("sizes", [[1, 7, 1_000, 333], [160], [50_000]])
def test_what_the_model_hears_does_not_depend_on_the_pieces(rate_hz, sizes):
    samples = np.random.default_rng(0).uniform(-1, 1, (rate_hz // 2, 2)).astype(np.float32)
    expected = to_model_waveform(AudioClip(samples, rate_hz))
    resampler, parts, start, index = ModelResampler(rate_hz), [], 0, 0
    while start < len(samples):
        size = sizes[index % len(sizes)]
        parts.append(resampler.push(samples[start : start + size]))
        start, index = start + size, index + 1
    parts.append(resampler.finish())
    np.testing.assert_array_equal(np.concatenate(parts), expected)


@pytest.mark.parametrize("loud_at", [0, 39_000])
def test_the_length_of_a_file_is_counted_whatever_follows(tmp_path, loud_at):
    """Beyond the first loud sample nothing is decoded; chunks behind the sound do not count."""
    samples = np.zeros(40_000, "<i2")
    samples[loud_at] = 20_000
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(samples.tobytes()) + b"LIST\x06\0\0\0INFOab")
    sound = check_sound_file(path)
    assert (sound.num_samples, sound.is_silent) == (40_000, False)
    assert len(all_of(sound)) == 40_000
