"""The MakeHuman head pack: base mesh, shape targets, face units, proxies and textures.

The pack is one ``makehuman_head_cc0.npz`` plus a folder ``mh_textures`` of PNG files. Shapes are in
decimetres, y up, the face looking along +z.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from joyflash_cli.studio.heads.packs import read_pack, read_texture
from joyflash_cli.studio.heads.rasteriser import Surface

PACK_FILE = "makehuman_head_cc0.npz"
TEXTURE_FOLDER = "mh_textures"

HELD_OUT_SKINS = (
    "skin_old_darkskinned_female_diffuse",
    "skin_young_lightskinned_male_diffuse3",
    "skin_middleage_lightskinned_female_diffuse2",
)
HELD_OUT_HAIRS = ("bob02", "short03")
"""Skins and hairs that ``split="train"`` never uses."""

_UPPER_TEETH_SHIFT, _LOWER_TEETH_SHIFT = (0.0, -0.052, 0.02), (0.0, -0.05, 0.0)
"""How far the teeth are set lower and forward, in the pack's units; chosen by looking."""


@dataclass(frozen=True)
class Proxy:
    """A mesh that is fitted to any identity: eyes, teeth, hair and the like.

    Attributes:
        reference: ``(vertices, 3)`` head vertices that carry each proxy vertex.
        weight: ``(vertices, 3)`` their weights.
        offset: ``(vertices, 3)`` added, scaled by the head's size along each axis.
        scale: ``(3, 3)`` per axis: two head vertices and their distance at scale 1.
        surface: Its triangles.
    """

    reference: np.ndarray
    weight: np.ndarray
    offset: np.ndarray
    scale: np.ndarray
    surface: Surface

    def fit(self, head: np.ndarray) -> np.ndarray:
        """Proxy vertices ``(vertices, 3)`` on head vertices ``(head vertices, 3)``."""
        size = np.ones(3, np.float32)
        for axis, (low, high, unit) in enumerate(self.scale):
            size[axis] = abs(head[int(low), axis] - head[int(high), axis]) / unit
        return self.follow(head) + self.offset * size

    def follow(self, field_on_head: np.ndarray) -> np.ndarray:
        """Carries a displacement ``(head vertices, 3)`` over to the proxy's vertices."""
        return (field_on_head[self.reference] * self.weight[:, :, None]).sum(1)


@dataclass(frozen=True)
class MakeHumanAssets:
    """The unpacked head pack.

    Attributes:
        vertices: ``(head vertices, 3)`` float32 base head.
        surface: The head's triangles.
        units: ARKit unit name to its displacement ``(head vertices, 3)``.
        macros: Macro target name (sex, age, ancestry, weight) to its displacement.
        details: Detail target name to its displacement (float16 to save memory).
        proxies: Name to mesh.
        texture_folder: Where the textures lie.
    """

    vertices: np.ndarray
    surface: Surface
    units: dict[str, np.ndarray]
    macros: dict[str, np.ndarray]
    details: dict[str, np.ndarray]
    proxies: dict[str, Proxy]
    texture_folder: Path
    _textures: dict[tuple[str, int | None], np.ndarray] = field(default_factory=dict, repr=False)

    def texture(self, name: str, *, longest_side_px: int | None = None) -> np.ndarray:
        """RGBA uint8 texture by name without ``.png``, read once.

        Raises:
            DataError: The texture is missing or damaged.
        """
        key = (name, longest_side_px)
        if key not in self._textures:
            path = self.texture_folder / f"{name}.png"
            self._textures[key] = read_texture(path, longest_side_px=longest_side_px)
        return self._textures[key]

    def texture_names(self, prefix: str = "", suffix: str = "") -> list[str]:
        """Sorted names of the textures that start and end with the given words."""
        names = (path.stem for path in self.texture_folder.glob("*.png"))
        return sorted(name for name in names if name.startswith(prefix) and name.endswith(suffix))


def load_makehuman(assets_dir: Path) -> MakeHumanAssets:
    """Loads the head pack.

    Args:
        assets_dir: Folder with ``makehuman_head_cc0.npz`` and ``mh_textures/``.

    Raises:
        DataError: A file is missing or is not a head pack.
    """
    pack, textures = Path(assets_dir) / PACK_FILE, Path(assets_dir) / TEXTURE_FOLDER
    return read_pack(
        pack, lambda arrays: _unpack(arrays, textures), kind="a MakeHuman", folder=textures
    )


def _unpack(pack: np.lib.npyio.NpzFile, textures: Path) -> MakeHumanAssets:
    def targets(kind: str, dtype: type) -> dict[str, np.ndarray]:
        names = (str(name) for name in pack[f"{kind}_names"])
        return dict(zip(names, pack[kind].astype(dtype), strict=True))

    units = targets("exp", np.float32)
    proxy_names = {name.split("/")[1] for name in pack.files if name.startswith("p/")}
    proxies = {name: _proxy(pack, name) for name in sorted(proxy_names)}
    proxies["teeth"] = _show_upper_teeth(proxies["teeth"], units["jawOpen"])
    return MakeHumanAssets(
        vertices=pack["V"].astype(np.float32),
        surface=_surface(pack, ""),
        units=units,
        macros=targets("macro", np.float32),
        details=targets("det", np.float16),
        proxies=proxies,
        texture_folder=textures,
    )


def _show_upper_teeth(teeth: Proxy, jaw_open: np.ndarray) -> Proxy:
    """Teeth set lower in the face.

    The pack's upper teeth end above the upper lip's edge and its lower teeth reach over them, so
    that an open mouth would show lower teeth only; in people it is the other way round.
    """
    upper = teeth.follow(jaw_open)[:, 1] > -0.02  # the jaw carries only the lower teeth
    shift = np.where(upper[:, None], _UPPER_TEETH_SHIFT, _LOWER_TEETH_SHIFT)
    return replace(teeth, offset=(teeth.offset + shift).astype(np.float32))


def _proxy(pack: np.lib.npyio.NpzFile, name: str) -> Proxy:
    return Proxy(
        reference=pack[f"p/{name}/ref"].astype(np.int64),
        weight=pack[f"p/{name}/w"],
        offset=pack[f"p/{name}/off"],
        scale=pack[f"p/{name}/sc"],
        surface=_surface(pack, f"p/{name}/"),
    )


def _surface(pack: np.lib.npyio.NpzFile, prefix: str) -> Surface:
    rows, triangles = (pack[f"{prefix}{name}"].astype(np.int64) for name in ("vi", "tri"))
    return Surface(rows, pack[f"{prefix}uv"], triangles)
