"""Whether the person stays the same: cosines of a small identity embedding.

The embedding is this project's own small network on rendered heads, masked at the mouth. Its
cosines are not ArcFace's or DINO's and must be read next to their floor and ceiling.
"""

import numpy as np


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine along the last axis, broadcast over the others; 0 for a zero vector."""
    norm = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return (first * second).sum(-1) / np.maximum(norm, 1e-9)


def similarity_to_reference(embeddings: np.ndarray, reference: np.ndarray) -> float:
    """Mean cosine of the frames ``(F, D)`` with the reference picture ``(D,)``."""
    return float(cosine(embeddings, reference).mean())
