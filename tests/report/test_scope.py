"""Where the readers look in videos of whole pictures."""

import numpy as np
import pytest

from joyflash_cli.media.outputs.probe import MediaInfo
from joyflash_cli.report.scope import READING_PX, ReaderBoxes, reader_boxes
from joyflash_cli.report.sources import ClipSource


def boxes_of(tmp_path, parameters: dict) -> ReaderBoxes | str:
    source = ClipSource("a", tmp_path / "a.mp4", {"profile": "tiny", "parameters": parameters})
    info = MediaInfo(200, 300, 25.0, 1, 0.04, "h264")
    return reader_boxes(source, info, np.zeros((300, 200, 3), np.uint8))


def test_the_recorded_square_is_what_is_read(tmp_path):
    square = {"left": 40.0, "top": 100.0, "side": 120.0, "angle": 0.0}
    boxes = boxes_of(tmp_path, {"square": square})
    assert isinstance(boxes, ReaderBoxes)
    frames = np.zeros((2, 300, 200, 3), np.uint8)
    frames[:, 100:220, 40:160] = 200
    heads = boxes.read_from(frames)
    assert heads.shape == (2, READING_PX, READING_PX, 3)
    assert heads.min() > 190
    left, top, right, bottom = boxes.face
    assert 40 <= left < right <= 160
    assert 100 <= top < bottom <= 220


@pytest.mark.parametrize("square", [None, "all", {"left": 1.0}, {"left": "x", "top": 0, "side": 1}])
def test_without_a_usable_record_only_square_videos_are_read(tmp_path, square):
    reason = boxes_of(tmp_path, {"square": square})
    assert isinstance(reason, str)
    assert "200 x 300" in reason
