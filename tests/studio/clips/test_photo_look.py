"""Photo-like clips: one look for all frames, new noise in each, backgrounds within range."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joyflash_cli.studio.clips.photo_background import (
    SCENES,
    fractal_noise,
    sample_photo_background,
)
from joyflash_cli.studio.clips.photo_look import (
    PhotoLook,
    apply_photo_look,
    jpeg_round_trip,
    sample_photo_look,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def frame(size_px=32):
    x, y = np.meshgrid(np.linspace(20, 200, size_px), np.linspace(40, 180, size_px))
    return np.stack([x, y, (x + y) / 2], -1).astype(np.uint8)


def taken(look, seed=0, count=1):
    return apply_photo_look(np.stack([frame()] * count), look, rng(seed)).astype(float)


def test_a_perfect_camera_changes_nothing():
    np.testing.assert_allclose(taken(PhotoLook())[0], frame(), atol=2)


def test_the_look_stays_and_only_the_noise_is_new():
    quiet = taken(PhotoLook(exposure=1.3, blur_px=0.5, jpeg_quality=70), count=3)
    np.testing.assert_array_equal(quiet[0], quiet[2])
    noisy = taken(PhotoLook(noise=0.03), count=3)
    difference = noisy[0] - noisy[1]
    assert 5 < difference.std() < 20
    assert abs(difference.mean()) < 1.5


def test_each_setting_does_what_it_says():
    plain = taken(PhotoLook())[0]
    assert taken(PhotoLook(exposure=1.4))[0].mean() > plain.mean() + 8
    warm = taken(PhotoLook(white_balance=(1.2, 1.0, 0.8)))[0] - plain
    assert warm[..., 0].mean() > 3
    assert warm[..., 2].mean() < -3
    grey = taken(PhotoLook(saturation=0.0))[0]
    np.testing.assert_allclose(grey[..., 0], grey[..., 2], atol=1)
    assert taken(PhotoLook(contrast=1.4))[0].std() > 1.2 * plain.std()
    fallen = taken(PhotoLook(gradient=(0.5, 0.0)))[0] - plain
    assert fallen[:, -8:].mean() > 4 > -4 > fallen[:, :8].mean()
    corners = taken(PhotoLook(vignette=1.0))[0] - plain
    assert corners[:4, :4].mean() < corners[14:18, 14:18].mean() - 4


def test_blur_and_small_files_take_detail_away():
    checks = (np.indices((32, 32)).sum(0) % 2 * 200 + 20).astype(np.uint8)
    clip = np.repeat(checks[None, ..., None], 3, -1)
    sharp = clip[0].astype(float).std()
    for look in (PhotoLook(blur_px=4.0), PhotoLook(resolution=0.5)):
        assert apply_photo_look(clip, look, rng())[0].std() < 0.6 * sharp


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_sampled_looks_keep_the_picture_recognisable(seed):
    look = sample_photo_look(rng(seed))
    y, x = np.mgrid[0:64, 0:64]
    # Features as large as eyes and mouths; a plain slope would be hidden by light from the side.
    grey = 110 + 60 * np.sin(x / 4) * np.sin(y / 5)
    clear = np.stack([grey + 20, grey, grey - 20], -1).clip(0, 255).astype(np.uint8)
    picture = apply_photo_look(clear[None], look, rng(seed))[0].astype(float)
    assert picture.shape == (64, 64, 3)
    across = np.corrcoef(picture.mean(-1).ravel(), clear.mean(-1).ravel())[0, 1]
    assert across > 0.57  # the least of all 10,001 seeds is .573, one in a hundred is below .75
    assert look.jpeg_quality is None or 40 <= look.jpeg_quality <= 95


def test_a_seed_gives_the_same_clip():
    look = sample_photo_look(rng(5))
    assert look == sample_photo_look(rng(5))
    noisy = replace(look, noise=0.02)
    np.testing.assert_array_equal(taken(noisy, seed=1, count=2), taken(noisy, seed=1, count=2))


def test_jpeg_is_close_and_coarser_at_low_quality():
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    errors = [
        np.abs(jpeg_round_trip(picture, quality=q).astype(float) - picture).mean() for q in (95, 20)
    ]
    assert errors[0] < errors[1]
    assert np.abs(jpeg_round_trip(frame(), quality=95).astype(float) - frame()).mean() < 3


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_every_scene_is_a_picture(scene):
    picture = scene(rng(3), 40)
    assert picture.shape == (40, 40, 3)
    assert np.isfinite(picture).all()
    assert picture.std() > 1e-3


def test_backgrounds_are_in_range_and_differ():
    pictures = [sample_photo_background(rng(seed), 24) for seed in range(8)]
    for picture in pictures:
        assert picture.shape == (24, 24, 3)
        assert picture.dtype == np.float32
        assert picture.min() >= 0
        assert picture.max() <= 1
    assert len({picture.tobytes() for picture in pictures}) == 8
    np.testing.assert_array_equal(pictures[3], sample_photo_background(rng(3), 24))


def test_rougher_noise_is_smoother_to_the_eye():
    def step(roughness):
        noise = fractal_noise(rng(), 64, roughness=roughness)
        assert noise.std() == pytest.approx(1, abs=1e-3)
        return np.abs(np.diff(noise)).mean()

    assert step(2.0) < step(1.0) < step(0.3)
