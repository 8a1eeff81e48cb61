"""Bringing the files of a plan here, and the proof that they are the right ones.

Nothing counts as here before its size, its kind and its SHA-256 are right; a file that is wrong is
deleted. Files are fetched side by side, each as a whole, so a second process that wants the same
files finds every one complete or absent.
"""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from joyflash_cli.errors import JoyFlashError
from joyflash_cli.weights import places
from joyflash_cli.weights.fetch_plan import FetchPlan, PlannedFile, check_copy
from joyflash_cli.weights.hub import download, quiet_library
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
        KeyboardInterrupt: At once; the downloads under way end at their next piece.
    """
    run = _Run(plan, on_progress)
    pool = ThreadPoolExecutor(num_parallel)
    with quiet_library():
        futures = [pool.submit(run.bring, index) for index in range(len(plan.files))]
        try:
            wait(futures)
        finally:
            # After Ctrl-C the program ends when what is under way has removed its pieces.
            run.stopped = True
            pool.shutdown(wait=False, cancel_futures=True)
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        ours = [isinstance(error, JoyFlashError) for error in errors]
        first = errors[0] if all(ours) else errors[ours.index(False)]
        if isinstance(first, JoyFlashError) and len(errors) > 1:
            first.message += f" (and {len(errors) - 1} more of {len(plan.files)} files failed)"
        raise first
    return FetchResult(
        files=tuple(future.result() for future in futures),
        warnings=tuple(dict.fromkeys(run.warnings)),
    )


class _Run:
    """A fetch while it runs, each file in a thread of its own.

    Attributes:
        stopped: Set from outside: downloads under way end at their next piece.
        warnings: What went wrong without stopping anything.
    """

    def __init__(self, plan: FetchPlan, on_progress: Callable[[FetchProgress], None]) -> None:
        self._plan = plan
        self._on_progress = on_progress
        self.stopped = False
        self.warnings: list[str] = []

    def bring(self, index: int) -> PlannedFile:
        """One file of the plan, here and proved."""
        try:
            return self._brought(index, self._plan.files[index])
        except BaseException:
            self._on_progress(FetchProgress(index, "failed"))
            raise

    def _brought(self, index: int, planned: PlannedFile) -> PlannedFile:
        hub = self._plan.hub
        if planned.state == "ready":
            return planned
        if planned.local is not None:
            try:
                return self._prove(index, planned, planned.local)
            except JoyFlashError:
                if hub.offline or planned.local.exists():
                    raise
        # What was here was not right and went away; it is downloaded like any other.
        local = download(
            hub,
            planned.file,
            planned.revision,
            on_bytes=lambda num_bytes: self._report(index, "download", num_bytes),
            size=planned.bytes,
        )
        return self._prove(index, planned, local)

    def _prove(self, index: int, planned: PlannedFile, local: Path) -> PlannedFile:
        """Checks a copy and records it; a wrong one is deleted."""
        lock_path = places.lock_path()
        try:
            sha256 = check_copy(
                planned, local, lambda num_bytes: self._report(index, "check", num_bytes)
            )
            try:
                record_download(lock_path, planned.file, planned.revision, local, sha256)
            except OSError as error:
                self.warnings.append(
                    f"{lock_path} cannot be written ({error.strerror or error}); "
                    "hashes of first downloads are not kept"
                )
        except JoyFlashError as error:
            if error.code != "E-LOCK-DAMAGED":
                _discard(local, self._plan.hub.cache)
            raise
        self._report(index, "done")
        return replace(
            planned, state="ready", local=local, bytes=local.stat().st_size, sha256=sha256
        )

    def _report(
        self, index: int, stage: Literal["download", "check", "done"], num_bytes: int = 0
    ) -> None:
        if self.stopped:
            raise _Stopped
        self._on_progress(FetchProgress(index, stage, num_bytes))


def _discard(local: Path, cache: Path) -> None:
    """Deletes a file of the cache, and what its link leads to there."""
    for path in (local.resolve(), local):
        if path.is_relative_to(cache) or path.is_relative_to(cache.resolve()):
            with contextlib.suppress(OSError):
                path.unlink()
