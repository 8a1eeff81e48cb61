"""Work spread over processes, results in order."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def spread(
    work: Callable[[Job], Result], jobs: Sequence[Job], *, processes: int
) -> Iterator[Result]:
    """``work`` of every job, in order; in this process where one is enough.

    Args:
        work: A function that can be pickled, as can jobs and results.
        jobs: What it is given.
        processes: Worker processes, started anew (``spawn``).
    """
    if processes == 1:
        yield from map(work, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(work, jobs)
