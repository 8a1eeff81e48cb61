"""Stages in threads: order, bounds, errors, stopping, and nothing left running."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyflash_cli.streaming import (
    BoundedQueue,
    Cancellation,
    Cancelled,
    QueueEnded,
    RunAhead,
    stages_running,
)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    deadline = time.monotonic() + 30
    while stages_running() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not stages_running()


def wait_until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def chain(source, *stages, cancellation=None, capacity=2, on_wait=None):
    """``source`` through functions, each in a thread; the last reader is the caller."""
    cancellation = cancellation or Cancellation()

    def apply(function, items):
        with RunAhead(items, name="s", cancellation=cancellation, capacity=capacity) as ahead:
            for item in ahead:
                yield function(item)

    for stage in stages:
        source = apply(stage, source)
    return RunAhead(
        source, name="end", cancellation=cancellation, capacity=capacity, on_wait=on_wait
    )


@given(
    items=st.lists(st.integers(), max_size=30),
    capacity=st.integers(1, 4),
    num_stages=st.integers(0, 3),
)
def test_everything_arrives_in_order(items, capacity, num_stages):
    stages = [lambda x: x + 1] * num_stages
    with chain(iter(items), *stages, capacity=capacity) as ahead:
        assert list(ahead) == [item + num_stages for item in items]
        assert list(ahead) == []


def test_a_stage_waits_for_its_reader():
    made = []

    def numbers():
        for i in range(100):
            made.append(i)
            yield i

    with RunAhead(numbers(), name="n", cancellation=Cancellation(), capacity=3) as ahead:
        wait_until(lambda: len(made) == 4)  # three in the queue, one in the stage's hands
        time.sleep(0.05)
        assert len(made) == 4
        assert next(ahead) == 0
        wait_until(lambda: len(made) == 5)


def test_stages_and_reader_work_at_the_same_time():
    """Both stages and the reader meet at a barrier that none of them could pass alone."""
    barrier = threading.Barrier(3, timeout=30)
    inside = threading.local()

    def numbers():
        yield 0
        barrier.wait()
        yield 1

    def meet(item):
        if not getattr(inside, "met", False):
            inside.met = True
            barrier.wait()
        return item

    with chain(numbers(), meet) as ahead:
        barrier.wait()
        assert list(ahead) == [0, 1]


@pytest.mark.parametrize("num_stages", [0, 1, 3])
def test_an_error_comes_after_what_was_made(num_stages):
    def failing():
        yield 1
        yield 2
        raise ValueError("the third")

    with chain(failing(), *[lambda x: x] * num_stages) as ahead:
        assert [next(ahead), next(ahead)] == [1, 2]
        with pytest.raises(ValueError, match="the third"):
            next(ahead)


def test_an_error_of_the_reader_stops_all_stages():
    closed = []

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.append(threading.current_thread().name)

    with pytest.raises(KeyError), chain(endless(), lambda x: x, lambda x: x) as ahead:  # noqa: PT012
        next(ahead)
        raise KeyError
    assert closed == ["joyflash-s"]  # in its own thread


def test_a_stage_that_waits_elsewhere_hears_the_cancellation():
    cancellation = Cancellation()
    waiting = threading.Event()

    def stalled():
        yield 1
        while True:
            waiting.set()
            cancellation.check()
            time.sleep(0.001)

    with chain(stalled(), lambda x: x, cancellation=cancellation) as ahead:
        assert next(ahead) == 1
        assert waiting.wait(30)
    assert cancellation.requested


def test_whoever_waits_is_told_how_long_and_may_give_up():
    cancellation = Cancellation()
    seen = []

    def give_up(waited_s):
        seen.append(waited_s)
        if len(seen) == 2:
            raise TimeoutError

    def stalled():
        while True:
            cancellation.check()
            time.sleep(0.001)
            if cancellation.requested:
                yield

    with (
        pytest.raises(TimeoutError),
        RunAhead(stalled(), name="n", cancellation=cancellation, on_wait=give_up) as ahead,
    ):
        next(ahead)
    assert 0 < seen[0] < seen[1]


def test_reading_one_chain_to_its_end_leaves_the_cancellation_alone():
    """Items still in a later queue must not be lost when an earlier stage is complete."""
    cancellation = Cancellation()
    with chain(iter(range(2)), lambda x: x, cancellation=cancellation) as ahead:
        time.sleep(0.05)  # both stages are complete by now, nothing was read
        assert list(ahead) == [0, 1]
    assert not cancellation.requested


def test_a_queue_passes_on_and_ends():
    queue: BoundedQueue[int] = BoundedQueue(2, Cancellation())
    queue.put(1)
    queue.end()
    assert queue.get() == 1
    with pytest.raises(QueueEnded):
        queue.get()
    with pytest.raises(ValueError, match="0 items"):
        BoundedQueue(0, Cancellation())


def test_a_cancelled_queue_takes_and_gives_nothing():
    cancellation = Cancellation()
    queue: BoundedQueue[int] = BoundedQueue(1, cancellation)
    cancellation.request()
    with pytest.raises(Cancelled):
        queue.put(1)
    with pytest.raises(Cancelled):
        queue.get()
