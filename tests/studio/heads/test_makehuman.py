"""The rig from visemes to face units, and the errors of a head pack that is not there."""

from pathlib import Path

import numpy as np
import pytest

from joyflash_cli.errors import DataError
from joyflash_cli.studio.heads.face_state import VISEMES, FaceState
from joyflash_cli.studio.heads.makehuman_pack import (
    PACK_FILE,
    TEXTURE_FOLDER,
    Proxy,
    load_makehuman,
)
from joyflash_cli.studio.heads.rasteriser import Surface
from joyflash_cli.studio.heads.rig import FRIENDLY_SMILE, face_units, units_in_use


def units(**weights: float) -> dict[str, float]:
    """Units for visemes given by name; expression fields pass through."""
    visemes = np.array([weights.pop(name, 0.0) for name in VISEMES], np.float32)
    return face_units(FaceState(visemes=visemes, **weights))


def test_neutral_face_is_friendly_with_closed_mouth_and_open_eyes() -> None:
    neutral = units()
    assert neutral["mouthSmileLeft"] == neutral["mouthSmileRight"] == FRIENDLY_SMILE
    assert neutral["browInnerUp"] > 0
    assert "jawOpen" not in neutral
    assert "eyeBlinkLeft" not in neutral


def test_jaw_opens_in_proportion() -> None:
    half, full = units(jaw=0.5), units(jaw=1.0)
    assert full["jawOpen"] == pytest.approx(2 * half["jawOpen"])
    assert full["mouthLowerDownLeft"] > half["mouthLowerDownLeft"]


@pytest.mark.parametrize("jaw", [0.0, 0.3, 1.0])
def test_pressed_lips_cancel_the_jaw_and_part_nothing(jaw: float) -> None:
    pressed = units(jaw=jaw, press=1.0, teeth=0.5)
    assert pressed.get("mouthClose", 0.0) == pytest.approx(pressed.get("jawOpen", 0.0))
    assert pressed["mouthPressLeft"] > 0.3
    assert pressed["mouthRollLower"] > 0.3
    assert not {"mouthLowerDownLeft", "mouthUpperUpLeft", "mouthFunnel"} & set(pressed)


def test_rounding_puckers_and_takes_back_smile_and_stretch() -> None:
    wide, rounded = units(width=1.0), units(width=1.0, round=1.0)
    assert "mouthPucker" not in wide
    assert rounded["mouthPucker"] > 0.6
    assert "mouthStretchLeft" in wide
    assert "mouthStretchLeft" not in rounded
    assert rounded["mouthSmileLeft"] < wide["mouthSmileLeft"]


def test_teeth_part_both_lips_and_press_turns_them_into_a_lip_bite() -> None:
    shown, bitten = units(teeth=0.8), units(teeth=0.8, press=0.4)
    assert shown["mouthUpperUpLeft"] > 0.15
    assert shown["mouthLowerDownLeft"] > 0.25
    assert bitten["mouthRollLower"] > shown.get("mouthRollLower", 0.0) + 0.2


def test_narrow_width_puckers_and_expression_reaches_both_sides() -> None:
    assert units(width=-0.5)["mouthPucker"] > 0.1
    face = units(blink=0.7, smile=0.5, brow=0.5)
    for side in ("Left", "Right"):
        assert face["eyeBlink" + side] == pytest.approx(0.7)
        assert face["mouthSmile" + side] > FRIENDLY_SMILE
        assert face["browOuterUp" + side] > 0


def test_units_stay_in_range_and_within_the_announced_names() -> None:
    names = set(units_in_use())
    rng = np.random.default_rng(0)
    for _ in range(200):
        visemes = rng.uniform(-0.6, 1.3, len(VISEMES))
        state = FaceState(visemes=visemes, blink=1.2, smile=rng.random(), brow=rng.random())
        weights = face_units(state)
        assert set(weights) <= names
        assert all(0 < weight <= 1 for weight in weights.values())


def test_missing_pack_and_missing_textures_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=PACK_FILE):
        load_makehuman(tmp_path)
    (tmp_path / PACK_FILE).write_bytes(b"")
    with pytest.raises(DataError, match=TEXTURE_FOLDER):
        load_makehuman(tmp_path)
    (tmp_path / TEXTURE_FOLDER).mkdir()
    with pytest.raises(DataError, match="not a MakeHuman head pack"):
        load_makehuman(tmp_path)


def test_proxy_follows_its_carriers_and_scales_its_offset() -> None:
    head = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2]], np.float32)
    proxy = Proxy(
        reference=np.array([[0, 1, 2]]),
        weight=np.array([[0.5, 0.25, 0.25]], np.float32),
        offset=np.array([[1.0, 0.0, 0.0]], np.float32),
        scale=np.array([[0, 1, 1.0], [0, 2, 2.0], [0, 3, 2.0]]),
        surface=Surface(np.array([0]), np.zeros((1, 2)), np.zeros((0, 3), int)),
    )
    np.testing.assert_allclose(proxy.fit(head), [[0.5 + 2.0, 0.5, 0.0]])
    lift = np.tile(np.array([0, 1, 0], np.float32), (4, 1))
    np.testing.assert_allclose(proxy.follow(lift), [[0, 1, 0]])
