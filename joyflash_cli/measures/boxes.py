"""Boxes of faces ``(4,)``: left, top, right, bottom."""

import numpy as np


def overlap_of(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes ``(4,)``."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = float((high - low).clip(0).prod())
    areas = float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod())
    return shared / max(areas - shared, 1e-9)


def apart(boxes: np.ndarray, overlap: float) -> np.ndarray:
    """Boxes ``(n, 4)`` in order of preference, less those that overlap an earlier one more."""
    kept: list[np.ndarray] = []
    for box in boxes:
        if all(overlap_of(box, other) <= overlap for other in kept):
            kept.append(box)
    return np.array(kept).reshape(-1, 4)
