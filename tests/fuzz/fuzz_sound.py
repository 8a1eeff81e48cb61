"""Fuzzes compressed sound of every container that may be opened, and playlists in disguise.

A playlist may name another file; if its samples ever come out, a stranger's file was read.
"""

import contextlib
import io
import random
import tempfile
from pathlib import Path

import numpy as np
from drive import main
from fuzz_wav import Pipe, checked, wav
from mutations import mutate_bytes, mutate_riff
from oracle import Oracle, Violation

from joyflash_cli.errors import AudioError
from joyflash_cli.media.inputs.audio import read_audio
from joyflash_cli.media.inputs.sound import LiveSound, check_sound_file

MAX_BYTES = 32_768
FORMATS = (
    ("wav", "adpcm_ms"), ("wav", "pcm_mulaw"), ("w64", "pcm_s16le"), ("aiff", "pcm_s16be"),
    ("caf", "pcm_s16be"), ("au", "pcm_s16be"), ("mp3", "libmp3lame"), ("flac", "flac"),
    ("ogg", "libvorbis"), ("ogg", "libopus"), ("adts", "aac"), ("mp4", "aac"), ("mov", "pcm_s16le"),
    ("matroska", "flac"), ("webm", "libopus"),
)  # fmt: skip
_TOKENS = (b"ffconcat version 1.0\n", b"#EXTM3U\n", b"file ", b"moov", b"mdat", b"stsz", b"OggS",
           b"fLaC", b"ID3", b"TAG", b"\xff\xfb", b"\x1a\x45\xdf\xa3", b"dref", b"url ", b"fmt ",
           b"data", b"ftyp", b"concat:", b"subfile,,start,0,end,100,,:")  # fmt: skip
_CHUNKS = (b"fmt ", b"data", b"fact", b"LIST", b"ds64")

_strange = Path(tempfile.gettempdir()) / "joyflash-fuzz-strange.wav"
_STRANGE_VALUE = 12_345 / 32_768


def seeds() -> list[bytes]:
    """A short tone in every container, and texts that name another file."""
    _strange.write_bytes(wav(1, 16, data=np.full(4000, 12_345, "<i2").tobytes()))
    found = [_encoded(*kind) for kind in FORMATS]
    playlists = (
        f"ffconcat version 1.0\nfile {_strange}\n",
        f"ffconcat version 1.0\nfile 'file:{_strange}'\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{_strange}\n#EXT-X-ENDLIST\n",
        f"#EXTM3U\n#EXTINF:1,\nfile://{_strange}\n",
        f"concat:{_strange}|{_strange}",
        f"[playlist]\nFile1={_strange}\n",
    )
    return [*(data for data in found if data), *(text.encode() for text in playlists)]


def _encoded(container: str, codec: str) -> bytes:
    import av

    memory = io.BytesIO()
    rate = 48_000 if codec == "libopus" else 16_000
    try:
        with av.open(memory, "w", format=container) as file:
            stream = file.add_stream(codec, rate=rate, layout="mono")
            samples = (np.sin(np.arange(rate // 5) / 9) * 9_000).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate = rate
            to = av.AudioResampler(stream.format.name, "mono", rate, stream.frame_size or None)
            for part in (*to.resample(frame), *to.resample(None)):
                file.mux(stream.encode(part))
            file.mux(stream.encode(None))
    except (av.error.FFmpegError, ValueError):
        return b""  # this build lacks the encoder
    return memory.getvalue()


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Bytes with the marks of many containers, or chunks."""
    if data[:4] == b"RIFF":
        return mutate_riff(data, chance, _CHUNKS)
    return mutate_bytes(data, chance, _TOKENS)


def check(data: bytes, folder: Path, oracle: Oracle) -> None:
    """Checked as a file, heard as a file, read whole, and heard from a pipe."""
    path = folder / "talk.wav"
    path.write_bytes(data)
    with oracle.armed():
        with contextlib.suppress(AudioError):  # a pipe cannot be wound back; a file may be fine
            _hear(LiveSound(Pipe(data, 4096)).open())
        sound = check_sound_file(path)
        if _hear(sound.open()) != sound.num_samples:
            raise Violation("a sound was not heard as it was checked")
        _look(read_audio(path).samples)


def _hear(sound) -> int:
    count = 0
    for samples in checked(sound):
        _look(samples)
        count += len(samples)
    return count


def _look(samples: np.ndarray) -> None:
    strange = np.isclose(samples, _STRANGE_VALUE, atol=1e-4).mean() if samples.size else 0.0
    if samples.size > 500 and strange > 0.5:
        raise Violation("another file was read")


if __name__ == "__main__":
    main("sound")
