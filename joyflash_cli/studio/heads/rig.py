"""From viseme weights to ARKit face units.

The constants are hand-tuned on the MakeHuman face units; nothing is measured from people.
"""

from collections.abc import Mapping

import numpy as np

from joyflash_cli.studio.heads.face_state import VISEMES, FaceState

FRIENDLY_BROW = 0.45
FRIENDLY_SMILE = 0.15
"""Brow and smile of the neutral face: the base head on its own looks stern."""

SIDES = ("Left", "Right")


def face_units(state: FaceState, *, gain: Mapping[str, float] | None = None) -> dict[str, float]:
    """Weights of the ARKit units that show a face state.

    Pressed lips win over an open jaw: ``mouthClose`` cancels what the jaw still opens, so that a
    bilabial closes the lips whatever comes before and after it.

    Args:
        state: Viseme weights and expression; the pose is not used.
        gain: Factors on the weights, by unit; 1 where none is given.

    Returns:
        Unit name to weight 0..1, with units of weight 0 left out.
    """
    jaw, width, rounding, press, teeth, tongue = (
        float(state.visemes[index]) for index in range(len(VISEMES))
    )
    jaw, rounding, press = max(jaw, 0.0), min(max(rounding, 0.0), 1.0), min(max(press, 0.0), 1.0)
    teeth, tongue, wide, apart = max(teeth, 0.0), max(tongue, 0.0), max(width, 0.0), 1.0 - press
    narrow = max(-width, 0.0)
    jaw_open = 0.62 * jaw * (1.0 - 0.55 * press)
    lower_down = (0.14 * jaw + 0.28 * wide + 0.42 * teeth) * (1.0 - 0.5 * rounding) * apart
    upper_up = (0.24 * jaw + 0.16 * wide + 0.28 * teeth) * (1.0 - 0.4 * rounding) * apart
    smile = FRIENDLY_SMILE * (1.0 - rounding) + 0.26 * wide + 0.7 * max(state.smile, 0.0)
    brow = max(state.brow, 0.0)
    units = {
        "jawOpen": jaw_open,
        "mouthClose": jaw_open * press,
        "mouthPucker": 0.7 * rounding + 0.3 * narrow,
        "mouthFunnel": 0.4 * rounding * apart,
        "mouthRollLower": 0.35 * press + 0.6 * teeth * press,
        "mouthRollUpper": 0.3 * press,
        # The lower lip is pushed up a little at rest too: some identities have parted lips.
        "mouthShrugLower": 0.3 * press + 0.2 * apart * max(1.0 - 4.0 * jaw - 2.0 * teeth, 0.0),
        "tongueOut": 0.3 * tongue * apart,
        "browInnerUp": FRIENDLY_BROW + 0.5 * brow,
    }
    for side in SIDES:
        units["mouthLowerDown" + side] = lower_down
        units["mouthUpperUp" + side] = upper_up
        units["mouthStretch" + side] = 0.32 * wide * (1.0 - rounding)
        units["mouthSmile" + side] = smile
        units["mouthPress" + side] = 0.45 * press
        units["cheekSquint" + side] = 0.5 * max(state.smile, 0.0)
        units["browOuterUp" + side] = 0.35 * brow
        units["eyeBlink" + side] = max(state.blink, 0.0)
    gain = gain or {}
    return {
        name: min(weight, 1.0) * gain.get(name, 1.0)
        for name, weight in units.items()
        if weight > 1e-4
    }


def units_in_use() -> tuple[str, ...]:
    """Every unit name that ``face_units`` can return."""
    half = np.full(len(VISEMES), 0.5)
    return tuple(face_units(FaceState(visemes=half, blink=1.0, smile=1.0, brow=1.0)))


class Units:
    """Displacements of a mesh by ARKit units.

    Args:
        displacements: Unit name to ``(vertices, 3)``.
    """

    def __init__(self, displacements: Mapping[str, np.ndarray]) -> None:
        self.names = tuple(displacements)
        stacked = np.stack(list(displacements.values()))
        self._moving = np.flatnonzero(np.abs(stacked).max((0, 2)) > 1e-6)
        self._flat = np.ascontiguousarray(stacked[:, self._moving]).reshape(len(stacked), -1)

    def weights(self, units: Mapping[str, float]) -> np.ndarray:
        """Weights ``(units,)`` float32 in the order of ``names``."""
        return np.array([units.get(name, 0.0) for name in self.names], np.float32)

    def move(self, vertices: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """A copy of ``vertices``, moved."""
        moved = vertices.copy()
        moved[self._moving] += (weights @ self._flat).reshape(-1, 3)
        return moved
