"""Small stand-ins for the head packs: an egg with the anatomy that the ICT code looks for."""

import numpy as np

from joyflash_cli.studio.heads.ict_pack import ORIGIN, PACK_FILE, SCALE

EXPRESSIONS = (
    "jawOpen", "mouthClose", "mouthPucker", "mouthFunnel", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "browInnerUp_L", "browInnerUp_R", "mouthLowerDown_L", "mouthLowerDown_R",
    "mouthUpperUp_L", "mouthUpperUp_R", "mouthStretch_L", "mouthStretch_R", "mouthSmile_L",
    "mouthSmile_R", "mouthPress_L", "mouthPress_R", "cheekSquint_L", "cheekSquint_R",
    "browOuterUp_L", "browOuterUp_R", "eyeBlink_L", "eyeBlink_R",
)  # fmt: skip
GRID = 12


def sheet(centre, size, *, uv_low=0.1, uv_high=0.9):
    """A square patch that faces +z: vertices in centimetres, coordinates, faces of corner pairs."""
    axis = np.linspace(-0.5, 0.5, GRID)
    x, y = np.meshgrid(axis, axis)
    vertices = np.stack([x * size, y * size, 0 * x], -1).reshape(-1, 3) + centre
    uv = np.stack([x + 0.5, y + 0.5], -1).reshape(-1, 2) * (uv_high - uv_low) + uv_low
    index = np.arange(GRID * GRID).reshape(GRID, GRID)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate(
        [np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)]
    )
    return vertices, uv, faces


PATCHES = (
    # material, centre in the pack's centimetres, size, tile of the texture
    ("M_Face", (0.0, 0.0, 11.0), 18.0, 0),
    ("M_BackHead", (0.0, 1.0, -9.0), 18.0, 1),
    ("M_Teeth", (0.0, -3.3, 10.6), 4.0, 3),
    ("M_GumsTongue", (0.0, -3.0, 10.2), 4.0, 2),
    ("M_GumsTongue", (0.0, -4.2, 10.0), 3.0, 2),
    ("M_ScleraLeft", (3.1, 3.6, 9.0), 3.0, 0),
    ("M_ScleraRight", (-3.1, 3.6, 9.0), 3.0, 0),
    ("M_EyeLashes", (3.1, 4.4, 11.1), 1.0, 6),
)
TONGUE = 4
"""Index of the patch whose texture island lies where the tongue's does."""


def write_ict_pack(folder):
    """Writes a pack of flat patches; returns its arrays."""
    vertices, uv, faces, materials, start = [], [], [], [], 0
    for number, (material, centre, size, column) in enumerate(PATCHES):
        low, high = (0.55, 0.95) if number == TONGUE else (0.05, 0.45)
        v, t, f = sheet(np.array(centre), size, uv_low=low, uv_high=high)
        if number == TONGUE:
            t[:, 1] -= 0.5
        vertices.append(v)
        uv.append(t + [column, 0])
        faces.append(np.stack([f, f], -1) + start)
        materials += [material] * len(f)
        start += len(v)
    vertices = np.concatenate(vertices).astype(np.float32)
    rng = np.random.default_rng(0)
    expressions = np.zeros((len(EXPRESSIONS), len(vertices), 3), np.float16)
    for number in range(len(EXPRESSIONS)):
        expressions[number, : GRID * GRID, 1] = -0.1 * (number + 1)
    pack = {
        "V": vertices,
        "vt": np.concatenate(uv).astype(np.float32),
        "F": np.concatenate(faces),
        "M": np.array(materials),
        "E": expressions,
        "en": np.array(EXPRESSIONS),
        "I": rng.normal(0, 0.1, (3, len(vertices), 3)).astype(np.float16),
        "landmarks68": np.arange(68),
    }
    np.savez(folder / PACK_FILE, **pack)
    return pack


def in_scene(points):
    """Centimetres of the pack as decimetres of the scene."""
    return np.asarray(points, np.float32) * SCALE + ORIGIN
