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


def test_the_floor_leaves_out_everyone_with_themselves():
    assert identity.other_people_similarity(np.eye(4)) == 0.0
    with pytest.raises(ValueError, match="two people"):
        identity.other_people_similarity(np.eye(4)[:1])


def test_recognition_rate_counts_nearest_references():
    frames = [np.array([[1.0, 0.1], [0.2, 1.0]]), np.array([[0.0, 1.0]])]
    assert identity.recognition_rate(frames, np.eye(2)) == pytest.approx(0.75)
