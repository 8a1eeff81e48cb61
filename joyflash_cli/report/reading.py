"""What is measured on one clip: colour, sharpness, flicker, sound, mouth and identity.

One pass over the frames; per frame a few numbers are kept, so that hours of video fit.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from joyflash_cli.errors import JoyFlashError
from joyflash_cli.measures import sync
from joyflash_cli.measures.identity import cosine
from joyflash_cli.measures.origin import blocks_are_known
from joyflash_cli.measures.quality import border_flicker, rgb_to_lab
from joyflash_cli.measures.tracks import FrameMeter
from joyflash_cli.media.outputs.playback import frame_levels, iterate_frames
from joyflash_cli.media.outputs.probe import MediaInfo, probe
from joyflash_cli.media.sheet import resized
from joyflash_cli.report.scope import ReaderBoxes, reader_boxes
from joyflash_cli.report.sources import ClipSource

if TYPE_CHECKING:
    from joyflash_cli.measures.reader import Readers

NUM_MOMENTS = 8
"""Frames of a contact sheet."""

MOMENT_HEIGHT_PX = 160
CROP_SHARE = 0.5
"""First and last frame are also shown enlarged: this share of their sides, from the middle."""

MIN_SYNC_FRAMES = 50
"""Two seconds at 25 frames: below, a correlation over lags of up to 5 frames says nothing."""

_SECOND = 1.0


@dataclass(frozen=True)
class Tracks:
    """One number per frame; ``None`` where a measure does not apply.

    Attributes:
        colour_change: Distance of the mean colour from the first second's in CIE Lab, ``(F,)``.
        sharpness: Mean gradient over the first second's, ``(F,)``.
        changes: Mean absolute difference to the frame before in 0..255, ``(F - 1,)``.
        peak: Peak of the sound under each frame, 0..1, ``(F,)``.
        level_db: Its level below the clip's 95th percentile, ``(F,)``.
        mouth: Opening of the mouth, about 0..1, ``(F,)``.
        identity: Cosine with the first frame's embedding, ``(F,)``.
    """

    colour_change: np.ndarray
    sharpness: np.ndarray
    changes: np.ndarray
    peak: np.ndarray | None
    level_db: np.ndarray | None
    mouth: np.ndarray | None
    identity: np.ndarray | None


@dataclass(frozen=True)
class ClipReading:
    """Everything the page shows of one clip.

    Attributes:
        source: Where it comes from.
        info: Its tracks; ``None`` if the video cannot be read.
        tracks: Its curves; ``None`` if the video cannot be read.
        moments: Frames at even spacing, each about 160 px tall.
        moment_s: Their times.
        first_crop: Middle of the first frame, at its own size.
        last_crop: Middle of the last frame.
        not_measured: Name of a figure to why it is missing.
        problem: Why nothing could be read, else empty.
    """

    source: ClipSource
    info: MediaInfo | None = None
    tracks: Tracks | None = None
    moments: tuple[np.ndarray, ...] = ()
    moment_s: tuple[float, ...] = ()
    first_crop: np.ndarray | None = None
    last_crop: np.ndarray | None = None
    not_measured: dict[str, str] | None = None
    problem: str = ""


def read_clip(source: ClipSource, readers: "Readers | None") -> ClipReading:
    """Measures one clip; a video that cannot be read is a finding, not an error.

    Args:
        source: From ``find_clips``.
        readers: The evaluation's two networks; ``None`` leaves mouth and identity out.
    """
    if source.video is None:
        return ClipReading(source, problem=source.error_text)
    try:
        info = probe(source.video)
        return _read_video(source, source.video, info, readers)
    except JoyFlashError as error:
        return ClipReading(source, problem=error.message)


def _read_video(
    source: ClipSource, video: Path, info: MediaInfo, readers: "Readers | None"
) -> ClipReading:
    moments = np.unique(
        np.linspace(0, max(info.num_frames - 1, 0), NUM_MOMENTS).round().astype(int)
    )
    walk = _Walk(moments, source, info, readers)
    for frames in iterate_frames(video):
        walk.add(frames)
    fps = info.fps or 25.0
    levels = frame_levels(video, fps=fps, num_frames=walk.num_frames)
    reasons = dict(walk.reasons)
    if levels is None:
        reasons["sound"] = "the video has no sound"
    if not blocks_are_known(source.record, info.metadata):
        reasons["flicker"] = "where blocks begin is only known of JoyFlash's own videos"
    return ClipReading(
        source=source,
        info=info,
        tracks=walk.tracks(fps, levels),
        moments=tuple(walk.pictures),
        moment_s=tuple(float(i) / fps for i in moments[: len(walk.pictures)]),
        first_crop=walk.first_crop,
        last_crop=walk.last_crop,
        not_measured=reasons,
    )


class _Walk:
    """Takes the frames in order and keeps what the page needs of them."""

    def __init__(
        self,
        moments: np.ndarray,
        source: ClipSource,
        info: MediaInfo,
        readers: "Readers | None",
    ) -> None:
        self.num_frames = 0
        self.pictures: list[np.ndarray] = []
        self.first_crop: np.ndarray | None = None
        self.last_crop: np.ndarray | None = None
        self.reasons: dict[str, str] = {}
        self._moments = moments
        self._source, self._info, self._readers = source, info, readers
        self._boxes: ReaderBoxes | None = None
        self._meter = FrameMeter()

    def add(self, frames: np.ndarray) -> None:
        """Measures the next frames ``(F, H, W, 3)`` uint8."""
        if self.first_crop is None:
            self._start(frames[0])
        for moment in self._moments[len(self.pictures) :]:
            if not self.num_frames <= moment < self.num_frames + len(frames):
                break
            picture = frames[moment - self.num_frames]
            self.pictures.append(resized(picture, height_px=MOMENT_HEIGHT_PX))
        self._meter.add(frames, None if self._boxes is None else self._boxes.read_from(frames))
        self.last_crop = _middle(frames[-1])
        self.num_frames += len(frames)

    def _start(self, first: np.ndarray) -> None:
        self.first_crop = _middle(first)
        if self._readers is None:
            reason: ReaderBoxes | str = "the readers were left out"
        else:
            reason = reader_boxes(self._source, self._info, first)
        if isinstance(reason, str):
            self.reasons |= {"mouth": reason, "identity": reason}
        else:
            self._boxes = reason
            self._meter = FrameMeter(
                face=reason.face,
                readers=self._readers,
                mouth_box=reason.mouth,
                eyes_box=reason.eyes,
            )

    def tracks(self, fps: float, levels: np.ndarray | None) -> Tracks:
        """The curves of all frames seen."""
        second = max(1, round(fps * _SECOND))
        read = self._meter.tracks(fps)
        lab = rgb_to_lab(read.colour)
        was_read = self._boxes is not None
        return Tracks(
            colour_change=np.linalg.norm(lab - lab[:second].mean(0), axis=-1),
            sharpness=read.sharpness / max(float(read.sharpness[:second].mean()), 1e-9),
            changes=read.changes,
            peak=None if levels is None else levels[:, 0],
            level_db=None if levels is None else sync.relative_db(levels[:, 1]),
            mouth=read.jaw if was_read else None,
            identity=cosine(read.identity, read.identity[0]) if was_read else None,
        )


def figures_of(reading: ClipReading) -> dict[str, Any]:
    """The clip's figures as JSON; ``None`` is "not measured".

    ``sound_correlation`` is the Pearson correlation of the mouth's opening with the loudness of
    the sound (-40..0 dB as 0..1) at the best lag of -5..5 frames, ``sound_lag_frames`` that lag,
    positive when the picture is late. Drift compares the last second with the first.
    """
    names = (
        "sound_correlation", "sound_lag_frames", "silence_movement", "identity", "colour_change",
        "sharpness", "border_flicker",
    )  # fmt: skip
    figures: dict[str, Any] = dict.fromkeys(names)
    tracks, info = reading.tracks, reading.info
    if tracks is None or info is None:
        return figures
    second = max(1, round(info.fps * _SECOND))
    figures["colour_change"] = float(tracks.colour_change[-second:].mean())
    figures["sharpness"] = float(tracks.sharpness[-second:].mean())
    if tracks.identity is not None:
        figures["identity"] = float(tracks.identity[-second:].mean())
    if "flicker" not in (reading.not_measured or {}):
        figures["border_flicker"] = border_flicker([tracks.changes])["all"]
    if tracks.mouth is not None and tracks.level_db is not None:
        figures |= _agreement(tracks.mouth, tracks.level_db)
    return figures


def _agreement(mouth: np.ndarray, level_db: np.ndarray) -> dict[str, Any]:
    if len(mouth) < MIN_SYNC_FRAMES:
        return {}
    score = sync.score_curve(sync.lag_curve(mouth, sync.loudness(level_db)))
    movement = sync.movement_ratio(mouth, sync.quiet_frames(level_db))
    return {
        "sound_correlation": score.correlation,
        "sound_lag_frames": score.lag_frames,
        "silence_movement": movement.ratio,
    }


def _middle(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    rows, columns = round(height * CROP_SHARE), round(width * CROP_SHARE)
    top, left = (height - rows) // 2, (width - columns) // 2
    return frame[top : top + rows, left : left + columns].copy()
