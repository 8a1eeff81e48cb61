"""Where the faces are: scikit-image's LBP cascade, or insightface's detector where present."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

WORKING_SIDE_PX = 256
"""A portrait is searched at this size: about a tenth of a second, faces from 1/8 of the side."""

FINE_SIDE_PX = 512
"""Second search, only when the first finds nothing: faces from 1/16 of the side."""

MIN_EVIDENCE = 4
"""Overlapping raw hits that make a face. Textures without faces gave mostly 0 to 4, faces 10 to 50
(picture and mirror image together)."""

FINE_EVIDENCE = 10
"""The second search looks at many more places: gravel, brick, grass, coins and a printed page gave
4 to 5 hits in one of them, small faces mostly 12 to 60."""

RELATIVE_EVIDENCE = 0.3
"""A second face needs this share of the best one's hits; chance clusters stay below."""

_CENTRAL_SIZE, _CENTRAL_SHIFT = 0.45, 0.15
"""A face that fills its picture: least side, and how far from the middle, as shares of the side."""

_CENTRAL_SIDES_PX = (96, 128, 160, 192)
"""Sizes at which a drawn face is searched: which lines the cascade knows depends on the scale."""

_SCALE_FACTOR = 1.1
_SAME_FACE_OVERLAP = 0.35
_REFINE_OVERLAP = 0.25


@dataclass(frozen=True)
class FaceBox:
    """A square around a face, from the brows to below the mouth, as the LBP cascade draws it.

    Attributes:
        x: Left edge, pixels.
        y: Top edge, pixels.
        size: Side, pixels.
    """

    x: float
    y: float
    size: float

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the square, (x, y) in pixels."""
        return self.x + self.size / 2, self.y + self.size / 2

    def overlap(self, other: FaceBox) -> float:
        """Intersection over union with another square, 0..1."""
        width = min(self.x + self.size, other.x + other.size) - max(self.x, other.x)
        height = min(self.y + self.size, other.y + other.size) - max(self.y, other.y)
        common = max(width, 0.0) * max(height, 0.0)
        return common / (self.size**2 + other.size**2 - common)


def find_faces(pixels: np.ndarray, *, models_dir: Path | None = None) -> list[FaceBox]:
    """Faces in a picture, the largest first; an empty list where there is none.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB.
        models_dir: Where insightface keeps its models; ``~/.insightface/models`` by default.
            Nothing is ever downloaded: without package or model the cascade alone decides.

    Returns:
        Squares in the cascade's convention, whichever detector found them.
    """
    boxes = _cascade_faces(pixels)
    detected = _insightface_faces(pixels, models_dir or Path.home() / ".insightface" / "models")
    if detected:
        boxes = [_in_cascade_convention(box, boxes) for box in detected]
    return sorted(boxes, key=lambda box: -box.size)


def fills_picture(pixels: np.ndarray) -> bool:
    """Whether anything like a face fills the middle of a picture.

    The cascade knows photographs better than drawings: of 60 drawn heads it found 47 for certain
    and gave single hits of this kind for most others. Pictures without faces gave none.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB.
    """
    return any(_has_central_hit(pixels, side) for side in _CENTRAL_SIDES_PX)


def _has_central_hit(pixels: np.ndarray, side_px: int) -> bool:
    image, _ = _grey(pixels, side_px)
    height, width = image.shape
    smallest = int(_CENTRAL_SIZE * min(height, width))
    if smallest < 24:  # below the window the cascade was trained with
        return False
    hits = _raw_hits(image, smallest)
    hits += _raw_hits(np.ascontiguousarray(image[:, ::-1]), smallest)
    reach = _CENTRAL_SHIFT * min(height, width)
    return any(
        abs(hit.centre[0] - width / 2) <= reach and abs(hit.centre[1] - height / 2) <= reach
        for hit in hits
    )


def _grey(pixels: np.ndarray, side_px: int) -> tuple[np.ndarray, float]:
    """The picture in grey with a longest side of ``side_px``, and its scale."""
    from PIL import Image

    height, width = pixels.shape[:2]
    scale = side_px / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    grey = Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.LANCZOS)
    return np.asarray(grey), scale


def _cascade_faces(pixels: np.ndarray) -> list[FaceBox]:
    searches = ((WORKING_SIDE_PX, 8, MIN_EVIDENCE), (FINE_SIDE_PX, 16, FINE_EVIDENCE))
    for side, min_share, evidence in searches:
        boxes = _cascade_at_size(pixels, side, min_share, evidence)
        if boxes:
            return boxes
    return []


def _cascade_at_size(
    pixels: np.ndarray, side_px: int, min_share: int, evidence: int
) -> list[FaceBox]:
    image, scale = _grey(pixels, side_px)
    min_size = side_px // min_share
    if min(image.shape) <= min_size:
        return []
    hits = _raw_hits(image, min_size)
    # The cascade is not symmetric; the mirror image doubles the evidence for half-turned heads.
    mirrored = _raw_hits(np.ascontiguousarray(image[:, ::-1]), min_size)
    hits += [FaceBox(image.shape[1] - box.x - box.size, box.y, box.size) for box in mirrored]
    clusters = _cluster(hits)
    best = max((len(cluster) for cluster in clusters), default=0)
    enough = max(evidence, RELATIVE_EVIDENCE * best)
    return [_median_box(cluster, 1 / scale) for cluster in clusters if len(cluster) >= enough]


def _raw_hits(image: np.ndarray, min_size: int) -> list[FaceBox]:
    """Every window of a grey picture that passes the cascade, unmerged."""
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    found = Cascade(lbp_frontal_face_cascade_filename()).detect_multi_scale(
        img=image,
        scale_factor=_SCALE_FACTOR,
        step_ratio=1,
        min_size=(min_size, min_size),
        max_size=image.shape,
        min_neighbor_number=1,
        intersection_score_threshold=1.01,  # above any overlap: the merging is done here
    )
    return [FaceBox(hit["c"], hit["r"], hit["width"]) for hit in found]


def _cluster(hits: list[FaceBox]) -> list[list[FaceBox]]:
    clusters: list[list[FaceBox]] = []
    for hit in sorted(hits, key=lambda box: (-box.size, box.y, box.x)):
        overlaps = [_median_box(cluster, 1.0).overlap(hit) for cluster in clusters]
        if overlaps and max(overlaps) > _SAME_FACE_OVERLAP:
            clusters[int(np.argmax(overlaps))].append(hit)
        else:
            clusters.append([hit])
    return clusters


def _median_box(cluster: list[FaceBox], scale: float) -> FaceBox:
    size = float(np.median([box.size for box in cluster]))
    centre_x = float(np.median([box.centre[0] for box in cluster]))
    centre_y = float(np.median([box.centre[1] for box in cluster]))
    return FaceBox((centre_x - size / 2) * scale, (centre_y - size / 2) * scale, size * scale)


def _insightface_faces(pixels: np.ndarray, models_dir: Path) -> list[FaceBox]:
    """Faces by a locally present SCRFD model; empty without package or model."""
    models = sorted(models_dir.glob("*/det_*.onnx")) if models_dir.is_dir() else []
    if not models:
        return []
    try:
        from insightface import model_zoo
    except ImportError:
        return []
    detector = model_zoo.get_model(str(models[0]))
    detector.prepare(ctx_id=-1, input_size=(640, 640), det_thresh=0.5)
    found, _ = detector.detect(np.ascontiguousarray(pixels[:, :, ::-1]))  # it expects BGR
    boxes = []
    for left, top, right, bottom, _score in found:
        # SCRFD draws hairline to chin. Its width is close to the cascade's side; the middle of
        # the square sits at the middle of the tall box.
        size = float(right - left)
        boxes.append(FaceBox(float(left), float(top + bottom - size) / 2, size))
    return boxes


def _in_cascade_convention(box: FaceBox, cascade_boxes: list[FaceBox]) -> FaceBox:
    """The cascade's own square of the same face where it found it: profiles are framed by it."""
    best = max(cascade_boxes, key=box.overlap, default=None)
    return best if best is not None and best.overlap(box) > _REFINE_OVERLAP else box
