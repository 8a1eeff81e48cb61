"""Sync-C and Sync-D as a metric of videos."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from joyflash_cli.errors import DataError
from joyflash_cli.measures.clip import Clip
from joyflash_cli.measures.metric import Measured
from joyflash_cli.measures.table import Measure, fixed

if TYPE_CHECKING:
    from joyflash_cli.measures.syncnet import SyncNet

MEASURES = (
    Measure("sync_c", "Sync-C", "", "SyncNet's confidence: how much nearer lips and sound are at "
            "the best shift of 15 frames either way than at the middle one",
            "boxes of the project's own face points stand for S3FD's, and crops are not encoded "
            "again; short clips score higher, and so may clear lips of a wrong sentence",
            fixed(2), "high"),
    Measure("sync_d", "Sync-D", "", "SyncNet's distance of lips and sound at that shift",
            "as for Sync-C", fixed(2), "low"),
    Measure("sync_offset_frames", "Offset", "frames",
            "that shift in frames of 1/25 s; positive when the picture is late",
            show=lambda lag: f"{lag:+.3g}" if lag else "0", better="zero"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class SyncMetric:
    """How well lips and sound agree for SyncNet.

    Attributes:
        weights: A safetensors file of other weights than the published ones.
    """

    weights: Path | None = None
    measures = MEASURES
    needs_download = True

    @cached_property
    def name(self) -> str:
        """Figures of other weights are kept under another name, by which they are told apart."""
        from joyflash_cli.files import file_sha256

        if self.weights is None or not self.weights.is_file():
            return "sync"
        return f"sync of {file_sha256(self.weights)[:12]}"

    def missing(self) -> str:
        """The command that brings the weights, where they are not."""
        from joyflash_cli.measures.syncnet_weights import FETCH_COMMAND, syncnet_path

        if self.weights is not None:
            return "" if self.weights.is_file() else f"{self.weights} does not exist"
        if syncnet_path().is_file():
            return ""
        return f"SyncNet's weights are not on this machine: {FETCH_COMMAND}"

    def compute(self, clip: Clip) -> Measured:
        """The longest stretch on which the face is seen, against its sound.

        Raises:
            JoyFlashError: If the video cannot be read.
        """
        from joyflash_cli.measures.sync_crops import cut_faces, face_boxes, longest_track
        from joyflash_cli.measures.syncnet import FPS, SAMPLES_PER_FRAME, sync_score

        waveform = clip.waveform
        if waveform is None:
            return _none("it has no sound")
        boxes = face_boxes(clip.frames(FPS))
        try:
            track = longest_track(boxes)
            sound = waveform[track.start * SAMPLES_PER_FRAME : track.stop * SAMPLES_PER_FRAME]
            score = sync_score(self._network, cut_faces(clip.frames(FPS), track), sound)
        except DataError as error:
            return _none(error.message)
        return Measured(
            {
                "sync_c": score.confidence,
                "sync_d": score.distance,
                "sync_offset_frames": score.offset_frames,
            }
        )

    @cached_property
    def _network(self) -> "SyncNet":
        from joyflash_cli.measures.syncnet_weights import load_syncnet

        return load_syncnet(self.weights)


def _none(reason: str) -> Measured:
    return Measured(reasons={measure.name: reason for measure in MEASURES})
