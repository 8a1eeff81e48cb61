"""Synthetic voices with phoneme times: flite, espeak-ng and hibari."""

import ctypes
import re
import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass, field, replace
from functools import cache
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.studio.speech.phonemes import Phoneme
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ

Speech = tuple[np.ndarray, list[Phoneme]]
"""``(n,)`` float32 mono 16 kHz, and the phonemes in it."""
_FRAME_S = 0.01
_PAD_S = 0.25
"""Faint noise around the recording: the aligner then finds a silence before the first word
instead of stretching its first sound."""


def speak_flite(text: str, voice: str, *, stretch: float = 1.0) -> Speech:
    """Flite with a built-in voice; the program prints each phoneme's end.

    Args:
        text: What to say.
        voice: ``slt``, ``awb``, ``rms``, ``kal16`` ...
        stretch: Duration factor, above 1 is slower.

    Raises:
        DataError: flite is missing or fails.
    """
    program = shutil.which("flite")
    if program is None:
        raise DataError("flite is not installed", hint="install the package flite")
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "speech.wav"
        command = [program, "-voice", voice, "--setf", f"duration_stretch={stretch}"]
        command += ["-t", text, "-psdur", "-o", str(sound)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0 or not sound.exists():
            raise DataError(f"flite failed on {text!r}", hint=result.stderr.strip()[:200])
        with wave.open(str(sound)) as file:
            rate = file.getframerate()
            levels = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    samples = levels.astype(np.float32) / 32768
    phonemes, start = [], 0.0
    for token in result.stdout.split():
        symbol, end_text = token.rsplit(":", 1)
        phonemes.append(Phoneme("arpabet", symbol, start, float(end_text)))
        start = float(end_text)
    return resample(samples, rate, MODEL_SAMPLE_RATE_HZ), phonemes


def speak_hibari(
    text: str, *, speed: float = 1.0, pitch: float = 1.0, size: float = 1.0, seed: int = 0
) -> Speech:
    """The hibari neural voice, varied; times come from alignment with the text.

    The model's own durations run about 60 ms late, therefore they are not used.

    Args:
        text: What to say, English.
        speed: Above 1 is faster.
        pitch: Factor on the voice's fundamental frequency.
        size: Factor on all frequencies by resampling: below 1 a larger speaker, and slower.
        seed: Of the noise part.

    Raises:
        DataError: The text cannot be spoken or aligned.
    """
    from hibari import dsp

    voice, rng, parts = _hibari(), np.random.default_rng(seed), []
    for phoneme_text in voice.phonemize(text):
        inputs = {
            "ids": np.asarray([voice.ids(phoneme_text)], np.int64),
            "speed": np.asarray([speed], np.float32),
        }
        *spectrum, pitch_track = (output[0] for output in voice.sess.run(None, inputs))
        parts.append(dsp.synth(*spectrum, pitch_track * pitch, rng))
    if not parts:
        raise DataError(f"nothing to say in {text!r}", hint="give a text with words")
    plain = resample(np.concatenate(parts), voice.sample_rate, MODEL_SAMPLE_RATE_HZ)
    return scale_frequencies(plain, align_phonemes(plain, text), size)


def speak_espeak(text: str, voice: str, *, rate: int = 165, pitch: int = 50) -> Speech:
    """espeak-ng through its library, which reports every phoneme's place.

    Args:
        text: What to say.
        voice: Name with variant, e.g. ``en-us+f3``.
        rate: Words a minute.
        pitch: 0..100.

    Raises:
        DataError: The library is missing or the voice unknown.
    """
    engine = _espeak()
    library = engine.library
    engine.parts.clear()
    engine.events.clear()
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise DataError(f"espeak-ng has no voice {voice!r}", hint="see espeak-ng --voices")
    library.espeak_SetParameter(_ESPEAK_RATE, rate, 0)
    library.espeak_SetParameter(_ESPEAK_PITCH, pitch, 0)
    data = text.encode()
    library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _ESPEAK_UTF8, None, None)
    library.espeak_Synchronize()
    if not engine.parts:
        raise DataError(f"espeak-ng said nothing for {text!r}", hint="give a text with words")
    samples = np.concatenate(engine.parts).astype(np.float32) / 32768
    duration = len(samples) / engine.sample_rate_hz
    ends = [start for _, start in engine.events[1:]] + [duration]
    phonemes = [
        Phoneme("espeak", symbol, start, max(start, end))
        for (symbol, start), end in zip(engine.events, ends, strict=True)
    ]
    return resample(samples, engine.sample_rate_hz, MODEL_SAMPLE_RATE_HZ), phonemes


def resample(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Polyphase resampling of ``(n,)`` sound to float32."""
    if from_hz == to_hz:
        return samples.astype(np.float32)
    from scipy.signal import resample_poly

    common = gcd(from_hz, to_hz)
    return resample_poly(samples, to_hz // common, from_hz // common).astype(np.float32)


def scale_frequencies(waveform: np.ndarray, phonemes: list[Phoneme], size: float) -> Speech:
    """Another speaker from the same recording: all frequencies times ``size``, times by it.

    Args:
        waveform: ``(n,)`` float32 mono 16 kHz.
        phonemes: Sounds in it.
        size: About 0.85..1.15; rounded to hundredths.
    """
    hundredths = int(round(size * 100))
    if hundredths == 100:
        return waveform, phonemes
    moved = [
        replace(p, start_s=p.start_s * 100 / hundredths, end_s=p.end_s * 100 / hundredths)
        for p in phonemes
    ]
    return resample(waveform, hundredths, 100), moved


@cache
def _hibari() -> Any:
    from hibari import Hibari

    return Hibari(threads=1)


_ESPEAK_RATE, _ESPEAK_PITCH, _ESPEAK_UTF8 = 1, 3, 1
_ESPEAK_SYNCHRONOUS, _ESPEAK_PHONEME_EVENTS = 2, 1
_EVENT_END, _EVENT_PHONEME = 0, 7


class _EventId(ctypes.Union):
    _fields_ = [("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _numbers = ("type", "identifier", "text_position", "length", "audio_position_ms", "sample")
    _fields_ = [
        *((name, ctypes.c_int) for name in _numbers),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


@dataclass
class _Espeak:
    """The loaded library with what its callback has collected."""

    library: Any
    sample_rate_hz: int = 0
    callback: Any = None
    parts: list[np.ndarray] = field(default_factory=list)
    events: list[tuple[str, float]] = field(default_factory=list)

    def collect(self, samples: Any, count: int, event: Any) -> int:
        """Keeps a piece of sound and the starts of its phonemes; 0 lets the library go on."""
        if count > 0 and samples:
            self.parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while event[index].type != _EVENT_END:
            if event[index].type == _EVENT_PHONEME:
                symbol = event[index].id.string.decode("utf8", "ignore")
                self.events.append((symbol, event[index].audio_position_ms / 1000))
            index += 1
        return 0


@cache
def _espeak() -> _Espeak:
    try:
        library = ctypes.CDLL("libespeak-ng.so.1")
    except OSError as error:
        raise DataError("libespeak-ng is not installed", hint="install libespeak-ng1") from error
    engine = _Espeak(library)
    kind = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
    )
    engine.callback = kind(engine.collect)
    engine.sample_rate_hz = library.espeak_Initialize(
        _ESPEAK_SYNCHRONOUS, 500, None, _ESPEAK_PHONEME_EVENTS
    )
    if engine.sample_rate_hz <= 0:
        raise DataError("espeak-ng has no voice data", hint="install espeak-ng-data")
    library.espeak_SetSynthCallback(engine.callback)
    return engine


def align_phonemes(waveform: np.ndarray, text: str) -> list[Phoneme]:
    """Times of the text's phonemes in the recording (PocketSphinx, English).

    Args:
        waveform: ``(n,)`` float32 mono 16 kHz.
        text: What is said; punctuation and case do not matter.

    Returns:
        ARPABET phonemes with times in seconds.

    Raises:
        DataError: The text does not fit the sound or holds a word the dictionary lacks.
    """
    words = re.sub(r"[^a-z' ]+", " ", text.lower().replace("’", "'")).split()
    words = [word.strip("'") for word in words if word.strip("'")]
    decoder = _decoder()
    unknown = [word for word in words if decoder.lookup_word(word) is None]
    if unknown or not words:
        raise DataError(
            f"cannot align: not in the dictionary: {unknown or text!r}",
            hint="leave this utterance out",
        )
    pcm = _padded_pcm(waveform)
    try:
        decoder.set_align_text(" ".join(words))
        _decode(decoder, pcm)
        decoder.set_alignment()
        _decode(decoder, pcm)
        alignment = decoder.get_alignment()
    except RuntimeError as error:
        raise DataError(f"cannot align {text!r}", hint="leave this utterance out") from error
    if alignment is None:
        raise DataError(f"cannot align {text!r}", hint="leave this utterance out")
    duration = len(waveform) / MODEL_SAMPLE_RATE_HZ
    phonemes = []
    for word in alignment:
        for phone in word:
            edges = (phone.start, phone.start + phone.duration)
            start, end = (min(max(at * _FRAME_S - _PAD_S, 0.0), duration) for at in edges)
            if end > start:
                phonemes.append(Phoneme("arpabet", phone.name, start, end))
    return phonemes


@cache
def _decoder() -> Any:
    from pocketsphinx import Decoder

    return Decoder(lm=None, loglevel="FATAL")


def _decode(decoder: Any, pcm: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()


def _padded_pcm(waveform: np.ndarray) -> bytes:
    """16-bit sound at a good level between two stretches of faint noise."""
    pad = int(_PAD_S * MODEL_SAMPLE_RATE_HZ)
    noise = np.random.default_rng(0).normal(0, 2e-4, len(waveform) + 2 * pad)
    peak = float(np.abs(waveform).max()) if len(waveform) else 0.0
    noise[pad : pad + len(waveform)] += waveform * (0.6 / peak if peak > 0 else 1.0)
    return (np.clip(noise, -1, 1) * 32767).astype("<i2").tobytes()
