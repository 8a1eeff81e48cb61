"""The label that is drawn into frames: where it stands, that it can be read, what is refused."""

import numpy as np
import pytest

from joyflash_cli.errors import UsageError
from joyflash_cli.media.outputs.label import Label

TEXT = "AI-generated"


def flat(level, height=128, width=160):
    return np.full((height, width, 3), level, np.uint8)


def labelled(picture, behind=None):
    """The label's part of a frame that shows something else than the picture."""
    label = Label(TEXT, picture)
    frames = (picture if behind is None else behind)[None].copy()
    label.draw(frames)
    left, top, right, bottom = label.box
    return frames[0, top:bottom, left:right]


def contrast(one, other):
    """WCAG's contrast of two grey levels."""

    def luminance(level):
        share = level / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("level", [0, 90, 160, 255])
@pytest.mark.parametrize("behind", [0, 128, 255])
def test_it_can_be_read_whatever_comes_to_lie_behind_it(level, behind):
    part = labelled(flat(level), flat(behind))
    assert contrast(int(part.min()), int(part.max())) >= 4.5


def test_letters_are_light_on_a_dark_picture_and_dark_on_a_light_one():
    assert labelled(flat(20)).mean() < 128 < labelled(flat(230)).mean()


def test_it_stands_below_on_the_right_and_inside():
    left, top, right, bottom = Label(TEXT, flat(100)).box
    assert left > 40
    assert top > 64
    assert right < 160
    assert bottom < 128


def test_it_leaves_the_face_alone():
    left, top, right, bottom = Label(TEXT, flat(100), (60, 60, 160, 128)).box
    assert bottom < 60


def test_it_goes_where_least_is_going_on():
    picture = flat(100)
    picture[64:, 90:] = np.random.default_rng(0).integers(0, 255, (64, 70, 3), dtype=np.uint8)
    left, top, _, _ = Label(TEXT, picture).box
    assert (left < 40, top > 64) == (True, True)


def test_the_rest_of_the_frame_is_untouched():
    frames = np.random.default_rng(0).integers(0, 255, (2, 128, 160, 3), dtype=np.uint8)
    label = Label(TEXT, frames[0])
    drawn = frames.copy()
    label.draw(drawn)
    left, top, right, bottom = label.box
    frames[:, top:bottom, left:right] = drawn[:, top:bottom, left:right]
    assert (frames == drawn).all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (" ", "empty"),
        ("x" * 121, "121 characters"),
        ("bell \x07", r"'\\x07'"),
        ("a longer text than a small picture can hold", "give a shorter --label"),
    ],
)
def test_what_cannot_be_drawn_is_refused(text, says):
    with pytest.raises(UsageError, match=says) as caught:
        Label(text, flat(100))
    assert caught.value.code == "E-LABEL"
