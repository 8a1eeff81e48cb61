"""Head sway, blinks and small expressions: the motion that the voice does not explain."""

from dataclasses import dataclass

import numpy as np

from joyflash_cli.types import BLINK_SHAPE


@dataclass(frozen=True)
class MotionConfig:
    """Amplitudes of the unexplained motion.

    Attributes:
        scale: 1 is natural; large head motion drowns the lips in the training loss, so the
            embedded model starts at about a third.
        base_yaw: Standard deviation of a clip's mean yaw in radians, likewise ``base_pitch`` and
            ``base_roll``: the pose the reference picture shows too.
        sway_yaw: Largest sway amplitude in radians before ``scale``, likewise the others.
        sway_shift: Largest sway of the head's place, as a fraction of the picture.
        blink_every_s: Shortest and longest pause between blinks.
    """

    scale: float = 0.35
    base_yaw: float = 0.09
    base_pitch: float = 0.04
    base_roll: float = 0.025
    sway_yaw: float = 0.16
    sway_pitch: float = 0.08
    sway_roll: float = 0.05
    sway_shift: float = 0.02
    blink_every_s: tuple[float, float] = (1.8, 4.5)


def sample_motion(
    num_frames: int, rng: np.random.Generator, *, config: MotionConfig, fps: int = 25
) -> dict[str, np.ndarray]:
    """Smooth random tracks ``(F,)`` of one clip by the names and in the units of ``FaceState``."""
    time_s = np.arange(num_frames) / fps

    def sway(amplitude: float) -> np.ndarray:
        amplitude = rng.uniform(0.15, 1.0) * amplitude * config.scale
        slow = np.sin(2 * np.pi * rng.uniform(0.12, 0.35) * time_s + rng.uniform(0, 2 * np.pi))
        quick = np.sin(2 * np.pi * rng.uniform(0.4, 0.8) * time_s + rng.uniform(0, 2 * np.pi))
        return amplitude * (0.75 * slow + 0.25 * quick)

    return dict(
        yaw=rng.normal(0, config.base_yaw) + sway(config.sway_yaw),
        pitch=rng.normal(0, config.base_pitch) + sway(config.sway_pitch),
        roll=rng.normal(0, config.base_roll) + sway(config.sway_roll),
        shift_x=sway(config.sway_shift),
        shift_y=sway(config.sway_shift),
        blink=_blinks(num_frames, rng, config=config, fps=fps),
        smile=np.clip(rng.uniform(0, 0.2) + sway(0.25), 0, 1),
        brow=np.clip(rng.uniform(0, 0.2) + sway(0.5), 0, 1),
    )


def _blinks(
    num_frames: int, rng: np.random.Generator, *, config: MotionConfig, fps: int
) -> np.ndarray:
    low, high = config.blink_every_s
    track = np.zeros(num_frames + len(BLINK_SHAPE))
    start = int(rng.uniform(0, high) * fps)
    while start < num_frames:
        track[start : start + len(BLINK_SHAPE)] = BLINK_SHAPE
        start += len(BLINK_SHAPE) + int(rng.uniform(low, high) * fps)
    return track[:num_frames]
