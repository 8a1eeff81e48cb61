"""The rasteriser on hand-made scenes."""

import numpy as np
import pytest

from joyflash_cli.studio.heads.rasteriser import (
    NO_CLOTH,
    Lens,
    Lighting,
    Material,
    Part,
    Scene,
    Surface,
)
from joyflash_cli.studio.heads.rasteriser_kernels import vertex_normals

SIZE = 32
BACKGROUND = np.full((SIZE, SIZE, 3), 0.5, np.float32)
FRONT_LIGHT = Lighting(
    directions=np.array([[0.0, 0.0, 1.0]]),
    colours=np.ones((1, 3)),
    ambient=np.full(3, 0.3),
    cloth=np.array([0.0, 0.0, 0.9]),
)
SQUARE = np.array([[-1, -1, -4], [1, -1, -4], [1, 1, -4], [-1, 1, -4]], np.float32)
TRIANGLES = np.array([[0, 1, 2], [0, 2, 3]])
UV = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)


def plain(red: int, green: int, blue: int, alpha: int = 255) -> np.ndarray:
    return np.full((4, 4, 4), (red, green, blue, alpha), np.uint8)


def square(material: Material, first_row: int = 0, *, flipped: bool = False) -> Part:
    triangles = TRIANGLES[:, ::-1] if flipped else TRIANGLES
    return Part(Surface(np.arange(4) + first_row, UV, triangles), material)


def draw(parts: list[Part], vertices: np.ndarray, **overrides: np.ndarray) -> np.ndarray:
    normals = np.tile(np.array([0, 0, 1], np.float32), (len(vertices), 1))
    arguments = {
        "occlusion": np.ones(len(vertices), np.float32),
        "cloth_height": np.full(len(vertices), NO_CLOTH, np.float32),
        "lens": Lens(focal=2.0),
        "lighting": FRONT_LIGHT,
        "background": BACKGROUND,
    }
    return Scene(parts, SIZE).render(vertices, normals, **(arguments | overrides))


def test_square_covers_the_projected_area_and_background_stays() -> None:
    picture = draw([square(Material(plain(220, 20, 20)))], SQUARE)
    # focal 2 at distance 4: the square of half side 1 fills half of the picture's width.
    assert (picture[9:23, 9:23, 0] > picture[9:23, 9:23, 2]).all()
    assert (picture[:7] == 127).all()
    assert (picture[:, 25:] == 127).all()


def test_nearer_square_hides_the_farther_one_in_either_order() -> None:
    vertices = np.concatenate([SQUARE, SQUARE + np.array([0, 0, -1], np.float32)])
    near, far = Material(plain(200, 0, 0)), Material(plain(0, 200, 0))
    for parts in (
        [square(near), square(far, 4)],
        [square(far, 4), square(near)],
    ):
        centre = draw(parts, vertices)[16, 16]
        assert centre[0] > 100
        assert centre[1] < 10


def test_opaque_back_faces_are_culled_and_cutout_ones_are_drawn() -> None:
    opaque = draw([square(Material(plain(250, 0, 0)), flipped=True)], SQUARE)
    card = draw([square(Material(plain(250, 0, 0), cutout=True), flipped=True)], SQUARE)
    assert (opaque == 127).all()
    assert card[16, 16, 0] > 150
    assert card[16, 16, 1] < 10


@pytest.mark.parametrize(("alpha", "covered"), [(0, 0), (100, 2), (200, 3), (255, 4)])
def test_alpha_to_coverage_draws_a_share_of_the_four_samples(alpha: int, covered: int) -> None:
    card = draw([square(Material(plain(0, 0, 0, alpha), cutout=True))], SQUARE)
    assert abs(int(card[16, 16, 0]) - round(127.5 * (4 - covered) / 4)) <= 1


def test_single_threshold_cutout_keeps_or_drops_whole_pixels() -> None:
    kept = Material(plain(0, 0, 0, 140), cutout=True, coverage=False)
    dropped = Material(plain(0, 0, 0, 110), cutout=True, coverage=False)
    assert draw([square(kept)], SQUARE)[16, 16, 0] == 0
    assert draw([square(dropped)], SQUARE)[16, 16, 0] == 127


def test_texture_top_is_at_v_one() -> None:
    texture = plain(0, 0, 0)
    texture[:2] = (255, 255, 255, 255)
    picture = draw([square(Material(texture))], SQUARE)
    assert picture[10, 16, 0] > 150
    assert picture[22, 16, 0] < 30


def test_occlusion_darkens_and_cloth_recolours_below_the_collar() -> None:
    part = [square(Material(plain(200, 40, 40)))]
    open_picture = draw(part, SQUARE)
    dark = draw(part, SQUARE, occlusion=np.full(4, 0.1, np.float32))
    assert dark[16, 16, 0] < 0.6 * open_picture[16, 16, 0]
    clothed = draw(part, SQUARE, cloth_height=SQUARE[:, 1])
    assert (clothed[10, 16] == open_picture[10, 16]).all()
    assert clothed[22, 16, 2] > 100
    assert clothed[22, 16, 0] < 10


def test_lens_centre_moves_the_picture() -> None:
    part = [square(Material(plain(200, 40, 40)))]
    still = draw(part, SQUARE)
    moved = draw(part, SQUARE, lens=Lens(focal=2.0, centre_x=0.625, centre_y=0.5))
    assert (moved[:, 4:] == still[:, :-4]).all()
    assert (moved[:, :4] == 127).all()


def test_softness_lights_the_edge_that_plain_diffuse_leaves_dark() -> None:
    side_light = Lighting(np.array([[1.0, 0, -0.1]]), np.ones((1, 3)), np.zeros(3))
    skin, wood = Material(plain(200, 200, 200), softness=1.0), Material(plain(200, 200, 200))
    lit = draw([square(skin)], SQUARE, lighting=side_light)[16, 16]
    assert lit[0] > lit[1] > lit[2] > 0
    assert (draw([square(wood)], SQUARE, lighting=side_light)[16, 16] == 0).all()


def test_same_scene_gives_the_same_picture_and_a_new_array() -> None:
    scene = Scene([square(Material(plain(9, 99, 199), specular=0.3))], SIZE)
    normals = np.tile(np.array([0, 0, 1], np.float32), (4, 1))
    pictures = [
        scene.render(
            SQUARE,
            normals,
            occlusion=np.ones(4),
            cloth_height=np.full(4, NO_CLOTH),
            lens=Lens(focal=2.0),
            lighting=FRONT_LIGHT,
            background=BACKGROUND,
        )
        for _ in range(2)
    ]
    assert pictures[0] is not pictures[1]
    assert (pictures[0] == pictures[1]).all()
    assert pictures[0].dtype == np.uint8
    assert pictures[0].shape == (SIZE, SIZE, 3)


def test_vertex_normals_of_a_square_point_out_of_its_front() -> None:
    normals = vertex_normals(SQUARE, TRIANGLES.astype(np.int32))
    np.testing.assert_allclose(normals, np.tile([0, 0, 1], (4, 1)), atol=1e-6)


def cube() -> tuple[np.ndarray, np.ndarray]:
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    triangles = [t for a, b, c, d in faces for t in ((a, b, c), (a, c, d))]
    return corners, np.array(triangles, np.int32)


def test_openness_is_high_outside_a_cube_and_low_inside_it() -> None:
    corners, triangles = cube()
    assert (vertex_normals(corners, triangles) * corners > 0).all()
    inside = np.array([[0.0, 0, 0], [0.2, 0, 0], [0, 0.2, 0]], np.float32)
    vertices = np.concatenate([corners, inside])
    normals = np.concatenate([corners / np.sqrt(3), np.tile([0.0, 0, 1], (3, 1))])
    parts = [
        Part(Surface(rows, np.zeros((len(rows), 2)), faces), Material(plain(1, 1, 1)))
        for rows, faces in ((np.arange(8), triangles), (np.arange(8, 11), np.array([[0, 1, 2]])))
    ]
    openness = Scene(parts, SIZE).openness(vertices, normals.astype(np.float32))
    assert (openness[:8] > 0.9).all()
    assert (openness[8:] < 0.1).all()
