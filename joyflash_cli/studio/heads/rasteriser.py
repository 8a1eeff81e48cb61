"""A small software rasteriser for heads: z-buffer, 2x2 samples a pixel, deferred shading.

It is single-threaded and deterministic, so that a training picture depends on its seed alone.
Hair, brow and lash cards use alpha-to-coverage: each of a pixel's four samples has its own alpha
threshold, which gives soft edges without sorting. The compiled loops need numba; only code that
makes training data imports this module.
"""

from dataclasses import dataclass, field

import numpy as np

from joyflash_cli.studio.heads.rasteriser_kernels import (
    rasterise,
    redraw,
    shade,
    sources,
)

SAMPLES_PER_SIDE = 2
AROUND_CELLS = 64
AROUND_REACH, AROUND_REST = 0.05, 0.03
"""How far what surrounds a moved surface follows it: a blur in sides, and the weight of rest."""
NO_CLOTH = 1e6
"""Cloth height of a vertex that can never be covered by cloth."""


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    Attributes:
        texture: ``(height, width, 4)`` uint8 RGBA.
        tint: Factor on the texture's linear colour.
        specular: Strength of the highlight; ``gloss`` is its exponent.
        softness: 0 plain diffuse .. 1 skin, where light (most of all red) wraps around the edge.
        cutout: Alpha decides per sample whether the surface is there, and both faces are drawn.
        coverage: With ``cutout``: soft edges (alpha-to-coverage) instead of one threshold of 0.5.
    """

    texture: np.ndarray
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    specular: float = 0.0
    gloss: float = 10.0
    softness: float = 0.0
    cutout: bool = False
    coverage: bool = True


@dataclass(frozen=True)
class Surface:
    """Triangles over a shared list of vertices.

    Attributes:
        rows: ``(corners,)`` index of the shared vertex behind each corner.
        uv: ``(corners, 2)`` texture coordinates, v upwards.
        triangles: ``(triangles, 3)`` indices of corners, counter-clockwise from outside.
    """

    rows: np.ndarray
    uv: np.ndarray
    triangles: np.ndarray

    @property
    def faces(self) -> np.ndarray:
        """Shared vertices ``(triangles, 3)`` of the triangles."""
        return self.rows[self.triangles]


@dataclass(frozen=True)
class Part:
    """A surface of one material."""

    surface: Surface
    material: Material


@dataclass(frozen=True)
class Lens:
    """Perspective of a camera at the origin that looks along -z.

    Attributes:
        focal: Focal length in half picture widths.
        centre_x: Where the axis meets the picture, in picture widths; ``centre_y`` downwards.
    """

    focal: float
    centre_x: float = 0.5
    centre_y: float = 0.5


@dataclass(frozen=True)
class Lighting:
    """Directional lights and ambient light in camera space.

    Attributes:
        directions: ``(lights, 3)`` towards the lights, any length.
        colours: ``(lights, 3)`` linear RGB.
        ambient: ``(3,)`` linear RGB.
        cloth: ``(3,)`` linear RGB of what lies below the collar line (cloth height < 0).
    """

    directions: np.ndarray
    colours: np.ndarray
    ambient: np.ndarray
    cloth: np.ndarray = field(default_factory=lambda: np.full(3, 0.3, np.float32))


def new_buffers(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Room ``(side, side)`` each for depth, triangle, and first and second barycentric weight."""
    types = (np.float32, np.int32, np.float32, np.float32)
    depth, triangle, first, second = (np.zeros((side, side), kind) for kind in types)
    return depth, triangle, first, second


class Scene:
    """Parts packed for rendering at one size; holds the sample buffers between frames.

    Args:
        parts: Drawn together in one z-buffer.
        size_px: Side of the square picture.
    """

    def __init__(self, parts: list[Part], size_px: int) -> None:
        self.size_px = size_px
        surfaces, looks = [part.surface for part in parts], [part.material for part in parts]
        counts = [len(surface.triangles) for surface in surfaces]
        corners = np.cumsum([0, *(len(surface.uv) for surface in surfaces)])
        self.rows = np.concatenate([surface.rows for surface in surfaces]).astype(np.int64)
        self.triangles = np.concatenate([surface.triangles for surface in surfaces])
        self.triangles = (self.triangles + np.repeat(corners[:-1], counts)[:, None]).astype(
            np.int32
        )
        material = np.repeat(np.arange(len(parts), dtype=np.int32), counts)
        uv = np.concatenate([surface.uv for surface in surfaces]).astype(np.float32)
        self._mesh = (self.triangles, material, uv)
        texels = np.concatenate([look.texture.reshape(-1, 4) for look in looks])
        sizes = np.array([look.texture.shape[1::-1] for look in looks], np.int64)
        starts = np.cumsum(sizes.prod(1)) - sizes.prod(1)
        cutout = [(1 if look.coverage else 2) if look.cutout else 0 for look in looks]
        self._textures = (texels, np.column_stack([starts, sizes]), np.array(cutout, np.int64))
        self._looks = tuple(
            np.array([getattr(look, name) for look in looks], np.float32)
            for name in ("tint", "specular", "gloss", "softness")
        )
        self._picture = np.empty((size_px, size_px, 3), np.uint8)
        self._buffers = new_buffers(size_px * SAMPLES_PER_SIDE)

    def _draw(self, x, y, depth, inverse_w, buffers) -> None:
        buffers[0].fill(np.inf)
        buffers[1].fill(-1)
        rasterise(x, y, depth, inverse_w, self._mesh, self._textures, buffers)

    def openness(
        self, vertices: np.ndarray, normals: np.ndarray, *, directions: int = 24, side: int = 160
    ) -> np.ndarray:
        """How much of the sky each vertex sees (ambient occlusion), from depth maps.

        Args:
            vertices: ``(vertices, 3)`` shared vertices.
            normals: ``(vertices, 3)`` their unit normals.
            directions: Number of depth maps, spread evenly over the sphere.
            side: Samples along each side of a depth map.

        Returns:
            ``(vertices,)`` float32, 0 enclosed .. 1 open.
        """
        centre = (vertices.max(0) + vertices.min(0)) / 2
        local = (vertices - centre) / (np.linalg.norm(vertices - centre, axis=1).max() + 1e-6)
        buffers = new_buffers(side)
        ones = np.ones(len(self.rows), np.float32)
        seen, weight = np.zeros(len(vertices)), np.full(len(vertices), 1e-6)
        for index in range(directions):
            height = 1 - 2 * (index + 0.5) / directions
            angle = index * np.pi * (3 - np.sqrt(5))
            radius = np.sqrt(1 - height**2)
            towards = np.array([radius * np.cos(angle), height, radius * np.sin(angle)])
            helper = np.array([0.0, 1.0, 0.0]) if abs(height) < 0.9 else np.array([1.0, 0.0, 0.0])
            right = np.cross(helper, towards)
            right /= np.linalg.norm(right)
            up = np.cross(towards, right)
            x = ((local @ right * 0.5 + 0.5) * side).astype(np.float32)
            y = ((0.5 - local @ up * 0.5) * side).astype(np.float32)
            depth = (-(local @ towards)).astype(np.float32)
            self._draw(x[self.rows], y[self.rows], depth[self.rows], ones, buffers)
            nearest = buffers[0][
                np.clip(y.astype(int), 0, side - 1), np.clip(x.astype(int), 0, side - 1)
            ]
            facing = np.clip(normals @ towards, 0, None)
            seen += facing * (depth <= nearest + 4.0 / side)
            weight += facing
        return (seen / weight).astype(np.float32)

    def render(
        self,
        vertices: np.ndarray,
        normals: np.ndarray,
        *,
        occlusion: np.ndarray,
        cloth_height: np.ndarray,
        lens: Lens,
        lighting: Lighting,
        background: np.ndarray,
    ) -> np.ndarray:
        """Draws one picture.

        Args:
            vertices: ``(vertices, 3)`` in camera space (x right, y up, looking along -z).
            normals: ``(vertices, 3)`` in camera space; need not be unit length.
            occlusion: ``(vertices,)`` 0 dark .. 1 open to the light.
            cloth_height: ``(vertices,)`` signed distance above the collar line; below 0 the
                surface takes the cloth's colour. ``NO_CLOTH`` where there is none.
            lens: Perspective.
            lighting: Lights and cloth colour.
            background: ``(size_px, size_px, 3)`` float32 display RGB 0..1.

        Returns:
            ``(size_px, size_px, 3)`` uint8 RGB, a new array.
        """
        position = vertices.astype(np.float32)[self.rows]
        inverse_w = 1.0 / np.maximum(-position[:, 2], 1e-3)
        side = self.size_px * SAMPLES_PER_SIDE
        x = (position[:, 0] * lens.focal * inverse_w * 0.5 + lens.centre_x) * side
        y = (lens.centre_y - position[:, 1] * lens.focal * inverse_w * 0.5) * side
        self._draw(x, y, -inverse_w, inverse_w, self._buffers)
        directions = np.asarray(lighting.directions, np.float32)
        directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        lights = (lighting.colours, lighting.ambient, lighting.cloth)
        shade(
            self._buffers,
            self._mesh,
            (
                position,
                normals.astype(np.float32)[self.rows],
                occlusion.astype(np.float32)[self.rows, None],
                cloth_height.astype(np.float32)[self.rows, None],
            ),
            self._textures,
            self._looks,
            (directions, *(np.asarray(light, np.float32) for light in lights)),
            np.asarray(background, np.float32),
            self._picture,
        )
        return self._picture.copy()

    def share_of(self, triangles: np.ndarray) -> np.ndarray:
        """How much of each pixel of the last picture shows one of some triangles.

        Args:
            triangles: ``(triangles,)`` bool, over ``self.triangles``.

        Returns:
            ``(size_px, size_px)`` float32 in 0..1.
        """
        drawn = self._buffers[1]
        shown = triangles[drawn] & (drawn >= 0)
        side = (self.size_px, SAMPLES_PER_SIDE) * 2
        return shown.reshape(side).mean((1, 3), dtype=np.float32)

    def redraw(
        self,
        photo: np.ndarray,
        source: np.ndarray,
        tone: np.ndarray,
        *,
        inside: np.ndarray,
        picture: np.ndarray,
    ) -> None:
        """Adds a photograph, moved as the last picture's surface was, to that picture, in place.

        Around the surface the photograph follows it and comes to rest further away.

        Args:
            photo: ``(n, n, 3)`` float32 0..255.
            source: ``(vertices, 2)`` where each vertex is in the photograph, fractions of its side.
            tone: ``(vertices,)`` factor on the photograph's lightness.
            inside: ``(triangles,)`` bool: those that stay as rendered.
            picture: ``(size_px, size_px, 3)`` uint8, black but for the inside.
        """
        corners = source.astype(np.float32)[self.rows]
        step = max(1, self.size_px * SAMPLES_PER_SIDE // AROUND_CELLS)
        cells = self.size_px * SAMPLES_PER_SIDE // step
        moved = np.empty((cells, cells, 2), np.float32)
        known = np.empty((cells, cells), np.float32)
        sources(self._buffers, self.triangles, inside, corners, step, moved, known)
        redraw(
            self._buffers,
            self.triangles,
            inside,
            (corners, tone.astype(np.float32)[self.rows, None]),
            _around(moved, known),
            photo,
            picture,
        )


def _around(moved: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Continues a movement ``(n, n, 2)`` beyond where it is ``known (n, n)``, fading away."""
    from scipy.ndimage import gaussian_filter

    spread = AROUND_REACH * len(known)
    weight = gaussian_filter(known, spread)
    parts = [gaussian_filter(moved[..., axis] * known, spread) for axis in (0, 1)]
    return np.stack(parts, -1) / (weight + AROUND_REST)[..., None]
