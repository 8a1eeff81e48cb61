import numpy as np

from joyflash_cli.measures.tracks import FrameMeter


def test_a_video_in_chunks_is_measured_as_in_one():
    frames = np.random.default_rng(0).integers(0, 255, (9, 16, 16, 3)).astype(np.uint8)
    whole, parts = FrameMeter(face=(2, 2, 12, 12)), FrameMeter(face=(2, 2, 12, 12))
    whole.add(frames)
    for part in (frames[:4], frames[4:5], frames[5:]):
        parts.add(part)
    ours, theirs = parts.tracks(), whole.tracks()
    assert len(ours.changes) == 8
    for name in ("colour", "sharpness", "changes"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert ours.visemes.size == ours.identity.size == 0
