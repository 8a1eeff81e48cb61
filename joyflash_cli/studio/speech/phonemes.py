"""Phonemes with times, and three symbol sets brought to one: lower-case ARPABET."""

from dataclasses import dataclass
from typing import Literal

SymbolSet = Literal["arpabet", "espeak", "ipa"]
"""Where a symbol comes from: flite and CMU dictionaries, espeak-ng mnemonics, or IPA letters
(with the capital diphthong letters some neural voices use)."""

SILENCE = "sil"
"""The canonical symbol of a pause."""


@dataclass(frozen=True)
class Phoneme:
    """One sound with its place in time.

    Attributes:
        symbol_set: Which table explains ``symbol``.
        symbol: As the synthesiser or the aligner named it.
        start_s: Seconds from the start of the waveform.
        end_s: Seconds, greater than or equal to ``start_s``.
    """

    symbol_set: SymbolSet
    symbol: str
    start_s: float
    end_s: float


CANONICAL = frozenset({
    "sil", "aa", "ae", "ah", "ao", "aw", "ax", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy",
    "uh", "uw", "p", "b", "m", "f", "v", "w", "r", "l", "t", "d", "n", "s", "z", "sh", "zh", "ch",
    "jh", "th", "dh", "k", "g", "ng", "y", "hh",
})  # fmt: skip
"""Every symbol a viseme is defined for."""

_ARPABET = {
    "axr": "er", "ix": "ih", "ux": "uw", "dx": "d", "nx": "n", "en": "n", "el": "l", "em": "m",
    "eng": "ng", "hv": "hh", "h": "hh", "pau": "sil", "q": "sil", "h#": "sil", "ssil": "sil",
    "brth": "sil", "+nsn+": "sil", "+spn+": "sil", "": "sil",
}  # fmt: skip

_ESPEAK = {
    "@": "ax", "@2": "ax", "@5": "ax", "@-": "ax", "a#": "ax", "3": "er", "3:": "er", "VR": "er",
    "IR": "er", "a": "ae", "aa": "ae", "&": "ae", "A:": "aa", "A@": "aa", "A": "aa", "A~": "aa",
    "0": "aa", "O": "ao", "O:": "ao", "O@": "ao", "o@": "ao", "o": "ao", "V": "ah", "E": "eh",
    "e": "eh", "e@": "eh", "I": "ih", "I2": "ih", "I#": "ih", "i": "iy", "i:": "iy", "i@": "iy",
    "i@3": "iy", "u": "uw", "u:": "uw", "U": "uh", "U@": "uh", "oU": "ow", "o:": "ow", "aI": "ay",
    "aI@": "ay", "aI3": "ay", "aU": "aw", "aU@": "aw", "eI": "ey", "OI": "oy", "@L": "l",
    "tS": "ch", "dZ": "jh", "S": "sh", "Z": "zh", "T": "th", "D": "dh", "N": "ng", "j": "y",
    "r-": "r", "r/": "r", "r2": "r", "t#": "t", "t2": "t", "t#2": "d", "*": "d", "l#": "l",
    "l/": "l", "l/2": "l", "h": "hh", "x": "k", "n-": "n", "m-": "m", "?": "sil", "_": "sil",
    "_:": "sil", "_|": "sil", "_!": "sil", "||": "sil", "": "sil", ";": "y", "w#": "w", "z#": "z",
    "z/2": "z", "d#": "d", "s#": "s",
}  # fmt: skip

_IPA = {
    "ɑ": "aa", "ɒ": "aa", "a": "aa", "æ": "ae", "ʌ": "ah", "ɐ": "ah", "ə": "ax", "ᵊ": "ax",
    "ɔ": "ao", "o": "ow", "ɛ": "eh", "e": "eh", "ɜ": "er", "ɝ": "er", "ɚ": "er", "ɪ": "ih",
    "ᵻ": "ih", "i": "iy", "u": "uw", "ʊ": "uh", "y": "uw", "ø": "er", "œ": "er", "A": "ey",
    "I": "ay", "O": "ow", "Q": "ow", "W": "aw", "Y": "oy", "eɪ": "ey", "aɪ": "ay", "aʊ": "aw",
    "ɔɪ": "oy", "oʊ": "ow", "əʊ": "ow", "ɡ": "g", "ɹ": "r", "ɾ": "d", "T": "d", "ʃ": "sh",
    "ʒ": "zh", "ʧ": "ch", "ʤ": "jh", "tʃ": "ch", "dʒ": "jh", "θ": "th", "ð": "dh", "ŋ": "ng",
    "j": "y", "h": "hh", "x": "k", "ç": "sh", "ʁ": "r", "ʔ": "sil", " ": "sil", "_": "sil",
    "": "sil",
}  # fmt: skip

_TABLES = {"arpabet": _ARPABET, "espeak": _ESPEAK, "ipa": _IPA}

_FALLBACK = "ax"
"""An unknown symbol is a sound all the same: a neutral vowel."""

_IPA_MARKS = "ˈˌːʰʲ̩̃"


def canonical_symbol(symbol: str, symbol_set: SymbolSet = "arpabet") -> str:
    """The canonical (lower-case ARPABET) name of a symbol.

    Stress digits and marks are dropped; an unknown symbol counts as a neutral vowel, because
    something was voiced there.

    Args:
        symbol: As the source writes it, e.g. ``"AH0"``, ``"@"`` or ``"ɔː"``.
        symbol_set: The source's symbol set.

    Returns:
        A member of ``CANONICAL``.
    """
    table = _TABLES[symbol_set]
    bare = symbol.strip() if symbol != " " else symbol
    if symbol_set == "arpabet":
        bare = bare.lower().rstrip("012")
    elif symbol_set == "ipa":
        bare = bare.strip(_IPA_MARKS)
    else:
        bare = bare.lstrip("',%=")
    found = table.get(bare, bare)
    if found in CANONICAL:
        return found
    if symbol_set == "espeak":
        # Variants of a sound carry suffixes such as "#", "2" or "/": try the shorter names.
        for length in range(len(bare) - 1, 0, -1):
            found = table.get(bare[:length], bare[:length])
            if found in CANONICAL:
                return found
    return _FALLBACK
