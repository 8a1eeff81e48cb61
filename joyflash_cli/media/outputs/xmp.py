"""XMP: what a file says of itself for every program that reads metadata, and where it says it.

IPTC's *digital source type* is the term by which search engines and archives know media made by a
trained model. Pictures carry the packet as their formats say; MP4 and MOV in a box of its own
(XMP specification part 3); Matroska and WebM have no place for it and get the same value as a tag.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO
from xml.sax.saxutils import quoteattr

from joyflash_cli import __version__
from joyflash_cli.media.outputs.mp4_boxes import boxes_that_begin, find_contents

TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""The digital source type of what a trained model has made."""

SOURCE_TYPE = "digital_source_type"
"""Under which name a film's tags, and those of Matroska, hold it."""

MOST_BYTES = 1 << 20
"""A longer packet is not read."""

_MOST_INDEX_BYTES = 64 << 20
_BOX_ID = uuid.UUID("be7acfcb-97a9-42e8-9c71-999491e3afac").bytes
_JPEG_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
_VALUE = re.compile(
    r"DigitalSourceType\b[^A-Za-z]{0,40}(?:rdf:resource\s*=\s*[\"'])?(https?://[^\"'<>\s]+)"
)


def packet(metadata: Mapping[str, str]) -> bytes:
    """The XMP packet for a film's tags; empty where they name no digital source type."""
    source_type = metadata.get(SOURCE_TYPE)
    if source_type is None:
        return b""
    text = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmp:CreatorTool={quoteattr(f"JoyFlash {__version__}")}
    Iptc4xmpExt:DigitalSourceType={quoteattr(source_type)}
    Iptc4xmpExt:AISystemUsed="JoyFlash"
    Iptc4xmpExt:AISystemVersionUsed={quoteattr(__version__)}/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""
    return text.encode()


def mp4_box(metadata: Mapping[str, str]) -> bytes:
    """The box that holds the packet in MP4 and MOV; empty without a packet."""
    content = packet(metadata)
    if not content:
        return b""
    return (24 + len(content)).to_bytes(4, "big") + b"uuid" + _BOX_ID + content


def jpeg_segment(metadata: Mapping[str, str]) -> bytes:
    """The segment that holds the packet in a JPEG; empty without a packet."""
    content = packet(metadata)
    if not content:
        return b""
    return (
        b"\xff\xe1" + (2 + len(_JPEG_HEAD) + len(content)).to_bytes(2, "big") + _JPEG_HEAD + content
    )


def append_box(path: Path, metadata: Mapping[str, str]) -> None:
    """Puts the packet at the end of an MP4 or MOV, where nothing has to move for it.

    Raises:
        OSError: If it cannot be written; then the file is as it was.
    """
    box = mp4_box(metadata)
    if not box:
        return
    size = path.stat().st_size
    try:
        with path.open("ab") as file:
            file.write(box)
    except OSError:
        os.truncate(path, size)
        raise


def read_marks(path: Path) -> tuple[str | None, str | None]:
    """The digital source type and the comment that a file's own tags state, whoever wrote them.

    A video of ours says in its comment what made it.

    Args:
        path: A picture or a video; anything else states none.

    Raises:
        OSError: If the file cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            xmp = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp")
            comment = picture.info.get("comment") or picture.info.get("Comment")
            comment = comment or picture.getexif().get(0x010E)  # ImageDescription
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        with path.open("rb") as file:
            xmp, comment = _video_xmp(file), _tags(file).get("comment")
    found = _VALUE.search(_text(xmp or ""))
    return None if found is None else found[1], _text(comment) if comment else None


def _video_xmp(file: BinaryIO) -> bytes | str:
    for content in boxes_that_begin(file, b"uuid", _BOX_ID, most_bytes=MOST_BYTES):
        return content
    for index in boxes_that_begin(file, b"moov", b"", most_bytes=_MOST_INDEX_BYTES):
        found = find_contents(index, b"udta", b"XMP_")  # where QuickTime has it
        if found:
            return found
    return f"DigitalSourceType {_tags(file).get(SOURCE_TYPE, '')}"


def _tags(file: BinaryIO) -> dict[str, str]:
    """The tags of a video or a sound, their names in small letters; of anything else none."""
    import av

    from joyflash_cli.media.inputs.kinds import open_container

    file.seek(0)
    try:
        with open_container(file) as container:
            return {key.lower(): value for key, value in container.metadata.items()}
    except (av.error.FFmpegError, OSError, ValueError):
        return {}


def _text(content: bytes | str) -> str:
    return content if isinstance(content, str) else content[:MOST_BYTES].decode(errors="replace")
