"""Sounds that are cut off, carry foreign chunks, tracks or damage: told, chosen or skipped."""

import struct
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from joyflash_cli.errors import AudioError, UsageError
from joyflash_cli.media.inputs.hearing import PcmFormat, SoundChoices
from joyflash_cli.media.inputs.sound import LiveSound, check_sound_file

from .sounds import PipeStream, ramp_pcm16, wav_bytes

RATE_HZ = 48_000


def speech(seconds: float = 2.0) -> np.ndarray:
    """Noise in syllables: no codec makes it much smaller, and none calls it silent."""
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    noise = np.random.default_rng(0).normal(0, 0.1, len(time_s))
    return (noise * (1 + np.sin(2 * np.pi * 4 * time_s))).astype(np.float32)


def encoded(*tracks: np.ndarray, codec: str, container: str, default: int = 0, **options) -> bytes:
    """A sound file of mono tracks at 48 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound"  # an index can be moved to the front of a named file only
        _encode(path, tracks, codec, container, default, options)
        return path.read_bytes()


def _encode(path, tracks, codec, container, default, options):
    import av
    from av.stream import Disposition

    with av.open(str(path), mode="w", format=container, options=options) as written:
        streams = [written.add_stream(codec, rate=RATE_HZ, layout="mono") for _ in tracks]
        for index, stream in enumerate(streams):
            stream.disposition = Disposition.default if index == default else Disposition(0)
        for stream, samples in zip(streams, tracks, strict=True):
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
            written.mux(stream.encode(frame))
            written.mux(stream.encode(None))


def checked(data: bytes, tmp_path: Path, choices: SoundChoices | None = None):
    path = tmp_path / "voice.bin"
    path.write_bytes(data)
    return check_sound_file(path, choices=choices)


def live(data: bytes, choices: SoundChoices | None = None) -> LiveSound:
    """A pipe, heard to its end."""
    sound = LiveSound(PipeStream(data, 5_000), choices=choices)
    sound.samples = np.concatenate(list(sound.open().pieces))
    return sound


KINDS = {
    "flac": {"codec": "flac", "container": "flac"},
    "m4a": {"codec": "aac", "container": "mp4", "movflags": "faststart"},
    "fragments": {"codec": "aac", "container": "mp4", "movflags": "frag_keyframe+delay_moov"},
    "mp3": {"codec": "libmp3lame", "container": "mp3"},
    "opus": {"codec": "libopus", "container": "ogg"},
    "flac in ogg": {"codec": "flac", "container": "ogg"},
    "webm": {"codec": "libopus", "container": "webm"},
    "mka": {"codec": "flac", "container": "matroska"},
    "aiff": {"codec": "pcm_s16be", "container": "aiff"},
    "au": {"codec": "pcm_s16be", "container": "au"},
    "caf": {"codec": "pcm_s16be", "container": "caf"},
    "w64": {"codec": "pcm_s16le", "container": "w64"},
    "wav": {"codec": "pcm_s16le", "container": "wav"},
    "adpcm": {"codec": "adpcm_ms", "container": "wav"},
}
"""Containers that say how long they are."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_that_is_cut_off_is_told(tmp_path, kind):
    whole = encoded(speech(), **KINDS[kind])
    assert not checked(whole, tmp_path).hearing.truncated
    assert not live(whole).hearing.truncated
    cut = whole[: len(whole) * 6 // 10]
    for sound in (checked(cut, tmp_path), live(cut)):
        assert sound.hearing.truncated, type(sound)
        assert len(sound.hearing.notes) == 1
        assert "is cut off after" in sound.hearing.notes[0]
    for hear in (lambda choices: checked(cut, tmp_path, choices), lambda c: live(cut, c)):
        with pytest.raises(AudioError, match="cut off") as caught:
            hear(SoundChoices(strict=True))
        assert caught.value.code == "E-AUDIO-TRUNCATED"


@pytest.mark.parametrize(
    "kind", [{"codec": "libmp3lame", "container": "mp3", "write_xing": "0"},
             {"codec": "aac", "container": "adts"}],
)  # fmt: skip
def test_who_says_nothing_of_its_length_is_never_cut_off(tmp_path, kind):
    whole = encoded(speech(), **kind)
    for data in (whole, whole[: len(whole) // 2]):
        assert not checked(data, tmp_path).hearing.truncated
        assert not live(data).hearing.truncated


def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def with_riff_size(wave: bytes, size: int) -> bytes:
    return wave[:4] + struct.pack("<I", size) + wave[8:]


NOISE = np.random.default_rng(1).bytes(4_001)
ID3V1 = (b"TAG" + b"A title").ljust(128, b"\0")


@pytest.mark.parametrize("kind", [b"ResU", b"SMED", b"XMP ", b"\0\1\2\3", b"minf"])
@pytest.mark.parametrize("num_bytes", [2_000, 2_001])
def test_unknown_chunks_behind_the_sound_are_no_sound(tmp_path, kind, num_bytes):
    data = bytes(range(250)) * 9
    wave = wav_bytes(data[:num_bytes], bits=8) + b"\0" * (num_bytes % 2)
    wave += chunk(kind, NOISE) + chunk(b"XXXX", NOISE)
    wave = with_riff_size(wave, len(wave) - 8)
    expected = np.frombuffer(data[:num_bytes], np.uint8)
    for tagged in (wave, wave + ID3V1):
        sound = checked(tagged, tmp_path)
        assert sound.num_samples == num_bytes
        got = np.concatenate(list(sound.open().pieces))
        np.testing.assert_array_equal(got[:, 0] * 128 + 128, expected)
        assert not sound.hearing.truncated
        if kind.isascii() and kind[0]:  # a pipe's length is not known: names must be names
            np.testing.assert_array_equal(live(tagged).samples, got)


def test_a_tag_glued_to_a_wav_is_no_sound(tmp_path):
    samples, data = ramp_pcm16(3_000)
    wave = wav_bytes(data) + ID3V1
    assert checked(wave, tmp_path).num_samples == 3_000
    np.testing.assert_array_equal(live(wave).samples[:, 0] * 32768, samples)


@pytest.mark.parametrize("stated", [0, 2_000, 0xFFFFFFFF])
def test_a_header_that_lies_is_still_not_believed(tmp_path, stated):
    samples, data = ramp_pcm16(3_000)
    for riff in (None, len(data) + 36):  # the size of the whole may be right where that is not
        wave = wav_bytes(data, stated_size=stated)
        if riff is not None:
            wave = with_riff_size(wave, riff)
        sound = checked(wave, tmp_path)
        assert sound.num_samples == 3_000
        np.testing.assert_array_equal(live(wave).samples[:, 0] * 32768, samples)


SILENCE = np.zeros(2 * RATE_HZ, np.float32)


@pytest.mark.parametrize("container", ["matroska", "mp4"])
@pytest.mark.parametrize(
    ("tracks", "default", "heard", "why"),
    [
        ("quiet loud", 1, 1, "the default one"),
        ("loud quiet", 1, 0, "the first that is not silent"),
        ("quiet quiet loud", 0, 2, "the first that is not silent"),
        ("loud loud", 1, 1, "the default one"),
        ("quiet quiet", 0, 0, "the default one"),
    ],
)
def test_one_of_several_tracks_is_chosen_and_said(tmp_path, container, tracks, default, heard, why):
    if container == "mp4" and default:
        pytest.skip("MP4 has no such mark")
    parts = [speech() if name == "loud" else SILENCE for name in tracks.split()]
    codec = "flac" if container == "matroska" else "aac"
    data = encoded(*parts, codec=codec, container=container, default=default)
    sound = checked(data, tmp_path)
    assert sound.hearing.track == heard
    assert f"track {heard}, {why}, is heard" in sound.hearing.notes[0]
    assert sound.is_silent == ("loud" not in tracks)
    peak = max(np.abs(piece).max() for piece in sound.open().pieces)
    assert (peak > 0.1) == ("loud" in tracks)
    for track in range(len(parts)):
        chosen = checked(data, tmp_path, SoundChoices(track=track))
        assert chosen.is_silent == (tracks.split()[track] == "quiet")
        assert chosen.hearing.notes == []
        assert chosen.hearing.track == track


def test_a_pipe_hears_its_default_track(tmp_path):
    data = encoded(SILENCE, speech(), codec="flac", container="matroska", default=1)
    sound = live(data)
    assert np.abs(sound.samples).max() > 0.1
    assert "track 1, the default one, is heard" in sound.hearing.notes[0]
    assert np.abs(live(data, SoundChoices(track=0)).samples).max() == 0


@pytest.mark.parametrize("track", [-1, 1, 7])
def test_a_track_that_is_not_there(tmp_path, track):
    plain = wav_bytes(ramp_pcm16(3_000)[1])
    for data in (plain, encoded(speech(), codec="flac", container="flac")):
        for hear in (lambda c, d=data: checked(d, tmp_path, c), lambda c, d=data: live(d, c)):
            with pytest.raises(AudioError, match=f"1 sound track; there is no track {track}"):
                hear(SoundChoices(track=track))


@pytest.mark.parametrize("kind", ["m4a", "mp3", "flac"])
def test_damage_can_be_skipped(tmp_path, kind):
    data = bytearray(encoded(speech(4.0), **KINDS[kind]))
    middle = len(data) // 2
    data[middle : middle + 900] = b"\xff" * 900
    data = bytes(data)
    hears = (lambda c=None: checked(data, tmp_path, c), lambda c=None: live(data, c))
    for hear in hears:
        with pytest.raises(AudioError, match="--skip-damaged") as caught:
            hear()
        assert caught.value.code == "E-AUDIO-DAMAGED"
        sound = hear(SoundChoices(skip_damaged=True))
        ((at_s, length_s),) = sound.hearing.skipped
        assert 1.5 < at_s < 2.5
        assert 0.01 < length_s < 0.3
        assert "became silence" in sound.hearing.notes[0]
        assert not sound.hearing.truncated
        num_samples = getattr(sound, "num_samples", None) or len(sound.samples)
        assert abs(num_samples - 4 * RATE_HZ) < 0.1 * RATE_HZ


@pytest.mark.parametrize("kind", ["wav", "flac", "opus", "webm", "m4a", "aiff", "caf", "au", "w64"])
def test_a_format_is_for_samples_without_a_header(tmp_path, kind):
    data = encoded(speech(), **KINDS[kind])
    path = tmp_path / "voice.pcm"
    path.write_bytes(data)
    pcm = PcmFormat("s16le", 16_000, 1)
    for hear in (
        lambda: check_sound_file(path, pcm),
        lambda: LiveSound(PipeStream(data), pcm).open(),
    ):
        with pytest.raises(UsageError, match="leave --audio-format out") as caught:
            hear()
        assert caught.value.code == "E-AUDIO-FORMAT-OPTION"


@pytest.mark.parametrize("seed", range(4))
def test_samples_without_a_header_name_their_option(tmp_path, seed):
    time_s = np.arange(16_000) / 16_000
    wave = 0.3 * np.sin(2 * np.pi * (200 + 50 * seed) * time_s)
    wave += np.random.default_rng(seed).normal(0, 0.01, len(time_s))
    data = (wave * 32767).astype("<i2").tobytes()
    with pytest.raises(AudioError, match="--audio-format"):
        checked(data, tmp_path)
    with pytest.raises(AudioError, match="--audio-format"):
        live(data)
