import numpy as np
import pytest

from joyflash_cli.measures import identity


def test_the_reference_itself_is_one_whatever_the_scale():
    reference = np.array([1.0, 2.0, 3.0])
    frames = np.stack([reference, 5 * reference])
    assert identity.similarity_to_reference(frames, reference) == pytest.approx(1.0)


def test_half_of_each_is_the_mean_and_order_does_not_matter():
    frames = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    forward = identity.similarity_to_reference(frames, frames[0])
    assert forward == pytest.approx(0.5)
    assert identity.similarity_to_reference(frames[::-1], frames[0]) == forward
