"""The ICT pack: units of both sides, scale, the tongue told from the gums, and broken packs."""

import numpy as np
import pytest
from head_packs import EXPRESSIONS, GRID, PATCHES, TONGUE, in_scene, write_ict_pack

from joyflash_cli.errors import DataError
from joyflash_cli.studio.heads.ict_pack import PACK_FILE, TONGUE_LIFT, load_ict
from joyflash_cli.studio.heads.rig import units_in_use


@pytest.fixture
def pack(tmp_path):
    arrays = write_ict_pack(tmp_path)
    return arrays, load_ict(tmp_path, units=units_in_use())


def test_every_unit_of_the_rig_is_found(pack):
    _, assets = pack
    assert set(assets.units) == set(units_in_use())
    assert len(assets.modes) == 3


def test_skin_is_moved_to_the_frame_of_the_other_pack(pack):
    arrays, assets = pack
    skin = slice(0, assets.skin_count)
    assert assets.skin_count == 2 * GRID * GRID
    np.testing.assert_allclose(assets.vertices[skin], in_scene(arrays["V"][skin]), atol=1e-5)


@pytest.mark.parametrize(
    ("unit", "halves"),
    [
        ("browInnerUp", ("browInnerUp_L", "browInnerUp_R")),
        ("mouthSmileLeft", ("mouthSmile_L",)),
        ("jawOpen", ("jawOpen",)),
    ],
)
def test_a_unit_is_the_sum_of_its_halves_in_decimetres(pack, unit, halves):
    _, assets = pack
    expected = sum(-0.01 * (EXPRESSIONS.index(name) + 1) for name in halves)
    np.testing.assert_allclose(assets.units[unit][0], [0, expected, 0], atol=2e-3)


def test_tongue_is_its_own_island_and_only_its_front_rises(pack):
    _, assets = pack
    rows = np.unique(assets.surfaces["tongue"].rows)
    count = GRID * GRID
    np.testing.assert_array_equal(rows, np.arange(TONGUE * count, (TONGUE + 1) * count))
    assert not np.intersect1d(rows, assets.surfaces["gums"].rows).size
    lift = assets.units["tongueOut"]
    assert lift.max() <= TONGUE_LIFT + 1e-6
    still = np.setdiff1d(np.arange(len(lift)), rows)
    assert not lift[still].any()


def test_side_teeth_stand_further_back_than_the_front_ones(pack):
    arrays, assets = pack
    teeth = np.unique(assets.surfaces["teeth"].rows)
    retreat = in_scene(arrays["V"])[teeth, 2] - assets.vertices[teeth, 2]
    width = np.abs(assets.vertices[teeth, 0])
    assert retreat.min() > 0
    assert retreat[width.argmax()] > retreat[width.argmin()] + 0.01


def test_surfaces_keep_their_triangles_and_fit_one_tile(pack):
    arrays, assets = pack
    total = sum(len(surface.triangles) for surface in assets.surfaces.values())
    assert total == len(arrays["F"]) == sum(2 * (GRID - 1) ** 2 for _ in PATCHES)
    for surface in assets.surfaces.values():
        assert surface.uv.min() >= 0
        assert surface.uv.max() <= 1
        assert surface.triangles.max() < len(surface.rows) == len(surface.uv)


def test_a_missing_pack_says_where_it_should_be(tmp_path):
    with pytest.raises(DataError, match=PACK_FILE):
        load_ict(tmp_path, units=("jawOpen",))


@pytest.mark.parametrize("content", [b"", b"not a pack"])
def test_a_damaged_pack_is_named(tmp_path, content):
    (tmp_path / PACK_FILE).write_bytes(content)
    with pytest.raises(DataError, match="is not an ICT-FaceKit head pack"):
        load_ict(tmp_path, units=("jawOpen",))


def test_an_expression_that_the_pack_lacks_is_named(tmp_path):
    write_ict_pack(tmp_path)
    with pytest.raises(DataError, match="wiggleEars"):
        load_ict(tmp_path, units=("wiggleEars",))
