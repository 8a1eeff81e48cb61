"""Phoneme times of a recording whose text is known: two-pass forced alignment."""

import re
from functools import cache
from typing import Any

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.studio.speech.phonemes import Phoneme
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ

_FRAME_S = 0.01
_PAD_S = 0.25
"""Faint noise around the recording: the aligner then finds a silence before the first word
instead of stretching its first sound."""


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
