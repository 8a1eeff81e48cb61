"""Mouths of the rendered heads: how far they open, and how light it is between the lips.

The same two figures can be had from films of people; the heads are what the embedded model learns
from, so that theirs should be people's.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from joyflash_cli.studio.clips.clips import ClipsConfig, load_heads, sample_head
from joyflash_cli.studio.evaluation.pack import load_pack
from joyflash_cli.studio.heads.face_points import LIP_MEASURES, cheeks, measures
from joyflash_cli.studio.heads.face_state import FaceState, Head

SHARES = {"makehuman": (0.0, 0.0), "ict": (0.0, 1.0), "drawn": (1.0, 0.0)}
"""Kind of head to the shares of drawn and ICT heads that give nothing else."""
SIZE_PX = 256
STATES_PER_HEAD = 24
OPEN_GAP = 0.06
"""A mouth counts as open where the lips are further apart than this, in outer eye distances."""
LEAST_PIXELS = 20
DARK = 100
"""Cheeks below this lightness count as dark."""
LUMA = np.array([0.299, 0.587, 0.114])


def mouth_lightness(
    picture: np.ndarray, mask: np.ndarray, points: np.ndarray
) -> tuple[float, float] | None:
    """95th percentile and mean of the lightness between open lips, over that of the cheeks.

    Args:
        picture: ``(H, W, 3)`` uint8.
        mask: ``(H, W)`` what is seen of the mouth's inside, 0..1.
        points: ``(12, 2)`` of the face in this picture.

    Returns:
        Both ratios, or ``None`` if too little of the inside is seen.
    """
    inside = picture[mask > 0.5] @ LUMA
    if len(inside) < LEAST_PIXELS:
        return None
    skin = float(np.median(cheeks(picture, points) @ LUMA))
    return float(np.percentile(inside, 95)) / skin, float(inside.mean()) / skin


def measure_heads(
    assets_dir: Path,
    *,
    num_heads: int = 24,
    seed: int = 7,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Figures of each kind of head while it says what the held-out clips say.

    Args:
        assets_dir: Folder of the head packs.
        num_heads: Identities of each kind, of those that training uses.
        seed: Decides who they are.
        progress: Told (kind, heads done, heads in all).

    Returns:
        Kind to ``gap_p95``, ``width_p50``, ``lids_p50``, and, of open mouths, medians over
        pictures: ``lightness_p95``, ``lightness_mean``; the same of dark-skinned heads only.

    Raises:
        DataError: A pack is missing or damaged.
    """
    pack = load_pack()
    spoken = np.concatenate([pack.long.visemes, *(clip.visemes for clip in pack.clips)])
    assets = load_heads(ClipsConfig(ict_share=1.0), assets_dir)
    report = {}
    for kind, (drawn, ict) in SHARES.items():
        config = ClipsConfig(size_px=SIZE_PX, drawn_share=drawn, ict_share=ict)
        shapes, light, skin = [], [], []
        for number in range(num_heads):
            rng = np.random.default_rng([seed, number])
            head = sample_head(config, rng, assets=assets)[1]
            for visemes in spoken[rng.integers(0, len(spoken), STATES_PER_HEAD)]:
                shape, ratios, cheek = _look(head, FaceState(visemes=visemes))
                shapes.append(shape)
                if ratios is not None:
                    light.append(ratios)
                    skin.append(cheek)
            if progress is not None:
                progress(kind, number + 1, num_heads)
        report[kind] = _figures(np.array(shapes), np.array(light), np.array(skin))
    return report


def _look(head: Head, state: FaceState) -> tuple[np.ndarray, tuple[float, float] | None, float]:
    points = head.points(state)
    shape = measures(points)
    if shape[0] < OPEN_GAP:
        return shape, None, 0.0
    picture, mask = head.render_with_mouth(state)
    skin = float(np.median(cheeks(picture, points) @ LUMA))
    return shape, mouth_lightness(picture, mask, points), skin


def _figures(shapes: np.ndarray, light: np.ndarray, skin: np.ndarray) -> dict[str, Any]:
    gap, width, lids = (shapes[:, LIP_MEASURES.index(name)] for name in ("gap", "width", "lids"))
    figures: dict[str, Any] = {
        "gap_p95": float(np.percentile(gap, 95)),
        "width_p50": float(np.median(width)),
        "lids_p50": float(np.median(lids)),
        **_medians(light),
    }
    dark = skin < DARK
    return figures | ({"dark": _medians(light[dark])} if dark.any() else {})


def _medians(light: np.ndarray) -> dict[str, Any]:
    brightest, mean = np.median(light, axis=0).tolist()
    return {"open_mouths": len(light), "lightness_p95": brightest, "lightness_mean": mean}
