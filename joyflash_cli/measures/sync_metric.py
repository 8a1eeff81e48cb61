"""Sync-C and Sync-D as a metric of videos."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from joyflash_cli.errors import DataError
from joyflash_cli.files import file_sha256
from joyflash_cli.measures.clip import Clip
from joyflash_cli.measures.metric import Measured, Metric
from joyflash_cli.measures.network_weights import fetch_command, load_network, weights_path
from joyflash_cli.measures.table import Measure, fixed
from joyflash_cli.media.inputs import face_points
from joyflash_cli.small_networks import asset_sha256

if TYPE_CHECKING:
    from joyflash_cli.measures.s3fd import S3FD
    from joyflash_cli.measures.syncnet import SyncNet

MEASURES = (
    Measure("sync_c", "Sync-C", "", "SyncNet's confidence: how much nearer lips and sound are at "
            "the best shift of 15 frames either way than at the middle one",
            "crops are not encoded again; where S3FD was not brought, the project's own face "
            "points stand for its boxes; short clips score higher, and so may clear lips of a "
            "wrong sentence",
            fixed(2), "high"),
    Measure("sync_d", "Sync-D", "", "SyncNet's distance of lips and sound at that shift",
            "as for Sync-C", fixed(2), "low"),
    Measure("sync_offset_frames", "Offset", "frames",
            "that shift in frames of 1/25 s; positive when the picture is late",
            show=lambda lag: f"{lag:+.3g}" if lag else "0", better="zero"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class SyncMetric(Metric):
    """How well lips and sound agree for SyncNet.

    Attributes:
        weights: A safetensors file of other weights than the published ones.
    """

    weights: Path | None = None
    name = "sync"
    measures = MEASURES
    needs_download = True

    def missing(self) -> str:
        """The command that brings the weights, where they are not."""
        if self.weights is not None:
            return "" if self.weights.is_file() else f"{self.weights} does not exist"
        if weights_path("syncnet").is_file():
            return ""
        return f"SyncNet's weights are not on this machine: {fetch_command('syncnet')}"

    @property
    def settings(self) -> Mapping[str, Any]:
        """Which SyncNet, and what finds the faces."""
        weights = weights_path("syncnet") if self.weights is None else self.weights
        detector, s3fd = "face points", weights_path("s3fd")
        if s3fd.is_file():
            detector, sha256 = "S3FD", file_sha256(s3fd)
        else:
            sha256 = asset_sha256(face_points.ASSET)
        return {
            "syncnet_sha256": file_sha256(weights),
            "detector": detector,
            "detector_sha256": sha256,
        }

    def compute(self, clip: Clip) -> Measured:
        """The longest stretch on which the face is seen, against its sound.

        Raises:
            JoyFlashError: If the video cannot be read.
        """
        from joyflash_cli.measures.sync_crops import cut_faces, longest_track
        from joyflash_cli.measures.syncnet import FPS, SAMPLES_PER_FRAME, sync_score

        waveform = clip.waveform
        if waveform is None:
            return _none("it has no sound")
        boxes = self._boxes(clip)
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

    def _boxes(self, clip: Clip) -> np.ndarray:
        """The box of the face on every frame ``(F, 4)``."""
        from joyflash_cli.measures.sync_crops import face_boxes, found_boxes
        from joyflash_cli.measures.syncnet import FPS

        if self._s3fd is None:
            return face_boxes(clip.frames(FPS))
        from joyflash_cli.measures.s3fd import find_boxes

        return found_boxes(clip.frames(FPS), functools.partial(find_boxes, self._s3fd))

    @cached_property
    def _network(self) -> "SyncNet":
        return cast("SyncNet", load_network("syncnet", self.weights))

    @cached_property
    def _s3fd(self) -> "S3FD | None":
        if not weights_path("s3fd").is_file():
            return None
        return cast("S3FD", load_network("s3fd"))


def _none(reason: str) -> Measured:
    return Measured(reasons={measure.name: reason for measure in MEASURES})
