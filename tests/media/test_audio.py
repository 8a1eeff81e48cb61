import io
import os
import struct
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joyflash_cli.errors import AudioError
from joyflash_cli.media.inputs import audio_decoding
from joyflash_cli.media.inputs.audio import is_silent, read_audio, to_model_waveform, write_wav
from joyflash_cli.types import AudioClip

from .sounds import PipeStream, ramp_pcm16, wav_bytes

STREAMS = [io.BytesIO, PipeStream]


def error_of(source) -> AudioError:
    with pytest.raises(AudioError) as caught:
        read_audio(source)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    return caught.value


def encode(path: Path, samples: np.ndarray, codec: str, rate_hz: int, **options) -> Path:
    """Writes ``(n, channels)`` float samples through PyAV in any codec."""
    import av

    layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
    with av.open(str(path), mode="w", options=options) as container:
        stream = container.add_stream(codec, rate=rate_hz, layout=layout)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T.astype(np.float32)), format="fltp", layout=layout
        )
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("stated_size", [None, 0, 0xFFFFFFFF, 0x7FFFFFFF, 1_000_000])
def test_wav_header_size_is_not_trusted(stream, stated_size):
    samples, data = ramp_pcm16()
    clip = read_audio(stream(wav_bytes(data, stated_size=stated_size)))
    assert clip.sample_rate_hz == 16_000
    assert clip.samples.dtype == np.float32
    np.testing.assert_array_equal(clip.samples[:, 0] * 32768, samples)


@pytest.mark.parametrize("stated_size", [None, 0xFFFFFFFF])
@pytest.mark.parametrize("num_samples", [2048, 16_000])
def test_odd_last_byte_is_dropped(stated_size, num_samples):
    samples, data = ramp_pcm16(num_samples)
    clip = read_audio(PipeStream(wav_bytes(data + b"\x55", stated_size=stated_size)))
    np.testing.assert_array_equal(clip.samples[:, 0] * 32768, samples)


def test_long_chunk_before_the_data():
    samples, data = ramp_pcm16()
    pad = b"pad " + struct.pack("<I", 130_000) + bytes(130_000)
    clip = read_audio(PipeStream(wav_bytes(data, before_data=pad)))
    np.testing.assert_array_equal(clip.samples[:, 0] * 32768, samples)


def test_standard_input_of_another_process():
    samples, data = ramp_pcm16(5_000)
    code = (
        "import sys; from joyflash_cli.media.inputs.audio import read_audio;"
        "c = read_audio(sys.stdin.buffer); print(c.samples.shape, float(c.samples[17, 0]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=wav_bytes(data, stated_size=0),
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.decode().split("\n")[0] == f"(5000, 1) {samples[17] / 32768}"
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("codec", "suffix", "rate_hz", "channels", "tolerance"),
    [
        ("pcm_u8", ".wav", 8_000, 1, 1 / 100),
        ("pcm_s16le", ".wav", 22_050, 2, 1e-4),
        ("pcm_s24le", ".wav", 44_100, 2, 1e-6),
        ("pcm_s32le", ".wav", 96_000, 1, 1e-6),
        ("pcm_f32le", ".wav", 48_000, 6, 0),
        ("pcm_f64le", ".wav", 48_000, 1, 1e-7),
        ("pcm_s24be", ".aiff", 44_100, 1, 1e-6),
        ("flac", ".flac", 44_100, 2, 1e-4),
        ("flac", ".mkv", 44_100, 2, 1e-4),
        ("pcm_s16le", ".w64", 16_000, 1, 1e-4),
        ("pcm_s16le", ".caf", 16_000, 1, 1e-4),
    ],
)
def test_lossless_codecs_keep_every_sample(tmp_path, codec, suffix, rate_hz, channels, tolerance):
    rng = np.random.default_rng(0)
    samples = rng.uniform(-0.9, 0.9, (rate_hz // 4, channels)).astype(np.float32)
    clip = read_audio(encode(tmp_path / f"sound{suffix}", samples, codec, rate_hz))
    assert clip.sample_rate_hz == rate_hz
    assert clip.samples.shape == samples.shape
    np.testing.assert_allclose(clip.samples, samples, atol=tolerance)


@pytest.mark.parametrize(
    ("codec", "suffix", "slack_samples"),
    [("adpcm_ms", ".wav", 2_048), ("libmp3lame", ".mp3", 0), ("aac", ".m4a", 1_024),
     ("aac", ".aac", 2_048), ("libopus", ".webm", 960), ("libopus", ".ogg", 960)],
)  # fmt: skip
def test_lossy_codecs_keep_length_and_time(tmp_path, codec, suffix, slack_samples):
    rate_hz = 48_000
    time_s = np.arange(rate_hz) / rate_hz
    envelope = np.exp(-(((time_s - 0.4) / 0.01) ** 2))
    samples = (0.8 * envelope * np.sin(2 * np.pi * 700 * time_s))[:, None]
    clip = read_audio(encode(tmp_path / f"sound{suffix}", samples, codec, rate_hz))
    assert 0 <= len(clip.samples) - len(samples) <= slack_samples
    energy = clip.samples[:, 0].astype(np.float64) ** 2
    centre_s = (energy * np.arange(len(energy))).sum() / energy.sum() / rate_hz
    # Raw ADTS has no field for its 1024 samples of priming; every other container has.
    assert centre_s == pytest.approx(0.4, abs=0.022 if suffix == ".aac" else 0.001)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "E-AUDIO-EMPTY"),
        (wav_bytes(b""), "E-AUDIO-EMPTY"),
        (wav_bytes(b"\1"), "E-AUDIO-EMPTY"),
        (wav_bytes(bytes(200), rate_hz=3_000_000), "E-AUDIO-RATE"),
        (wav_bytes(bytes(200), rate_hz=100), "E-AUDIO-RATE"),
        (wav_bytes(bytes(200), rate_hz=0), "E-AUDIO-RATE"),
        (wav_bytes(bytes(180), channels=9), "E-AUDIO-FORMAT"),
        (wav_bytes(bytes(200))[:20], "E-AUDIO-FORMAT"),
        (bytes(range(256)) * 50, "E-AUDIO-FORMAT"),
        (b"hello, this is not sound\n" * 100, "E-AUDIO-FORMAT"),
        (b"#EXTM3U\n#EXTINF:10,\nsecret.wav\n", "E-AUDIO-FORMAT"),
    ],
)
def test_bad_bytes_have_their_code(data, code):
    assert error_of(io.BytesIO(data)).code == code
    assert error_of(PipeStream(data)).code == code


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_sample_that_is_not_a_number_is_told_with_its_time(bad):
    samples = np.zeros((16_000, 2), "<f4")
    samples[4_000, 1] = bad
    data = wav_bytes(samples.tobytes(), channels=2, bits=32, format_tag=3)
    error = error_of(io.BytesIO(data))
    assert error.code == "E-AUDIO-NAN"
    assert "0.250 s" in error.message


def test_float_beyond_full_scale_is_clipped():
    samples = np.array([[0.5], [7.0], [-1e30]], "<f4")
    clip = read_audio(io.BytesIO(wav_bytes(samples.tobytes(), bits=32, format_tag=3)))
    np.testing.assert_array_equal(clip.samples[:, 0], np.float32([0.5, 1.0, -1.0]))


@pytest.mark.parametrize(
    "text", ["nope.wav", "http://127.0.0.1:9/a.wav", "concat:a.wav|b.wav", "pipe:0", "data:,x"]
)
def test_addresses_are_only_missing_files(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert error_of(Path(text)).code == "E-AUDIO-MISSING"


def test_folder_and_file_as_folder(tmp_path):
    assert error_of(tmp_path).code == "E-AUDIO-MISSING"
    (tmp_path / "a").write_bytes(b"")
    assert error_of(tmp_path / "a" / "b.wav").code == "E-AUDIO-MISSING"


def test_playlist_in_disguise_opens_nothing_else(tmp_path):
    _, data = ramp_pcm16(1_000)
    (tmp_path / "secret.wav").write_bytes(wav_bytes(data))
    playlist = tmp_path / "talk.wav"
    playlist.write_text("ffconcat version 1.0\nfile secret.wav\n")
    assert error_of(playlist).code == "E-AUDIO-FORMAT"
    assert read_audio(tmp_path / "secret.wav").samples.shape == (1_000, 1)


def test_video_without_sound(tmp_path):
    import av

    path = tmp_path / "silent.mp4"
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        picture = np.zeros((32, 32, 3), np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    assert error_of(path).code == "E-AUDIO-STREAM"


def test_more_than_a_day_is_refused(monkeypatch):
    monkeypatch.setattr(audio_decoding, "MAX_DURATION_S", 0.5)
    _, data = ramp_pcm16(16_000)
    assert error_of(io.BytesIO(wav_bytes(data))).code == "E-AUDIO-LENGTH"


def test_hole_in_the_middle_is_told_with_its_time(tmp_path):
    rng = np.random.default_rng(0)
    path = encode(tmp_path / "a.m4a", rng.uniform(-0.5, 0.5, (96_000, 1)), "aac", 48_000)
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + 16_000
    data[middle : middle + 900] = b"\xff" * 900
    error = error_of(io.BytesIO(bytes(data)))
    assert error.code == "E-AUDIO-DAMAGED"
    assert " s" in error.message


def test_cut_file_gives_what_is_there(tmp_path):
    rng = np.random.default_rng(0)
    path = encode(tmp_path / "a.mp3", rng.uniform(-0.5, 0.5, (96_000, 1)), "libmp3lame", 48_000)
    data = path.read_bytes()
    cut = read_audio(io.BytesIO(data[: len(data) // 2]))
    assert 0.4 * 96_000 < len(cut.samples) < 0.6 * 96_000


def test_mutated_files_give_a_clip_or_one_clear_error(tmp_path):
    samples, data = ramp_pcm16(2_000)
    flac = encode(tmp_path / "a.flac", samples[:, None] / 32768, "flac", 16_000).read_bytes()
    rng = np.random.default_rng(1)
    for original in (wav_bytes(data), flac):
        for _ in range(60):
            mutated = bytearray(original)
            for position in rng.integers(0, min(len(mutated), 120), 3):
                mutated[position] = rng.integers(0, 256)
            try:
                clip = read_audio(io.BytesIO(bytes(mutated)))
            except AudioError:
                continue
            assert len(clip.samples) > 0
            assert np.isfinite(clip.samples).all()


@settings(max_examples=60, deadline=None)
@given(
    rate_hz=st.sampled_from([8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000]),
    num_samples=st.integers(1, 100_000),
    channels=st.integers(1, 3),
)
def test_model_waveform_has_the_exact_length(rate_hz, num_samples, channels):
    clip = AudioClip(np.full((num_samples, channels), 0.25, np.float32), rate_hz)
    waveform = to_model_waveform(clip)
    assert waveform.shape == (max(1, round(num_samples * 16_000 / rate_hz)),)
    assert waveform.dtype == np.float32


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000])
def test_model_waveform_starts_at_the_same_instant(rate_hz):
    time_s = np.arange(rate_hz * 5) / rate_hz
    left, right = np.sin(2 * np.pi * 440 * time_s), 0.2 * np.cos(2 * np.pi * 300 * time_s)
    waveform = to_model_waveform(AudioClip(np.stack([left, right], 1).astype(np.float32), rate_hz))
    time_s = np.arange(len(waveform)) / 16_000
    expected = (np.sin(2 * np.pi * 440 * time_s) + 0.2 * np.cos(2 * np.pi * 300 * time_s)) / 2
    # The filter has no neighbours beyond the ends; 20 ms in, it is exact.
    np.testing.assert_allclose(waveform[320:-320], expected[320:-320], atol=1e-3)


def test_sixteen_kilohertz_passes_unchanged():
    samples = np.random.default_rng(0).uniform(-1, 1, (999, 1)).astype(np.float32)
    np.testing.assert_array_equal(to_model_waveform(AudioClip(samples, 16_000)), samples[:, 0])


def test_silence():
    quiet = np.full((100, 2), 9e-4, np.float32)
    assert is_silent(AudioClip(quiet, 16_000))
    quiet[50, 1] = -0.002
    assert not is_silent(AudioClip(quiet, 16_000))


def test_long_sound_is_held_once():
    num_samples = 4_000_000
    data = wav_bytes(bytes(2 * num_samples))
    tracemalloc.start()
    clip = read_audio(io.BytesIO(data))
    waveform = to_model_waveform(clip)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.shares_memory(waveform, clip.samples)
    # One buffer of the samples; its growth moves pages and holds at most half as much again.
    assert peak < 1.7 * clip.samples.nbytes + 2 * len(data)


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_written_wav_reads_back_exactly(tmp_path, channels):
    samples = np.random.default_rng(0).uniform(-1, 1, (70_001, channels)).astype(np.float32)
    write_wav(tmp_path / "a.wav", AudioClip(samples, 22_050))
    clip = read_audio(tmp_path / "a.wav")
    assert clip.sample_rate_hz == 22_050
    np.testing.assert_array_equal(clip.samples, samples)


@pytest.mark.parametrize("channels", [1, 2])
def test_64_bit_integers(tmp_path, channels):
    """A sample format that PyAV decodes but does not hand out."""
    samples = (np.linspace(-0.9, 0.9, 400) * 2.0**63).astype("<i8").reshape(-1, channels)
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(samples.tobytes(), bits=64, channels=channels))
    clip = read_audio(path)
    assert clip.samples.shape == samples.shape
    assert np.abs(clip.samples - samples / 2.0**63).max() < 1e-6
