"""What a record or a comment says of where a video comes from."""

import re
from collections.abc import Mapping
from typing import Any

COMMENT = "AI-generated with JoyFlash"
"""How the comment begins that JoyFlash writes into its videos."""

_CHECKPOINT = re.compile(r"checkpoint ([\w.+-]+)")


def made_by(record: Mapping[str, Any], metadata: Mapping[str, str]) -> str | None:
    """The checkpoint that made a video; ``None`` if neither of them says.

    Args:
        record: The one beside the video; empty without.
        metadata: The container's tags.
    """
    if record.get("profile"):
        return str(record["profile"])
    comment = metadata.get("comment", "")
    found = _CHECKPOINT.search(comment) if COMMENT in comment else None
    return found.group(1) if found else None


def blocks_are_known(record: Mapping[str, Any], metadata: Mapping[str, str]) -> bool:
    """Whether block borders lie at frames 9, 21, 33, ...: of three latents of a 4-frame codec."""
    if made_by(record, metadata) is None:
        return False
    parameters = record.get("parameters", {})
    if isinstance(parameters, dict) and parameters.get("output_fps") is not None:
        return False  # frames were repeated or left out: blocks have other lengths
    sampler = parameters.get("sampler", {}) if isinstance(parameters, dict) else {}
    return sampler.get("block_frames", 3) == 3 if isinstance(sampler, dict) else True
