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


def other_people_similarity(references: np.ndarray) -> float:
    """Mean cosine between different people's references ``(n, D)``: the measure's floor.

    Raises:
        ValueError: With fewer than two people.
    """
    if len(references) < 2:
        raise ValueError("a floor needs at least two people")
    pairs = cosine(references[:, None], references[None])
    return float(pairs[~np.eye(len(references), dtype=bool)].mean())


def recognition_rate(embeddings: list[np.ndarray], references: np.ndarray) -> float:
    """Share of frames whose nearest reference is their own.

    Args:
        embeddings: Of each clip's frames, ``(F, D)``; clip i belongs to reference i.
        references: ``(n, D)``.
    """
    hits = [
        (cosine(frames[:, None], references[None]).argmax(1) == index).mean()
        for index, frames in enumerate(embeddings)
    ]
    return float(np.mean(hits))
