"""The digital source type, in every container and for every reader."""

import re
import resource
from pathlib import Path

import numpy as np
import pytest

from joyflash_cli.errors import OutputError
from joyflash_cli.media.outputs.formats import FORMATS
from joyflash_cli.media.outputs.names import OutputNames
from joyflash_cli.media.outputs.writer import open_muxer
from joyflash_cli.media.outputs.xmp import SOURCE_TYPE, TRAINED, append_box, read_marks
from joyflash_cli.types import AudioClip

FRAMES = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
SOUND = AudioClip(np.zeros((1920, 1), np.float32), 16_000)
TAGS = {"comment": "AI-generated", SOURCE_TYPE: TRAINED}


def written(output, tags=TAGS):
    """What an output holds first: a file that says what the whole of it is."""
    with open_muxer(output, size=(32, 32), fps=25, audio=SOUND, metadata=tags) as muxer:
        muxer.write(FRAMES)
        muxer.finish()
    if not isinstance(output, Path):
        return Path(output.name)
    kind = FORMATS[output.suffix].kind
    names = OutputNames(output)
    return names.frame(0) if kind == "pictures" else names.head if kind == "playlist" else output


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_container_says_that_a_model_made_it(tmp_path, suffix):
    name = f"a-%03d{suffix}" if FORMATS[suffix].kind == "pictures" else f"a{suffix}"
    assert read_marks(written(tmp_path / name))[0] == TRAINED


def test_a_stream_says_it_at_its_beginning(tmp_path):
    with (tmp_path / "a.mp4").open("wb") as stream:
        path = written(stream)
    assert read_marks(path)[0] == TRAINED
    content = path.read_bytes()
    assert content.index(TRAINED.encode()) < content.index(b"moof")


def test_nothing_is_said_that_was_not_asked_for(tmp_path):
    assert read_marks(written(tmp_path / "a.mp4", {}))[0] is None
    assert b"xpacket" not in (tmp_path / "a.mp4").read_bytes()


@pytest.mark.parametrize(
    "said",
    [
        f'<r:D Iptc4xmpExt:DigitalSourceType="{TRAINED}"/>',
        f"<Iptc4xmpExt:DigitalSourceType>{TRAINED}</Iptc4xmpExt:DigitalSourceType>",
        f"<Iptc4xmpExt:DigitalSourceType rdf:resource='{TRAINED}'/>",
    ],
)
def test_every_way_to_write_it_is_read(tmp_path, said):
    from PIL import Image

    path = tmp_path / "a.webp"
    Image.fromarray(FRAMES[0]).save(path, xmp=said.encode())
    assert read_marks(path)[0] == TRAINED


def test_quicktime_has_it_in_its_index(tmp_path):
    def box(kind, content):
        return (8 + len(content)).to_bytes(4, "big") + kind + content

    said = box(b"XMP_", b'<a DigitalSourceType="' + TRAINED.encode() + b'"/>')
    path = tmp_path / "a.mov"
    path.write_bytes(box(b"ftyp", b"qt  \0\0\0\0") + box(b"moov", box(b"udta", said)))
    assert read_marks(path)[0] == TRAINED


@pytest.mark.parametrize("content", [b"", b"no picture", b"\0\0\0\x18uuid" + bytes(8)])
def test_other_files_say_nothing(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert read_marks(path)[0] is None


def test_a_box_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"whole")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        with pytest.raises(OSError, match="large"):
            append_box(path, TAGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"whole"


def test_a_box_counts_for_the_error_of_a_full_disk(tmp_path, monkeypatch):
    from joyflash_cli.media.outputs import file_writer

    def full(path, metadata):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file_writer, "append_box", full)
    with pytest.raises(OutputError, match=re.escape("a.partial.mp4")):
        written(tmp_path / "a.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial.mp4"]
