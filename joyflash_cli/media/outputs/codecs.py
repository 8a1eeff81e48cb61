"""What the FFmpeg libraries inside PyAV can encode, decode and write."""

from typing import Literal

ENCODERS = (
    "libx264", "h264_nvenc", "h264_videotoolbox", "libvpx-vp9", "aac", "flac", "libopus",
)  # fmt: skip
DECODERS = ("pcm_s16le", "mp3", "flac", "vorbis", "opus", "aac", "h264")
FORMATS = ("mp4", "wav", "mov", "matroska", "webm", "hls")

NEEDED = (("encoder", "libx264"), ("encoder", "aac"), ("format", "mp4"))
"""Without these no video can be written."""


def media_abilities() -> dict[str, bool]:
    """Whether each of the above is there, by ``"encoder libx264"`` and the like."""
    import av
    import av.codec

    def has_codec(name: str, mode: Literal["r", "w"]) -> bool:
        try:
            av.codec.Codec(name, mode)
        except av.codec.codec.UnknownCodecError:
            return False
        return True

    found = {f"encoder {name}": has_codec(name, "w") for name in ENCODERS}
    found |= {f"decoder {name}": has_codec(name, "r") for name in DECODERS}
    return found | {f"format {name}": name in av.formats_available for name in FORMATS}


def missing_abilities() -> list[str]:
    """Names of what no video can be written without, and what is not there."""
    found = media_abilities()
    return [f"{kind} {name}" for kind, name in NEEDED if not found[f"{kind} {name}"]]


def media_versions() -> dict[str, str]:
    """Versions of PyAV and of the FFmpeg libraries in it."""
    import av

    libraries = {
        name: ".".join(str(part) for part in version)
        for name, version in av.library_versions.items()
    }
    return {"pyav": av.__version__, **libraries}
