"""IDC, Q_score, Q_face and CLIP-IQA as metrics of videos, and a look that needs no download."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from joyflash_cli.errors import CheckpointError
from joyflash_cli.files import file_sha256
from joyflash_cli.measures.clip import Clip
from joyflash_cli.measures.film import batches
from joyflash_cli.measures.metric import Measured, Metric
from joyflash_cli.measures.picture_look import (
    FACE_MARGIN,
    FACE_PX,
    clarity,
    face_crop,
    noise_levels,
)
from joyflash_cli.measures.table import Measure, fixed
from joyflash_cli.media.inputs import face_points
from joyflash_cli.small_networks import asset_sha256

if TYPE_CHECKING:
    from joyflash_cli.measures.scores import Judge

NEEDS_TRANSFORMERS = "transformers is not installed: pip install 'joyflash[full]'"
NO_FACE = "no face is made out on one frame a second"
_BATCH = 16


@dataclass(frozen=True, eq=False)
class IdentityConsistency(Metric):
    """How alike the frames are to the picture for DINOv2.

    Attributes:
        directory: ``config.json`` and safetensors of another DINOv2 than the downloaded one.
    """

    directory: Path | None = None
    name = "idc"
    measures = (
        Measure("idc", "IDC", "", "mean cosine of the frames' DINOv2 class tokens (base, 224 px) "
                "to that of the picture",
                "the paper does not say which DINOv2 and against what; a still picture scores 1",
                fixed(3), "high"),
        Measure("idc_consecutive", "IDC, consecutive", "", "mean over frames of half the cosine to "
                "the frame before and half that to the first, as VBench's subject consistency",
                "VBench takes another DINO: its tables do not compare; a still picture scores 1",
                fixed(3), "high"),
    )  # fmt: skip
    needs_download = True

    def missing(self) -> str:
        """The command that brings DINOv2, where it is not."""
        return _missing("dinov2", self.directory)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Which DINOv2."""
        place = _place("dinov2", self.directory)
        return {"dinov2_sha256": file_sha256(place / "model.safetensors")}

    def compute(self, clip: Clip) -> Measured:
        """Every frame against the picture, and against the frame before.

        Raises:
            JoyFlashError: If the video or the picture cannot be read.
        """
        import torch

        from joyflash_cli.measures.scores import class_tokens, consistency, similarity_to

        reference = class_tokens(self._network, [clip.reference])[0]
        parts = batches(clip.frames(), _BATCH)
        film = torch.cat([class_tokens(self._network, part) for part in parts])
        return Measured(
            {"idc": similarity_to(film, reference), "idc_consecutive": consistency(film)},
            {"idc_consecutive": "one frame has none before it"},
        )

    @cached_property
    def _network(self) -> Any:
        from joyflash_cli.encoders.judges import load_dinov2

        return load_dinov2(_place("dinov2", self.directory))


@dataclass(frozen=True, eq=False)
class QAlignScores(Metric):
    """How good the frames and the faces look to Q-Align.

    Attributes:
        remote_code: ``REPOSITORY@REVISION`` whose code the user allows to run; none if empty.
        judge: Another network in its place; its own if ``None``.
    """

    remote_code: str = ""
    judge: "Judge | None" = None
    name = "q_align"
    measures = (
        Measure("q_score", "Q_score", "", "quality of one frame a second for Q-Align, 0 to 1",
                "", fixed(3), "high"),
        Measure("q_face", "Q_face", "", "the same of the face, cut out by the project's own points",
                "how the paper cuts faces is not known", fixed(3), "high"),
    )  # fmt: skip
    needs_download = True

    def missing(self) -> str:
        """What has to be allowed and brought."""
        if self.judge is not None:
            return ""
        from joyflash_cli.measures.scores import Q_ALIGN_REPOSITORY, Q_ALIGN_REVISION

        pinned = f"{Q_ALIGN_REPOSITORY}@{Q_ALIGN_REVISION}"
        if not self.remote_code:
            return (
                f"Q-Align runs only with code of its authors, which may do here whatever you may: "
                f"read https://huggingface.co/{Q_ALIGN_REPOSITORY}/tree/{Q_ALIGN_REVISION}, then "
                f"allow it with --remote-code {pinned}"
            )
        if self.remote_code != pinned:
            return f"--remote-code {self.remote_code} is not the pinned {pinned}"
        if find_spec("transformers") is None:
            return NEEDS_TRANSFORMERS
        if not (self._snapshot / "config.json").is_file():
            return (
                f"Q-Align is not on this machine: hf download {Q_ALIGN_REPOSITORY} "
                f"--revision {Q_ALIGN_REVISION}"
            )
        return ""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Which code and weights, and where faces are cut."""
        return {"q_align": self.remote_code, **_cut_faces()}

    def compute(self, clip: Clip) -> Measured:
        """One frame a second, and its face.

        Raises:
            JoyFlashError: If the video cannot be read.
        """
        from joyflash_cli.measures.scores import quality_score

        faces = _faces(clip)
        values = {
            "q_score": quality_score(self._judge, each_second(clip)),
            "q_face": quality_score(self._judge, faces),
        }
        return Measured(values, {} if faces else {"q_face": NO_FACE})

    @cached_property
    def _judge(self) -> "Judge":
        from joyflash_cli.encoders.judges import load_q_align
        from joyflash_cli.measures.scores import QAlign

        return QAlign(load_q_align(self._snapshot)) if self.judge is None else self.judge

    @property
    def _snapshot(self) -> Path:
        from joyflash_cli.measures.scores import Q_ALIGN_REPOSITORY, Q_ALIGN_REVISION
        from joyflash_cli.weights.places import hub_cache

        folder = f"models--{Q_ALIGN_REPOSITORY.replace('/', '--')}"
        return hub_cache() / folder / "snapshots" / Q_ALIGN_REVISION


@dataclass(frozen=True, eq=False)
class ClipIqa(Metric):
    """How good the frames and the faces look to CLIP, asked for good and bad photos.

    Attributes:
        directory: ``config.json``, safetensors and ``tokenizer.json`` of another CLIP than the
            downloaded one.
    """

    directory: Path | None = None
    name = "clip_iqa"
    measures = (
        Measure("clip_iqa", "CLIP-IQA", "", "softmax of CLIP (ViT-B/32, 224 px) over \"Good "
                "photo.\" and \"Bad photo.\", of one frame a second, 0 to 1",
                "its authors take ResNet-50 without position embedding at full size: their figures "
                "do not compare; only the middle square is seen; it is not Q_score",
                fixed(3), "high"),
        Measure("clip_iqa_face", "CLIP-IQA, face", "", "the same of the face, cut out by the "
                "project's own points", "as for CLIP-IQA; it is not Q_face", fixed(3), "high"),
    )  # fmt: skip
    needs_download = True

    def missing(self) -> str:
        """The command that brings CLIP, where it is not."""
        return _missing("clip", self.directory)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Which CLIP, and where faces are cut."""
        weights = _place("clip", self.directory) / "model.safetensors"
        return {"clip_sha256": file_sha256(weights), **_cut_faces()}

    def compute(self, clip: Clip) -> Measured:
        """One frame a second, and its face.

        Raises:
            JoyFlashError: If the video cannot be read.
        """
        from joyflash_cli.measures.scores import antonym_score

        faces = _faces(clip)
        values = {
            "clip_iqa": antonym_score(*self._network, each_second(clip)),
            "clip_iqa_face": antonym_score(*self._network, faces),
        }
        return Measured(values, {} if faces else {"clip_iqa_face": NO_FACE})

    @cached_property
    def _network(self) -> tuple[Any, Any]:
        from joyflash_cli.encoders.judges import load_clip

        return load_clip(_place("clip", self.directory))


class PictureLook(Metric):
    """What pixels alone say of the picture; no network judges it, and it is not Q_score."""

    name = "picture"
    measures = (
        Measure("face_clarity", "clarity", "", "mean gradient of the face's luma over its spread, "
                "the face at 224 px, one frame a second; blur lowers it",
                "noise and halos raise it; it is not Q_face", fixed(3), "high"),
        Measure("noise_levels", "noise", "levels of 255", "standard deviation of noise (Immerkaer "
                "1996), one frame a second", "fine texture counts as noise; it is not Q_score",
                fixed(2), "low"),
    )  # fmt: skip

    @property
    def settings(self) -> Mapping[str, Any]:
        """Where faces are cut, and how large they are made."""
        return {"face_px": FACE_PX, **_cut_faces()}

    def compute(self, clip: Clip) -> Measured:
        """One frame a second, and its face.

        Raises:
            JoyFlashError: If the video cannot be read.
        """
        noise = [noise_levels(frame) for frame in each_second(clip)]
        clear = [clarity(face) for face in _faces(clip)]
        values = {
            "face_clarity": float(np.mean(clear)) if clear else None,
            "noise_levels": float(np.mean(noise)),
        }
        return Measured(values, {} if clear else {"face_clarity": NO_FACE})


def each_second(clip: Clip) -> Iterator[np.ndarray]:
    """The frames at 0, 1, 2, ... seconds; the first of a shorter film."""
    frames = clip.frames(1.0)
    frame, following = next(frames), next(frames, None)
    if following is None:
        yield frame
    # The last that is given is the file's very last frame, whichever second it would be of.
    while following is not None:
        yield frame
        frame, following = following, next(frames, None)


def _cut_faces() -> dict[str, Any]:
    """Settings of all that look at cut faces."""
    return {"face_margin": FACE_MARGIN, "points_sha256": asset_sha256(face_points.ASSET)}


def _faces(clip: Clip) -> list[np.ndarray]:
    """The face on each of them that shows one."""
    faces = (face_crop(frame) for frame in each_second(clip))
    return [face for face in faces if face is not None]


def _place(role: str, directory: Path | None) -> Path:
    """Where the files of a role of the profile ``measures`` are, or the user's own."""
    from joyflash_cli.weights.sources import local_sources

    if directory is not None:
        return directory
    return local_sources("measures", [role])[role][0].parent


def _missing(role: str, directory: Path | None) -> str:
    """What brings transformers or the files of a role; empty where both are here."""
    if find_spec("transformers") is None:
        return NEEDS_TRANSFORMERS
    try:
        _place(role, directory)
    except CheckpointError as error:
        return f"{error.message}: {error.hint}"
    return ""
