"""S3FD: against the published implementation, with random weights."""

import json

import numpy as np
import pytest
import torch

from joyflash_cli.measures.s3fd import S3FD, find_boxes, quartered
from joyflash_cli.measures.sync_crops import found_boxes
from tests.measures.s3fd_reference import RECORDED, SIZES, random_frame, random_state


@pytest.mark.parametrize("seed", [1, 2])
def test_the_published_implementation_found_the_same_boxes_with_random_weights(seed):
    network = S3FD().eval()
    network.load_state_dict(random_state(network, seed))
    for size, recorded in zip(SIZES, json.loads(RECORDED.read_text())[str(seed)], strict=True):
        found = find_boxes(network, random_frame(seed, *size))
        assert len(recorded) > 4
        np.testing.assert_allclose(found, recorded, atol=1e-3)


@pytest.mark.parametrize("size", [(150, 203), (131, 128), (5, 6)])
def test_a_frame_is_shrunk_as_published(size):
    cv2 = pytest.importorskip("cv2")
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = cv2.resize(frame, (0, 0), fx=0.25, fy=0.25, interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(quartered(frame), expected)


def test_a_picture_without_a_face_has_no_box():
    network = S3FD().eval()
    with torch.no_grad():
        for head in network.conf:
            head.bias.copy_(torch.tensor([5.0] * (len(head.bias) - 1) + [-5.0]))
    for side in (128, 64, 3):
        assert find_boxes(network, np.zeros((side, side, 3), np.uint8)).shape == (0, 4)


def test_one_of_several_faces_is_followed():
    left, right = [0.0, 0, 50, 50], [100.0, 0, 160, 60]
    found = {
        0: [left],
        1: [right, left],
        2: [],
        3: [right, [4, 0, 54, 50]],
        4: [right, [300, 0, 310, 10]],
    }
    boxes = found_boxes([*found], lambda index: np.array(found[index]).reshape(-1, 4))
    assert boxes[:2].tolist() == [left, left]
    assert np.isnan(boxes[2]).all()
    assert boxes[3].tolist() == [4, 0, 54, 50]
    assert boxes[4].tolist() == right  # the one that was followed is gone: the largest
