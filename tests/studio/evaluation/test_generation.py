import numpy as np
import pytest

from joyflash_cli.errors import CheckpointError, DataError
from joyflash_cli.studio.evaluation.generation import CheckpointRenderer

SIZE_PX = 64


@pytest.fixture(scope="module")
def renderer(toy_checkpoint):
    return CheckpointRenderer(toy_checkpoint, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def picture():
    rows, columns = np.mgrid[0:SIZE_PX, 0:SIZE_PX]
    return np.stack([rows * 3, columns * 3, rows + columns], axis=-1).astype(np.uint8)


def test_the_shipped_pipeline_covers_the_sound_and_repeats_with_the_seed(renderer, picture):
    waveform = np.random.default_rng(0).normal(0, 0.1, 21 * 640).astype(np.float32)
    chunks = list(renderer.stream(picture, waveform, seed=3))
    assert [len(chunk) for chunk in chunks] == [9, 12]
    assert chunks[0].shape[1:] == (SIZE_PX, SIZE_PX, 3)
    assert chunks[0].dtype == np.uint8
    again = np.concatenate(list(renderer.stream(picture, waveform, seed=3)))
    np.testing.assert_array_equal(again, np.concatenate(chunks))
    other = np.concatenate(list(renderer.stream(picture, waveform, seed=4)))
    assert (other != again).any()


def test_reconstruction_keeps_the_clip_s_shape(renderer, picture):
    clip = np.repeat(picture[None], 9, axis=0)
    clip[4:] = clip[4:, ::-1]
    found = renderer.reconstruct(clip, picture)
    assert found.shape == clip.shape
    assert found.dtype == np.uint8


def test_clips_of_half_the_size_are_enlarged_and_measured_at_theirs(renderer, picture):
    small = picture[::2, ::2]
    waveform = np.zeros(9 * 640, np.float32)
    (chunk,) = renderer.stream(small, waveform, seed=3)
    enlarged = small.repeat(2, 0).repeat(2, 1)
    (large,) = renderer.stream(enlarged, waveform, seed=3)
    assert chunk.shape == (9, SIZE_PX // 2, SIZE_PX // 2, 3)
    pooled = large.reshape(9, SIZE_PX // 2, 2, SIZE_PX // 2, 2, 3).mean((2, 4))
    np.testing.assert_allclose(chunk, pooled, atol=0.5)
    found = renderer.reconstruct(np.repeat(small[None], 9, axis=0), small)
    assert found.shape == chunk.shape
    with pytest.raises(DataError, match="the clips have 48 px"):
        next(renderer.stream(picture[:48, :48], waveform, seed=3))


def test_a_missing_checkpoint_says_so(tmp_path):
    with pytest.raises(CheckpointError):
        CheckpointRenderer(tmp_path / "none")
