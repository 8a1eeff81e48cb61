"""Silhouettes of drawn hair: polygons behind the head, on it, and strands between."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from joyflash_cli.studio.heads.drawn_style import Identity
from joyflash_cli.studio.heads.painter import ellipse, mirrored, spline

_CENTRE_Y = 56.0


@dataclass(frozen=True)
class HairShape:
    """Hair of one identity in face coordinates.

    Attributes:
        back: Closed polygons behind head and shoulders.
        front: Closed polygons over the face.
        strands: Polylines on the front, drawn darker.
        close_cropped: Hair so short that the skin shines through.
        one_mass: Front and back are one volume of one colour, without an edge between them.
    """

    back: tuple[np.ndarray, ...] = ()
    front: tuple[np.ndarray, ...] = ()
    strands: tuple[np.ndarray, ...] = ()
    close_cropped: bool = False
    one_mass: bool = False


def _crown(identity, grow, top, *, ends_y=56.0, bumps=0, depth=0.0, phase=0.0) -> np.ndarray:
    """Outer contour from the left temple over the top to the right temple."""
    count = 25 if not bumps else 97
    angle = np.linspace(np.pi, 0.0, count)
    wave = 1.0 + (depth * np.abs(np.sin(bumps * angle + phase)) if bumps else 0.0)
    x = (identity.cheek + grow) * np.cos(angle) * wave
    y = _CENTRE_Y - (_CENTRE_Y - top) * np.sin(angle) * wave
    arc = np.stack([x, y], axis=1)
    if ends_y <= _CENTRE_Y:
        return arc
    left = np.array([[-(identity.cheek + grow), ends_y]])
    return np.concatenate([left, arc, mirrored(left)])


def _hairline(identity: Identity, *, temple: float = 0.9, ends_y: float = 58.0) -> np.ndarray:
    """Smooth inner edge from the right temple to the left."""
    a, top = identity.cheek, identity.hairline_y
    right = [[a * 0.97, ends_y], [a * temple, 47.0], [a * 0.8, top + 6.5], [a * 0.45, top + 1.2]]
    return spline([*right, [0.0, top], *mirrored(right)])


def _cap(identity: Identity, grow: float, top: float, **crown) -> np.ndarray:
    return np.concatenate([_crown(identity, grow, top, **crown), _hairline(identity)])


def _swept_strands(identity: Identity, top: float, lean: float, count: int = 5) -> tuple:
    """Lines from the hairline back over the crown."""
    lines = []
    for share in np.linspace(-0.62, 0.62, count):
        x = identity.cheek * share
        start = [x, identity.hairline_y + 2.5 + 7.0 * share * share]
        end = [x * 0.82 + lean * 7.0, top + 5.0 + 16.0 * share * share]
        middle = [0.5 * (start[0] + end[0]) + lean, 0.5 * (start[1] + end[1])]
        lines.append(spline([start, middle, end]))
    return tuple(lines)


def _buzz(identity, rng) -> HairShape:
    return HairShape(front=(_cap(identity, 0.6, 17.0),), close_cropped=True)


def _swept(identity, rng) -> HairShape:
    top = rng.uniform(10.0, 14.0)
    strands = _swept_strands(identity, top, rng.uniform(-1.0, 1.0))
    return HairShape(front=(_cap(identity, 2.0, top),), strands=strands)


def _parted(identity, rng, *, part, low, top=12.0, grow=2.6, ends_y=58.0) -> HairShape:
    """Hair combed from a parting to both sides, reaching down to ``low`` on the long side."""
    a, line = identity.cheek, identity.hairline_y
    long_side = -1.0 if part > 0 else 1.0
    edge = [
        [-long_side * a * 0.97, ends_y],
        [-long_side * a * 0.9, 46.0],
        [-long_side * a * 0.74, line + 7.0],
        [part * a, line - 5.0],
    ]
    sweep = [
        [part * a + long_side * a * 0.25, line + 2.5],
        [long_side * a * 0.42, low - 1.5],
        [long_side * a * 0.78, low + 1.5],
        [long_side * a * 0.93, low + 6.0],
        [long_side * a * 0.97, ends_y],
    ]
    inner = np.concatenate([spline(edge), spline([edge[-1], *sweep])[1:]])
    if long_side > 0:
        inner = inner[::-1]
    strands = []
    for share in (0.25, 0.5, 0.75):
        start = [part * a + long_side * 1.5, line - 7.0 + 1.5 * share]
        end = [long_side * a * (0.35 + 0.55 * share), low + 1.0 - 9.0 * (1.0 - share)]
        middle = [0.5 * (start[0] + end[0]), 0.5 * (start[1] + end[1]) - 3.5]
        strands.append(spline([start, middle, end]))
    crown = _crown(identity, grow, top)
    return HairShape(front=(np.concatenate([crown, inner]),), strands=tuple(strands))


def _side_part(identity, rng) -> HairShape:
    part = rng.choice([-1.0, 1.0]) * rng.uniform(0.25, 0.5)
    low = rng.uniform(36.0, 40.0)
    return _parted(identity, rng, part=part, low=low, top=rng.uniform(9.0, 13.0))


def _quiff(identity, rng) -> HairShape:
    a, lean = identity.cheek, rng.choice([-1.0, 1.0])
    crest = [[-a - 1.5, 56], [-a - 1.0, 40], [-a * 0.86, 22], [-a * 0.5, 8], [0, 4], [a * 0.5, 7],
             [a * 0.86, 22], [a + 1.0, 40], [a + 1.5, 56]]  # fmt: skip
    outer = np.array(crest, np.float64)
    outer[:, 0] += lean * 3.0 * np.maximum(0.0, 1.0 - outer[:, 1] / 30.0)
    front = np.concatenate([spline(outer), _hairline(identity)])
    return HairShape(front=(front,), strands=_swept_strands(identity, 5.0, 1.5 * lean, 4))


def _fringe_edge(identity, base, tip, locks, phase=0.0) -> np.ndarray:
    """Inner edge right to left whose locks end in rounded tips above the brows."""
    a = identity.cheek
    share = np.linspace(0.86, -0.86, 73)
    wave = np.abs(np.sin(np.pi * (locks * 0.5 * share + phase)))
    y = base + tip * np.sqrt(wave) + 2.2 * share * share
    middle = np.stack([a * share, y], axis=1)
    right = np.array([[a * 0.98, 60.0], [a * 0.94, 50.0]])
    return np.concatenate([right, middle, mirrored(right)])


def _fringe(identity, rng) -> HairShape:
    edge = _fringe_edge(identity, rng.uniform(34.0, 36.5), 3.6, rng.integers(4, 8), rng.random())
    top = rng.uniform(9.0, 12.0)
    outer = _crown(identity, 3.0, top, ends_y=60.0)
    return HairShape(front=(np.concatenate([outer, edge]),), strands=_lock_lines(identity, top))


def _lock_lines(identity: Identity, top: float) -> tuple:
    places = (identity.cheek * share for share in (-0.5, -0.18, 0.15, 0.48))
    return tuple(spline([[x * 0.55, top + 7.0], [x * 0.9, top + 14.0], [x, 33.0]]) for x in places)


def _curly(identity, rng) -> HairShape:
    bumps = int(rng.integers(8, 11))
    outer = _crown(identity, 2.5, 11.0, ends_y=60.0, bumps=bumps, depth=0.09, phase=rng.random())
    edge = _fringe_edge(identity, identity.hairline_y, 4.5, 6, rng.random())
    strands = tuple(
        spline([[x - 3, y], [x, y - 2.5], [x + 3, y], [x + 1, y + 2.5]])
        for x, y in zip(rng.uniform(-22, 22, 5), rng.uniform(17, 28, 5), strict=True)
    )
    return HairShape(front=(np.concatenate([outer, edge]),), strands=strands)


def _mop(identity, rng) -> HairShape:
    part = rng.choice([-1.0, 1.0]) * rng.uniform(0.05, 0.2)
    return _parted(identity, rng, part=part, low=39.5, top=7.5, grow=4.5, ends_y=62.0)


def _afro(identity, rng) -> HairShape:
    angle = np.linspace(0.0, 2.0 * np.pi, 120, endpoint=False)
    wave = 1.0 + 0.035 * np.abs(np.sin(9.0 * angle + rng.random()))
    radius = rng.uniform(10.0, 15.0) + identity.cheek
    x = radius * np.cos(angle) * wave
    y = 44.0 + (radius - 2.0) * np.sin(angle) * wave
    edge = _fringe_edge(identity, identity.hairline_y - 1.0, 2.4, 8)
    front = np.concatenate([_crown(identity, 3.0, 15.0), edge[1:-1]])
    return HairShape(back=(np.stack([x, y], axis=1),), front=(front,), one_mass=True)


def _spiky(identity, rng) -> HairShape:
    a, count = identity.cheek, int(rng.integers(7, 10))
    angle = np.linspace(np.pi * 1.02, -0.02 * np.pi, 2 * count + 1)
    radius = 1.0 + np.where(np.arange(2 * count + 1) % 2, rng.uniform(0.13, 0.24), 0.0)
    x = (a + 1.5) * np.cos(angle) * radius
    y = _CENTRE_Y - (_CENTRE_Y - 15.0) * np.sin(angle) * radius
    y = np.maximum(y, 1.0)
    tips = np.linspace(0.8, -0.8, 11)
    edge_y = np.where(np.arange(11) % 2, 39.0, identity.hairline_y + 1.0) + 3.0 * tips * tips
    inner = np.stack([a * tips, edge_y], axis=1)
    inner[1::2, 0] += rng.choice([-2.0, 2.0])
    right = np.array([[a * 0.97, 60.0], [a * 0.93, 46.0]])
    front = np.concatenate([np.stack([x, y], axis=1), right, inner, mirrored(right)])
    return HairShape(front=(front,))


def _curtain(identity, width, bottom, wave=0.0) -> np.ndarray:
    """Back hair from the crown down to ``bottom``."""
    a = identity.cheek
    down = np.linspace(50.0, bottom, 9)
    x = a + 3.0 + (width - 3.0) * np.sin(np.linspace(0.0, 0.5 * np.pi, 9))
    x = x + wave * np.sin(np.linspace(0.0, 3.0 * np.pi, 9))
    right = np.stack([x, down], axis=1)
    crown = _crown(identity, 3.0, 12.0)
    return np.concatenate([crown, spline(right), spline(mirrored(right))])


def _side_locks(identity, bottom, *, inner=0.86, wave=0.0) -> tuple:
    """Hair hanging in front of the ears on both sides."""
    a = identity.cheek
    down = np.array([44.0, 56.0, 70.0, 84.0, bottom])
    swing = wave * np.sin(np.linspace(0.0, 3.0 * np.pi, 5))
    outside = np.stack([a + np.array([2.5, 4.5, 6.0, 6.0, 3.0]) + swing, down], axis=1)
    inside = np.stack([a * np.array([inner, 0.93, 0.97, 0.99, 1.0]) + swing, down], axis=1)
    right = spline(np.concatenate([outside, inside[::-1]]), closed=True)
    return right, mirrored(right)


def _bob(identity, rng) -> HairShape:
    top = _fringe(identity, rng)
    bottom = rng.uniform(92.0, 102.0)
    back = _curtain(identity, 9.0, bottom)
    return HairShape((back,), (*_side_locks(identity, bottom - 4.0), *top.front), top.strands)


def _long(identity, rng) -> HairShape:
    part = rng.choice([-1.0, 1.0]) * rng.uniform(0.15, 0.45)
    top = _parted(identity, rng, part=part, low=38.0, top=11.0, grow=3.0)
    back = _curtain(identity, rng.uniform(9.0, 14.0), 136.0)
    return HairShape((back,), (*_side_locks(identity, 110.0), *top.front), top.strands)


def _wavy(identity, rng) -> HairShape:
    part = rng.choice([-1.0, 1.0]) * rng.uniform(0.1, 0.5)
    top = _parted(identity, rng, part=part, low=38.0, top=10.0, grow=4.0)
    back = _curtain(identity, rng.uniform(12.0, 16.0), 132.0, wave=2.2)
    locks = _side_locks(identity, 104.0, wave=1.6)
    return HairShape((back,), (*locks, *top.front), top.strands)


def _centre_part(identity, rng) -> HairShape:
    a, line = identity.cheek, identity.hairline_y
    right = [[a * 0.97, 60.0], [a * 0.92, 50.0], [a * 0.76, 40.0], [a * 0.4, line + 3.0]]
    middle = [0.0, line - 6.0]
    inner = np.concatenate([spline([*right, middle]), spline([middle, *mirrored(right)])])
    front = np.concatenate([_crown(identity, 3.0, 12.0), inner])
    bottom = rng.choice([96.0, 136.0])
    back = _curtain(identity, rng.uniform(7.0, 12.0), bottom)
    locks = _side_locks(identity, min(bottom - 5.0, 108.0))
    return HairShape((back,), (*locks, front), _swept_strands(identity, 16.0, 0.0, 4))


def _bun(identity, rng) -> HairShape:
    top = _swept(identity, rng)
    knot = ellipse((rng.uniform(-3.0, 3.0), 11.0), (12.0, 10.5))
    return HairShape((knot,), top.front, top.strands)


def _pigtails(identity, rng) -> HairShape:
    top = _fringe(identity, rng) if rng.random() < 0.5 else _centre_part(identity, rng)
    a = identity.cheek
    tail = [[a, 38], [a + 11, 40], [a + 19, 58], [a + 17, 82], [a + 10, 98], [a + 7, 80],
            [a + 4, 58]]  # fmt: skip
    right = spline(tail, closed=True)
    return HairShape((right, mirrored(right)), top.front[-1:], top.strands)


_CUTS: dict[str, Callable] = {
    "bald": lambda identity, rng: HairShape(),
    "buzz": _buzz,
    "swept": _swept,
    "side part": _side_part,
    "quiff": _quiff,
    "fringe": _fringe,
    "curly": _curly,
    "mop": _mop,
    "afro": _afro,
    "spiky": _spiky,
    "bob": _bob,
    "long": _long,
    "wavy": _wavy,
    "centre part": _centre_part,
    "bun": _bun,
    "pigtails": _pigtails,
}


def shape_hair(identity: Identity) -> HairShape:
    """The hair of this identity; the same identity always gives the same hair."""
    return _CUTS[identity.hair](identity, np.random.default_rng(identity.detail_seed))
