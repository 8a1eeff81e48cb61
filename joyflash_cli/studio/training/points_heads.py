"""Rendered and drawn heads for the face networks: their points are known exactly."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from joyflash_cli.studio.clips.clips import ClipsConfig, identity_index, load_heads, sample_head
from joyflash_cli.studio.clips.photo_look import apply_photo_look, sample_photo_look
from joyflash_cli.studio.clips.real_faces import PointedPicture
from joyflash_cli.studio.heads.face_state import FaceState

_SIZE_PX = 256
_STATES_PER_HEAD = 3
_PROFILE_SHARE = 0.12
"""Of rendered faces: turned by 55 to 90 degrees, to be refused."""

_FULLY_TURNED = 0.96
"""Sine of the yaw at which ``turned`` is 1."""


def render_heads(num_heads: int, assets_dir: Path, *, seed: int) -> Iterator[PointedPicture]:
    """Heads with three expressions and poses each: ICT, MakeHuman and drawn ones in equal parts.

    Args:
        num_heads: Identities of the training split.
        assets_dir: Folder of the head packs.
        seed: Of the identities.

    Raises:
        DataError: A pack is missing or damaged.
    """
    config = ClipsConfig(size_px=_SIZE_PX, drawn_share=0.34, ict_share=0.33, seed=seed)
    assets = load_heads(config, assets_dir)
    for index in range(num_heads):
        rng = np.random.default_rng([seed, identity_index(index, split="train")])
        kind, head = sample_head(config, rng, assets=assets, photo=rng.random() < 0.4)
        for _ in range(_STATES_PER_HEAD):
            state = _state(rng, turns=kind != "drawn")
            pixels = head.render(state)
            if kind != "drawn" and rng.random() < 0.5:
                pixels = apply_photo_look(pixels[None], sample_photo_look(rng), rng)[0]
            turned = abs(np.sin(state.yaw)) / _FULLY_TURNED
            yield PointedPicture(pixels, head.canonical_points(state), turned, False, kind)


def _state(rng: np.random.Generator, *, turns: bool) -> FaceState:
    """A random moment of speech; a share of the heads that can turn shows a profile."""
    visemes = np.array(rng.beta(0.6, 1.6, 6), np.float32)
    visemes[3] *= rng.random() < 0.3
    state = FaceState(
        visemes=visemes,
        blink=float(rng.choice([0.0, rng.random(), 1.0], p=[0.7, 0.2, 0.1])),
        smile=float(rng.beta(0.5, 1.5)),
        brow=float(rng.beta(0.5, 1.5)),
        yaw=float(rng.normal(0, 0.12)),
        pitch=float(rng.normal(0, 0.08)),
    )
    if not turns:
        return state
    if rng.random() < _PROFILE_SHARE:
        return replace(state, yaw=float(rng.choice([-1, 1]) * np.deg2rad(rng.uniform(55, 90))))
    return replace(state, yaw=float(rng.normal(0, 0.3)))
