"""What a finished video file holds, read back without decoding."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from joyflash_cli.errors import OutputError
from joyflash_cli.media.inputs.kinds import open_container


@dataclass(frozen=True)
class MediaInfo:
    """Tracks of a file.

    Attributes:
        width: Pixels.
        height: Pixels.
        fps: Frames per second as the file states it.
        num_frames: Video packets, each one frame.
        video_s: From the first frame's time to the end of the last.
        video_codec: Name such as ``h264``.
        audio_s: Length of the sound, ``None`` without an audio track.
        audio_rate_hz: Samples per second, ``None`` without an audio track.
        audio_channels: Channels, ``None`` without an audio track.
        audio_codec: Name such as ``aac``, ``None`` without an audio track.
        metadata: The container's tags.
    """

    width: int
    height: int
    fps: float
    num_frames: int
    video_s: float
    video_codec: str
    audio_s: float | None = None
    audio_rate_hz: int | None = None
    audio_channels: int | None = None
    audio_codec: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def probe(path: Path) -> MediaInfo:
    """The tracks of a video file, every packet counted.

    Raises:
        OutputError: ``E-OUTPUT-UNREADABLE`` if the file cannot be opened, is cut in a way that
            cannot be read, or has no video.
    """
    import av

    try:
        with Path(path).open("rb") as file, open_container(file) as container:
            if not container.streams.video:
                raise _unreadable(path, "it has no video track")
            video = container.streams.video[0]
            audio = container.streams.audio[0] if container.streams.audio else None
            spans = _packet_spans(container, [video] if audio is None else [video, audio])
            num_frames, first_s, last_s = spans[video.index]
            info = MediaInfo(
                width=video.codec_context.width,
                height=video.codec_context.height,
                fps=float(video.average_rate or video.guessed_rate or 0),
                num_frames=num_frames,
                video_s=last_s - first_s,
                video_codec=video.codec_context.name,
                metadata=dict(container.metadata),
            )
            if audio is None:
                return info
            _, first_s, last_s = spans[audio.index]
            # The header knows what the decoder will discard (priming, padding); packets do not.
            known = audio.duration is not None and audio.time_base is not None
            return replace(
                info,
                audio_s=float(audio.duration * audio.time_base) if known else last_s - first_s,
                audio_rate_hz=audio.codec_context.sample_rate,
                audio_channels=audio.codec_context.channels,
                audio_codec=audio.codec_context.name,
            )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error


def plays(path: Path) -> bool:
    """Whether the file opens and its first picture decodes: enough to keep it as partial."""
    import av

    try:
        with Path(path).open("rb") as file, open_container(file) as container:
            return next(container.decode(video=0), None) is not None
    except (av.error.FFmpegError, OSError, ValueError, IndexError):
        return False


def _packet_spans(container: Any, tracks: list[Any]) -> dict[int, tuple[int, float, float]]:
    """Packet count, first time and end time in seconds of each track, by stream index."""
    spans = {track.index: (0, float("inf"), 0.0) for track in tracks}
    for packet in container.demux(tracks):
        if packet.pts is None or packet.size == 0:
            continue
        start_s = float(packet.pts * packet.time_base)
        length = packet.duration or 0
        if not length and packet.stream.type == "video" and packet.stream.average_rate:
            length = 1 / (packet.stream.average_rate * packet.time_base)
        end_s = start_s + float(length * packet.time_base)
        count, first_s, last_s = spans[packet.stream_index]
        # Sound before time 0 is the encoder's priming, which players discard.
        spans[packet.stream_index] = (
            count + 1,
            min(first_s, max(start_s, 0.0)),
            max(last_s, end_s),
        )
    return {
        index: (count, first_s if count else 0.0, last_s)
        for index, (count, first_s, last_s) in spans.items()
    }


def _unreadable(path: Path, reason: str) -> OutputError:
    return OutputError(
        f"{path} cannot be read back: {reason}",
        hint="run again; keep the old file if there is one",
        code="E-OUTPUT-UNREADABLE",
    )
