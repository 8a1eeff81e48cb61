"""A live session on a clock that the test moves: what leaves, when, and what is told of it."""

import random

import numpy as np
import pytest
from live_stub import BLOCK, FPS, live_session, tone

from joyflash_cli.errors import UsageError

RATE_HZ = 2_000
FRAME_SAMPLES = RATE_HZ // FPS


def play(session, script, until):
    """Frames up to ``until``, with what ``script`` says is done before each."""
    frames = []
    for frame in session.frames():
        frames.append(frame)
        for act in script.get(frame.index, ()):
            act()
        if frame.index + 1 == until:
            session.clear()
            session.end()
    return frames


def loudness(frames):
    return np.array([np.abs(frame.sound.samples).max() for frame in frames])


def brightness(frames):
    return np.array([frame.pixels[0, 0, 0] for frame in frames])


def test_idle_from_the_first_moment_on_the_clock():
    session, told, clock, _ = live_session()
    began = None
    for frame in session.frames():
        began = began if began is not None else clock.now()
        assert clock.now() - began == pytest.approx(frame.index / FPS, abs=1e-6)
        assert len(frame.sound.samples) == FRAME_SAMPLES
        assert not frame.sound.samples.any()
        if frame.index == 200:
            session.end()
    assert told.names == ["ready", "idle", "ended"]
    assert told[0][1]["video_s"] == 0.0
    assert told[-1][1]["late_s"] == {"p50": 0.0, "p90": 0.0, "p99": 0.0}


def test_a_segment_from_its_first_frame_to_its_last():
    session, told, _, _ = live_session()
    script = {50: [lambda: session.push(tone(1.0)), lambda: session.end_segment("hello"),
                   lambda: session.mark("after")]}  # fmt: skip
    frames = play(session, script, 200)
    spoken = np.flatnonzero(loudness(frames))
    assert len(spoken) == FPS
    assert set(np.diff(spoken)) == {1}
    first, last = told.of("segment_first_frame")[0], told.of("segment_last_frame")[0]
    assert round(first["video_s"] * FPS) == spoken[0]
    assert round(last["video_s"] * FPS) == spoken[-1]
    assert (first["segment"], last["segment"], last["id"]) == (1, 1, "hello")
    assert first["latency_s"] == pytest.approx((spoken[0] - 50) / FPS, abs=0.05)
    assert first["latency_s"] < session.expected_latency_s + 0.1
    assert told.of("mark")[0] == {
        "name": "after", "cleared": False,
        "video_s": last["video_s"], "wall_time": last["wall_time"],
    }  # fmt: skip
    # Picture and sound are of the same moment.
    assert np.array_equal(brightness(frames) > 0, loudness(frames) > 0)


def test_sound_in_small_pieces_at_its_own_pace_does_not_stumble():
    session, told, _, _ = live_session()
    script = {40 + n: [lambda: session.push(tone(0.04))] for n in range(50)}
    script[90] = [lambda: session.end_segment(1)]
    frames = play(session, script, 220)
    spoken = np.flatnonzero(loudness(frames))
    assert set(np.diff(spoken)) == {1}
    assert len(spoken) in (50, 51)
    assert len(told.of("segment_first_frame")) == 1


def test_a_segment_that_pauses_goes_on():
    session, told, _, _ = live_session()
    script = {40: [lambda: session.push(tone(0.4))], 100: [lambda: session.push(tone(0.4))],
              140: [lambda: session.end_segment("one")]}  # fmt: skip
    frames = play(session, script, 260)
    assert (loudness(frames) > 0).sum() == 20
    assert [values["segment"] for values in told.of("segment_first_frame")] == [1]
    assert [values["id"] for values in told.of("segment_last_frame")] == ["one"]
    assert len(told.of("idle")) == 3


@pytest.mark.parametrize("seed", range(6))
def test_interrupted_at_any_moment(seed):
    """Silent from the next frame on, the mouth closed within a block and what the model needs."""
    chance = random.Random(seed)
    session, told, _, _ = live_session()
    at = chance.randrange(60, 160)
    script = {
        30: [lambda: session.push(tone(6.0)), lambda: session.mark("never"),
             lambda: session.end_segment("cut")],
        at: [session.clear],
        at + 3: [lambda: session.push(tone(0.8)), lambda: session.end_segment("new")],
    }  # fmt: skip
    frames = play(session, script, 300)
    loud, bright = loudness(frames), brightness(frames)
    again = round(told.of("segment_first_frame")[1]["video_s"] * FPS)
    assert loud[at] > 0
    assert not loud[at + 2 : again].any()
    assert not bright[at + 1 + 2 * BLOCK : again].any()
    assert (loud[again:] > 0).sum() == 20
    assert np.array_equal(bright[again:] > 0, loud[again:] > 0)
    cleared = told.of("cleared")[0]
    assert cleared["video_s"] == pytest.approx((at + 1) / FPS)
    assert cleared["ids"] == ["cut"]
    assert told.of("idle")[1]["video_s"] == cleared["video_s"]
    assert [values["cleared"] for values in told.of("mark")] == [True]
    assert [values["id"] for values in told.of("segment_last_frame")] == ["new"]


def test_eight_hours():
    """Frames stay on the clock and on their sound; nothing grows. Five a second, to be quick."""
    fps, hours_s = 5, 8 * 3600
    session, told, clock, chunks = live_session(fps=fps)
    began, worst, num_spoken = None, 0.0, 0
    for frame in session.frames():
        began = began if began is not None else clock.now()
        worst = max(worst, abs(clock.now() - began - frame.index / fps))
        if frame.index % 3_000 == 0:
            session.push(tone(2.0))
            session.end_segment(frame.index)
        is_loud = bool(frame.sound.samples[40, 0])
        assert is_loud == bool(frame.pixels[0, 0, 0])
        num_spoken += is_loud
        if frame.index == hours_s * fps:
            session.clear()
            session.end()
    assert worst < 1e-3 / fps
    assert num_spoken == hours_s * fps // 3_000 * 10
    assert len(told.of("segment_last_frame")) == hours_s * fps // 3_000
    assert told[-1][1]["video_s"] == pytest.approx(hours_s, abs=1)
    assert len(chunks[0].heard) < 100


def test_a_slow_model_falls_behind_and_loses_nothing():
    session, told, clock, _ = live_session(block_s=0.6)
    frames = play(session, {30: [lambda: session.push(tone(4.0)),
                                 lambda: session.end_segment("all")]}, 300)  # fmt: skip
    assert (loudness(frames) > 0).sum() == 100
    assert not any(frame.is_repeated for frame in frames)
    assert np.array_equal(brightness(frames) > 0, loudness(frames) > 0)
    behind = [values["frames"] for values in told.of("late")]
    assert max(behind) > 30


def test_a_slow_model_skips_and_stays_on_the_clock():
    session, told, clock, _ = live_session(block_s=0.8, late="skip")
    began, frames, late = None, [], []
    for frame in session.frames():
        began = began if began is not None else clock.now()
        late.append(clock.now() - began - frame.index / FPS)
        frames.append(frame)
        if frame.index == 30:
            session.push(tone(8.0))
            session.end_segment("all")
        if frame.index == 600:
            session.end()
    assert max(late) < 2 / FPS
    assert (loudness(frames) > 0).sum() == 200  # all of the sound
    repeated = sum(frame.is_repeated for frame in frames)
    assert 200 < repeated < 450  # the model makes six of ten
    assert told[-1][1]["repeated"] == repeated
    fresh = [f for f in frames if not f.is_repeated]
    assert np.array_equal(brightness(fresh) > 0, loudness(fresh) > 0)


@pytest.mark.parametrize("late", ["skip", "fall-behind"])
def test_a_slow_reader_gets_everything_later(late):
    session, told, clock, chunks = live_session(late=late)
    frames = []
    for frame in session.frames():
        frames.append(frame)
        clock.sleep(0.06)  # 1.5 times as long as a frame lasts
        if frame.index == 20:
            session.push(tone(4.0))
            session.end_segment("all")
        if frame.index == 300:
            session.end()
        assert len(chunks[0].heard) < 60
    assert (loudness(frames) > 0).sum() == 100
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert sum(frame.is_repeated for frame in frames) == 0
    assert told.of("late")


def test_how_late_pictures_are_treated_is_known():
    with pytest.raises(UsageError, match="skip or fall-behind"):
        live_session(late="never")


@pytest.mark.parametrize("late", ["fall-behind", "skip"])
@pytest.mark.parametrize("seed", range(4))
def test_any_conversation_loses_nothing_unsaid(seed, late):
    """Every segment, mark and sample that went in is told of once, whatever happens in between."""
    chance = random.Random(seed)
    blocks = iter(lambda: chance.choice([0.05, 0.1, 0.3, 0.9]), None)
    session, told, clock, made = live_session(block_s=blocks, late=late)
    num_pushed, heard, ids, marks = 0, 0, [], []
    for frame in session.frames():
        heard += np.count_nonzero(frame.sound.samples)
        assert len(frame.sound.samples) == FRAME_SAMPLES
        if frame.index == 1500:
            session.end()
        if frame.index >= 1500:
            continue
        act = chance.random()
        if act < 0.06:
            seconds = chance.choice([0.01, 0.05, 0.3, 2.0])
            session.push(tone(seconds))
            num_pushed += round(seconds * RATE_HZ)
        elif act < 0.08:
            ids.append(f"segment {frame.index}")
            session.end_segment(ids[-1])
        elif act < 0.10:
            marks.append(f"mark {frame.index}")
            session.mark(marks[-1])
        elif act < 0.11:
            session.clear()
        elif act < 0.113:
            session.show("another.png")
        elif act < 0.15:
            clock.sleep(chance.choice([0.01, 0.2]))
    ended = [values["id"] for values in told.of("segment_last_frame")]
    dropped = [name for values in told.of("cleared") for name in values["ids"]]
    assert sorted(ended + dropped) == sorted(ids)
    assert sorted(values["name"] for values in told.of("mark")) == sorted(marks)
    dropped_s = sum(values["dropped_s"] for values in told.of("cleared"))
    fades = len(told.of("cleared")) * 0.005 * RATE_HZ
    assert num_pushed - dropped_s * RATE_HZ == pytest.approx(heard, abs=fades + 1)
    times = [values["video_s"] for _, values in told]
    assert times == sorted(times)
    assert not [values for name, values in told if name == "error"]
    assert all(chunks.is_closed for chunks in made)
