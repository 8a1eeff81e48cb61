"""Bringing the files of a plan here, and the proof that they are the right ones.

Nothing counts as here before its size, its kind and its SHA-256 are right; a file that is wrong is
deleted. Files are fetched side by side, each as a whole, so a second process that wants the same
files finds every one complete or absent.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from joyflash_cli.errors import JoyFlashError
from joyflash_cli.weights import places
from joyflash_cli.weights.copies import PlannedFile, check_copy, discard_copy
from joyflash_cli.weights.fetch_plan import FetchPlan
from joyflash_cli.weights.hub import (
    download,
    drop_connections,
    quiet_session,
    remove_leftovers,
)
from joyflash_cli.weights.lock_file import record_download

NUM_PARALLEL = 4


@dataclass(frozen=True)
class FetchProgress:
    """What just happened to one file; may come from any thread.

    Attributes:
        index: Position in the plan.
        stage: ``download`` or ``check`` while it lasts, then ``done`` or ``failed``.
        num_bytes: Bytes since the last time; negative when some were thrown away.
    """

    index: int
    stage: Literal["download", "check", "done", "failed"]
    num_bytes: int = 0


@dataclass(frozen=True)
class FetchResult:
    """Where the files are: the plan's, each ``ready`` with its size and hash, and warnings."""

    files: tuple[PlannedFile, ...]
    warnings: tuple[str, ...]


class _Stopped(Exception):
    """Raised inside a download that is no longer wanted."""


@dataclass
class _Run:
    """A fetch while it runs; the flag is how other threads learn that it is to end."""

    plan: FetchPlan
    lock_path: Path
    report: Callable[[FetchProgress], None]
    stopped: bool = False


def fetch_files(
    plan: FetchPlan,
    *,
    on_progress: Callable[[FetchProgress], None] = lambda _: None,
    num_parallel: int = NUM_PARALLEL,
) -> FetchResult:
    """Downloads and checks what the plan says; files that are ready are left alone.

    A file that fails does not stop the others, which could not be resumed later.

    Args:
        plan: From :func:`plan_fetch`.
        on_progress: Hears about every piece, from any thread.
        num_parallel: Files at a time.

    Raises:
        CheckpointError: The first failure, when every file has had its turn.
        KeyboardInterrupt: After the downloads under way were dropped.
    """
    run = _Run(plan, places.lock_path(), on_progress)
    repositories = {planned.file.repo for planned in plan.files}
    with quiet_session(), ThreadPoolExecutor(num_parallel) as pool:
        for repo in repositories:
            remove_leftovers(plan.hub, repo)
        futures = [pool.submit(_bring, run, index) for index in range(len(plan.files))]
        try:
            wait(futures)
        except KeyboardInterrupt:
            run.stopped = True
            drop_connections()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        for repo in repositories:
            remove_leftovers(plan.hub, repo)
    _raise_first(futures)
    results = [future.result() for future in futures]
    return FetchResult(
        files=tuple(planned for planned, _ in results),
        warnings=tuple(dict.fromkeys(warning for _, warning in results if warning)),
    )


def _bring(run: _Run, index: int) -> tuple[PlannedFile, str]:
    """One file of the plan, here and proved; and a warning or an empty text."""
    planned = run.plan.files[index]
    try:
        if planned.state == "ready":
            return planned, ""
        if planned.local is not None:
            try:
                return _prove(run, index, planned.local)
            except JoyFlashError:
                if run.plan.hub.offline or planned.local.exists():
                    raise
        # What was here was not right and went away; it is downloaded like any other.
        return _prove(run, index, _download(run, index))
    except BaseException:
        run.report(FetchProgress(index, "failed"))
        raise


def _download(run: _Run, index: int) -> Path:
    planned = run.plan.files[index]

    def count(num_bytes: int) -> None:
        if run.stopped:
            raise _Stopped
        run.report(FetchProgress(index, "download", num_bytes))

    return download(
        run.plan.hub, planned.file, planned.revision, on_bytes=count, size=planned.bytes
    )


def _prove(run: _Run, index: int, local: Path) -> tuple[PlannedFile, str]:
    """Checks a copy and records it; a wrong one is deleted."""
    planned = run.plan.files[index]

    def count(num_bytes: int) -> None:
        if run.stopped:
            raise _Stopped
        run.report(FetchProgress(index, "check", num_bytes))

    try:
        sha256 = check_copy(planned, local, count)
        warning = ""
        try:
            record_download(run.lock_path, planned.file, planned.revision, local, sha256)
        except OSError as error:
            warning = (
                f"{run.lock_path} cannot be written ({error.strerror or error}); "
                "hashes of first downloads are not kept"
            )
    except JoyFlashError as error:
        if error.code != "E-LOCK-DAMAGED":
            discard_copy(local, run.plan.hub.cache)
        raise
    run.report(FetchProgress(index, "done"))
    size = local.stat().st_size
    return replace(planned, state="ready", local=local, bytes=size, sha256=sha256), warning


def _raise_first(futures: Sequence[Future[tuple[PlannedFile, str]]]) -> None:
    """Raises the first failure, and says how many others there were."""
    errors = [error for future in futures if (error := future.exception()) is not None]
    if not errors:
        return
    first = next((error for error in errors if not isinstance(error, JoyFlashError)), errors[0])
    if isinstance(first, JoyFlashError) and len(errors) > 1:
        first.message += f" (and {len(errors) - 1} more of {len(futures)} files failed)"
    raise first
