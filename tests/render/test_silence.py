"""The embedded model while nobody speaks: lips closed, the face alive."""

from pathlib import Path

import numpy as np
import pytest

from joyflash_cli.measures.film import face_shapes
from joyflash_cli.media.inputs.audio import read_audio
from joyflash_cli.media.inputs.face_points import EYE_CORNERS
from joyflash_cli.media.inputs.faces import read_points
from joyflash_cli.media.scene import FrameOptions
from joyflash_cli.render import JoyFlash, read_request
from joyflash_cli.types import AudioClip

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def film():
    """2.4 s of speech, then four of silence: points of the face in every frame."""
    joyflash = JoyFlash.load("tiny", device="cpu")
    voice = read_audio(EXAMPLES / "talk.wav")
    rate_hz = voice.sample_rate_hz
    silence = np.zeros((4 * rate_hz, voice.samples.shape[1]), np.float32)
    clip = AudioClip(np.concatenate([voice.samples[: 12 * rate_hz // 5], silence]), rate_hz)
    frame = FrameOptions(frame="face", size_px=256)
    request = read_request(joyflash.files, EXAMPLES / "face.png", clip, frame=frame)
    face, points = None, []
    for chunk in joyflash.stream(request):
        found = read_points(list(chunk.frames), face)
        face = found[-1]
        points += [each.points for each in found]
    return np.stack(points).astype(np.float64)


def test_lips_stay_closed_in_silence_and_the_head_does_not_freeze(film):
    opening = face_shapes(film)["opening"]
    speech, silence = opening[10:58], opening[78:]
    moved = [np.abs(np.diff(part)).mean() for part in (speech, silence)]
    assert moved[1] < 0.02 * moved[0]
    assert silence.max() < 0.02
    eyes = film[78:, EYE_CORNERS].mean(1)
    apart = np.linalg.norm(film[0, EYE_CORNERS[0]] - film[0, EYE_CORNERS[3]])
    # Distances of the outer eye corners a second, of both: speech has 0.07.
    steps = np.linalg.norm(np.diff(eyes, axis=0), axis=1)[:75] / apart
    speed = 25 * steps.reshape(-1, 25).mean(1)
    assert speed.min() > 0.01
    assert speed.max() < 0.15


def test_blinks_come_as_often_as_people_blink():
    description = JoyFlash.load("tiny", device="cpu").files.description
    a_minute = 60 * description.sampler.fps / description.codec.blink_every_frames
    assert 8 <= a_minute <= 30
