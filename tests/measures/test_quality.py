import numpy as np
import pytest

from joyflash_cli.measures import quality


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def moving_ramp(num_frames, step=2):
    ramp = np.arange(64, dtype=np.uint8)[None, None, :, None].repeat(64, 1).repeat(3, 3)
    return np.concatenate([ramp + np.uint8(step * t) for t in range(num_frames)])


def test_psnr_of_a_known_error():
    picture = np.full((8, 8, 3), 100, np.uint8)
    assert quality.psnr_db(picture, picture + 10) == pytest.approx(20 * np.log10(25.5), abs=1e-4)
    assert quality.psnr_db(picture, picture) == 99.0


def test_psnr_of_a_box_sees_the_box_only():
    clip = np.full((2, 16, 16, 3), 50, np.uint8)
    other = clip.copy()
    other[:, 8:] = 90
    assert quality.psnr_db(clip, other, box=(0, 0, 16, 8)) == 99.0
    assert quality.psnr_db(clip, other, box=(0, 8, 16, 16)) < 17


def test_blur_lowers_sharpness_and_a_flat_picture_has_none():
    sharp = noise((3, 32, 32, 3))
    blurred = ((sharp[:, 1:].astype(int) + sharp[:, :-1]) // 2).astype(np.uint8)
    assert (quality.sharpness(blurred) < 0.8 * quality.sharpness(sharp)).all()
    assert quality.sharpness(np.full((1, 8, 8, 3), 9, np.uint8)) == 0


def test_smooth_motion_has_flicker_one():
    flicker = quality.border_flicker([quality.frame_changes(moving_ramp(81))])
    assert flicker["all"] == pytest.approx(1.0)
    assert flicker["latent_steps"] == pytest.approx(1.0)


def test_jumps_on_block_borders_count_and_others_do_not():
    frames = moving_ramp(81).astype(int)
    for border in quality.border_positions(81):
        frames[border:] += 4
    at_borders = quality.border_flicker([quality.frame_changes(frames.clip(0, 255))])
    assert at_borders["all"] > 1.5
    inside = moving_ramp(81).astype(int)
    for border in quality.border_positions(81):
        inside[border + 2 :] += 4
    elsewhere = quality.border_flicker([quality.frame_changes(inside.clip(0, 255))])
    assert elsewhere["all"] < 1.0


def test_a_four_frame_rhythm_is_not_block_flicker():
    frames = moving_ramp(81).astype(int)
    for start in range(1, 81, 4):
        frames[start:] += 3
    flicker = quality.border_flicker([quality.frame_changes(frames.clip(0, 255))])
    assert flicker["all"] > 1.2
    assert flicker["latent_steps"] == pytest.approx(1.0, abs=0.15)


def test_a_still_video_has_no_flicker_ratio():
    still = np.full((33, 8, 8, 3), 7, np.uint8)
    assert quality.border_flicker([quality.frame_changes(still)])["all"] is None


def test_speckle_measures_noise_on_what_stands_still():
    still = np.full((20, 32, 32, 3), 120, np.uint8)
    mask = np.ones((32, 32), bool)
    assert quality.speckle(still, mask) == 0
    rng = np.random.default_rng(0)
    noisy = (still + rng.normal(0, 4, still.shape)).round().astype(np.uint8)
    # Removing the 3 x 3 mean takes a ninth of white noise's variance away.
    assert quality.speckle(noisy, mask) == pytest.approx(4 * (8 / 9) ** 0.5, rel=0.05)
    fading = (still + np.arange(20)[:, None, None, None]).astype(np.uint8)
    assert quality.speckle(fading, mask) == pytest.approx(0, abs=1e-4)
    assert quality.speckle(noisy, np.zeros((32, 32), bool)) is None
