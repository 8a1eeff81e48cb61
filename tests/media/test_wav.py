"""WAV as programs write it to pipes: sizes that lie, chunks behind the sound, several files."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyflash_cli.errors import AudioError, UsageError
from joyflash_cli.media.inputs.hearing import PcmFormat, parse_pcm_format
from joyflash_cli.media.inputs.sound import LiveSound

from .sounds import PipeStream, decoded_by_libav, ramp_pcm16, wav_bytes


def heard(data: bytes, pcm: PcmFormat | None = None, largest_read: int = 5_000) -> np.ndarray:
    sound = LiveSound(PipeStream(data, largest_read), pcm).open()
    parts = list(sound.pieces)
    return np.concatenate([np.zeros((0, sound.format.channels), np.float32), *parts])


def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


@pytest.mark.parametrize("largest_read", [1, 7, 5_000])
@pytest.mark.parametrize("stated_size", [None, 0, 0xFFFFFFFF, 0xFFFFFF00, 0x7FFFFFFF, 5_000_000])
def test_the_stated_size_does_not_end_the_sound(stated_size, largest_read):
    samples, data = ramp_pcm16(3_000)
    got = heard(wav_bytes(data, stated_size=stated_size), largest_read=largest_read)
    np.testing.assert_array_equal(got[:, 0] * 32768, samples)


@pytest.mark.parametrize("stated_size", [2, 1_000, 4_000])
def test_a_size_that_is_too_small_does_not_cut_the_sound(stated_size):
    samples, data = ramp_pcm16(3_000)
    np.testing.assert_array_equal(
        heard(wav_bytes(data, stated_size=stated_size))[:, 0] * 32768, samples
    )


@pytest.mark.parametrize("num_bytes", [2_000, 2_001])
@pytest.mark.parametrize("kinds", [(b"LIST",), (b"LIST", b"XYZ "), (b"bext", b"LIST")])
def test_chunks_behind_the_sound_are_no_sound(num_bytes, kinds):
    data = bytes(range(250)) * 9
    data = data[:num_bytes]
    wave = wav_bytes(data, bits=8) + b"\0" * (num_bytes % 2)
    got = heard(wave + b"".join(chunk(kind, b"INFOabc") for kind in kinds))
    np.testing.assert_array_equal(got[:, 0] * 128 + 128, np.frombuffer(data, np.uint8))


def test_one_file_after_another_is_one_sound():
    samples, data = ramp_pcm16(2_000)
    first, second = wav_bytes(data[:1_500]), wav_bytes(data[1_500:], stated_size=0)
    np.testing.assert_array_equal(
        heard(first + chunk(b"LIST", b"abcd") + second)[:, 0] * 32768, samples
    )
    with pytest.raises(AudioError, match="another format"):
        heard(first + wav_bytes(data, rate_hz=8_000))


def test_rf64_says_its_size_elsewhere():
    samples, data = ramp_pcm16(1_000)
    sizes = chunk(b"ds64", struct.pack("<QQQI", 0, len(data), 1_000, 0))
    wave = wav_bytes(data, stated_size=0xFFFFFFFF)
    wave = b"RF64" + wave[4:12] + sizes + wave[12:] + chunk(b"LIST", b"abcd")
    np.testing.assert_array_equal(heard(wave)[:, 0] * 32768, samples)


@pytest.mark.parametrize(("bits", "tag"), [(8, 1), (16, 1), (24, 1), (32, 1), (32, 3), (64, 3)])
@pytest.mark.parametrize("extensible", [False, True])
def test_every_plain_format_sounds_as_libav_decodes_it(bits, tag, extensible):
    rng = np.random.default_rng(0)
    if tag == 3:
        data = rng.uniform(-1, 1, 600).astype(f"<f{bits // 8}").tobytes()
    else:
        data = rng.integers(0, 256, 600 * bits // 8, dtype=np.uint8).tobytes()
    wave = wav_bytes(data, bits=bits, channels=2, format_tag=tag, rate_hz=44_100)
    if extensible:
        subformat = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
        body = struct.pack("<H", 0xFFFE) + wave[22:36] + struct.pack("<HHI", 22, bits, 3)
        wave = wave[:12] + chunk(b"fmt ", body + subformat) + wave[36:]
    expected = decoded_by_libav(wave)
    np.testing.assert_array_equal(heard(wave), expected)


def test_an_odd_rest_is_dropped():
    samples, data = ramp_pcm16(100)
    np.testing.assert_array_equal(heard(wav_bytes(data + b"\1"))[:, 0] * 32768, samples)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s16le:16000", PcmFormat("s16le", 16_000, 1)),
        (" F32LE:44100:2 ", PcmFormat("f32le", 44_100, 2)),
        ("u8:8000", PcmFormat("u8", 8_000, 1)),
    ],
)
def test_a_format_is_encoding_rate_channels(text, expected):
    assert parse_pcm_format(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "s16le", "s16le:", "pcm:16000", "s16le:1", "s16le:9999999", "s16le:16000:0",
     "s16le:16000:9", "s16le:16000:2:2", "s16le:-16000", "s16le:1e4", "s16le:١٦٠٠٠"],
)  # fmt: skip
def test_other_formats_are_refused_with_an_example(text):
    with pytest.raises(UsageError, match="s16le:16000") as caught:
        parse_pcm_format(text)
    assert caught.value.code == "E-AUDIO-FORMAT-OPTION"
    assert "\n" not in str(caught.value)


def test_plain_samples_need_no_header_and_know_no_chunks():
    samples = np.linspace(-1, 1, 400).astype("<f4")
    data = samples.tobytes() + b"LIST" + bytes(8)
    got = heard(data, PcmFormat("f32le", 16_000, 2), largest_read=3)
    np.testing.assert_array_equal(got[:200].ravel(), samples)
    assert len(got) == 201  # 12 bytes more are one sample of two channels, and a rest


@given(
    head=st.binary(max_size=60),
    body=st.binary(max_size=200),
    stated_size=st.integers(0, 0xFFFFFFFF),
    bits=st.sampled_from([0, 8, 16, 24, 32, 64]),
    channels=st.integers(0, 9),
    tag=st.sampled_from([0, 1, 3, 0xFFFE]),
)
def test_anything_is_a_sound_or_one_clear_error(head, body, stated_size, bits, channels, tag):
    wave = wav_bytes(
        body, bits=bits, channels=channels, format_tag=tag, stated_size=stated_size,
        before_data=head,
    )  # fmt: skip
    try:
        got = heard(wave)
    except AudioError:
        return
    assert got.dtype == np.float32
    assert np.isfinite(got).all()
    assert np.abs(got).max(initial=0.0) <= 1.0
