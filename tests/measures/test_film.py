from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import draw_face, smooth_track

from joyflash_cli.errors import DataError
from joyflash_cli.measures import film
from joyflash_cli.measures.reader import IdentityNet, MouthReader, Readers
from joyflash_cli.media.inputs.face_points import (
    EYE_CORNERS,
    LEFT_LID,
    LIPS_INNER,
    MOUTH_CORNERS,
    NUM_POINTS,
    RIGHT_LID,
)
from joyflash_cli.media.inputs.faces import Face

NUM_FRAMES = 70
EYES_APART = 46.0


def ring(centre: tuple[float, float], width: float, height: float, number: int) -> np.ndarray:
    """Points from the left around the bottom to the left again: as lips and right lids go."""
    turn = np.linspace(0, 2 * np.pi, number, endpoint=False)
    return np.array(centre) + np.stack([-width * np.cos(turn), height * np.sin(turn)], -1)


def known_face(opening: float, lid: float, *, scale: float = 1.0) -> Face:
    """The points of ``draw_face`` at the same opening."""
    points = np.full((NUM_POINTS, 2), 64.0)
    points[LIPS_INNER] = ring((64, 92), 14, 1.5 + 9 * opening, 20)
    points[RIGHT_LID] = ring((48, 55), 7, 4 * (1 - 0.9 * lid), 16)
    points[LEFT_LID] = ring((80, 55), 7, 4 * (1 - 0.9 * lid), 16) * [-1, 1] + [160, 0]
    points[EYE_CORNERS] = [[41, 55], [55, 55], [73, 55], [87, 55]]
    points[MOUTH_CORNERS] = [[47, 92], [81, 92]]
    return Face((scale * points).astype(np.float32), 0.9)


@pytest.fixture(scope="module")
def readers():
    torch.manual_seed(0)
    return Readers(MouthReader().eval(), IdentityNet().eval())


@pytest.fixture
def speech(monkeypatch):
    """Frames and opening of a drawn face, and the points network's answers to change."""
    rng = np.random.default_rng(1)
    jaw, blink = smooth_track(rng, NUM_FRAMES), np.zeros(NUM_FRAMES)
    blink[30:35] = 1
    frames = draw_face(jaw, blink, rng)
    answers = [known_face(*state) for state in zip(jaw, blink, strict=True)]
    asked = []

    def read_points(part, face=None):
        asked.append((len(part), face))
        done = sum(number for number, _ in asked)
        return answers[done - len(part) : done]

    monkeypatch.setattr(film, "read_points", read_points)
    return frames, jaw, answers, asked


def test_opening_width_and_lids_are_read_off_the_points(speech, readers):
    frames, jaw, answers, asked = speech
    found = film.read_film(iter(frames), fps=25, readers=readers)
    assert found.opening == pytest.approx((3 + 18 * jaw) / EYES_APART, abs=1e-4)
    assert found.width == pytest.approx(np.full(NUM_FRAMES, 34 / EYES_APART), abs=1e-4)
    assert found.lids[0] > 8 * found.lids[32] > 0
    assert found.seen.all()
    assert len(found.changes) == NUM_FRAMES - 1
    for name in ("mouths", "skin", "colour", "sharpness", "identity"):
        assert len(getattr(found, name)) == NUM_FRAMES
    assert [number for number, _ in asked] == [32, 32, 6]
    assert [face for _, face in asked] == [None, answers[31], answers[63]]


def test_light_is_measured_between_open_lips_and_on_the_cheeks(speech, readers):
    frames, *_ = speech
    found = film.read_film(frames, fps=25, readers=readers)
    luma = frames[:, 92, 64] @ [0.299, 0.587, 0.114]
    assert found.open_frames.size > 20
    assert set(found.open_frames) == set(np.flatnonzero(found.opening > film.OPEN_MOUTH))
    assert found.inside[found.open_frames, 1] == pytest.approx(luma[found.open_frames], abs=12)
    cheek = frames[0, 74, 44].astype(float)
    assert found.skin_colour == pytest.approx(cheek, abs=12)


def test_the_size_of_the_film_changes_little(speech, readers):
    frames, _, answers, asked = speech
    small = film.read_film(frames, fps=25, readers=readers)
    asked.clear()
    answers[:] = [replace(face, points=3 * face.points) for face in answers]
    large = film.read_film(frames.repeat(3, 1).repeat(3, 2), fps=25, readers=readers)
    assert large.opening == pytest.approx(small.opening, abs=1e-4)
    difference = large.mouths.astype(float) - small.mouths
    assert np.abs(difference).mean() < 4
    assert large.skin == pytest.approx(small.skin, abs=3)
    cosines = (large.identity * small.identity).sum(-1)
    assert cosines.min() > 0.99


def test_frames_without_the_face_are_bridged_and_too_many_refused(speech, readers):
    frames, jaw, answers, asked = speech
    for index in range(20, 23):
        answers[index] = replace(known_face(5, 0), confidence=0.1)
    found = film.read_film(frames, fps=25, readers=readers)
    assert (~found.seen).nonzero()[0].tolist() == [20, 21, 22]
    known = (3 + 18 * jaw) / EYES_APART
    assert found.opening[[20, 21, 22]] == pytest.approx(
        np.interp([20, 21, 22], [19, 23], known[[19, 23]]), abs=1e-4
    )
    assert not set(found.open_frames) & {20, 21, 22}
    asked.clear()
    answers[10:] = [replace(face, confidence=0.1) for face in answers[10:]]
    with pytest.raises(DataError, match="14% of the frames; 50%"):
        film.read_film(frames, fps=25, readers=readers)


def test_a_film_without_a_face_is_refused(readers, monkeypatch):
    monkeypatch.setattr(film, "read_points", lambda frames, face=None: [])
    with pytest.raises(DataError, match="its first frame shows no face"):
        film.read_film(np.zeros((30, 64, 64, 3), np.uint8), fps=25, readers=readers)


def test_a_face_at_the_edge_of_the_picture_can_be_read(speech, readers):
    frames, _, answers, _ = speech
    answers[:] = [replace(face, points=face.points - [44, 60]) for face in answers]
    found = film.read_film(frames, fps=25, readers=readers)
    assert np.isfinite(found.sharpness).all()
    assert np.isfinite(found.skin).all()
