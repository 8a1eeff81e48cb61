"""The Hugging Face Hub through ``huggingface_hub``: what a file is there, and bringing it here.

The library keeps the cache, resolves redirects, resumes within one download, and publishes a file
only when it is whole. What it does not do is done here: every wait has an end, its log lines stay
off the terminal, and its errors become one line that names address and status but never a token.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights import places
from joyflash_cli.weights.hub_errors import (
    PASSING_STATUSES,
    hub_error,
    is_passing,
    refuse_bad_token,
    scrub,
)
from joyflash_cli.weights.manifest import WeightFile

RETRY_WAITS_S = (1.0, 3.0)
"""Seconds before the second and the third try of a request that failed in passing."""

MAX_WAIT_S = 30.0
"""A server that asks for a longer wait than this is not waited for."""

MAX_OVERHEAD = 3
"""A download that received this many times its size is cut again and again, and is given up."""

_OVERHEAD_BYTES = 64 << 20
_T = TypeVar("_T")


@dataclass(frozen=True)
class Hub:
    """Where the Hub is and where its files go.

    Attributes:
        endpoint: Address without a final slash; may hold a user and password of a mirror.
        cache: The shared cache of ``huggingface_hub``.
        offline: No request may be made.
    """

    endpoint: str
    cache: Path
    offline: bool = False

    def url(self, file: WeightFile, revision: str) -> str:
        """The address of a file, fit to be shown."""
        return f"{places.public_url(self.endpoint)}/{file.repo}/resolve/{revision}/{file.path}"


@dataclass(frozen=True)
class RemoteFile:
    """What the Hub says about a file.

    Attributes:
        revision: Full commit.
        bytes: Size; 0 when the Hub does not say.
        sha256: Only large files have one there; empty otherwise.
    """

    revision: str
    bytes: int
    sha256: str


def open_hub(*, offline: bool = False) -> Hub:
    """The Hub that the environment describes.

    Args:
        offline: Forbid requests even if the environment allows them.

    Raises:
        UsageError: When ``HF_ENDPOINT`` is no address.
    """
    return Hub(places.hub_endpoint(), places.hub_cache(), offline or places.is_offline())


def read_remote(hub: Hub, file: WeightFile, revision: str) -> RemoteFile:
    """What the Hub has under this name; nothing is downloaded.

    Args:
        hub: Which Hub.
        file: Repository and path.
        revision: Commit or branch.

    Raises:
        CheckpointError: With the address and the status, when the file cannot be had.
    """
    with _library(hub, file, revision) as library:
        url = library.hf_hub_url(file.repo, file.path, revision=revision, endpoint=hub.endpoint)
        found = _patiently(lambda: library.get_hf_file_metadata(url, endpoint=hub.endpoint))
    commit = found.commit_hash or ""
    if len(commit) != 40:
        raise CheckpointError(
            f"{hub.url(file, revision)} was not answered by a Hub: the commit is missing",
            hint="is HF_ENDPOINT right? a proxy or a login page may stand in between",
            code="E-HUB-ANSWER",
        )
    etag = (found.etag or "").lower()
    is_sha256 = len(etag) == 64 and set(etag) <= set("0123456789abcdef")
    return RemoteFile(commit, found.size or 0, etag if is_sha256 else "")


def download(
    hub: Hub,
    file: WeightFile,
    revision: str,
    *,
    on_bytes: Callable[[int], None],
    size: int = 0,
) -> Path:
    """The file in the shared cache, downloaded unless it is there; complete or absent.

    Args:
        hub: Which Hub.
        file: Repository and path.
        revision: Full commit.
        on_bytes: Hears the size of every piece; negative when pieces are thrown away. What it
            raises ends the download.
        size: Known size, 0 if unknown; bounds what may be received.

    Raises:
        CheckpointError: With the address and the status, when the file cannot be had.
    """
    with _library(hub, file, revision) as library:
        return Path(
            _patiently(
                lambda: library.hf_hub_download(
                    file.repo,
                    file.path,
                    revision=revision,
                    cache_dir=hub.cache,
                    endpoint=hub.endpoint,
                    library_name="joyflash",
                    tqdm_class=_progress_class(on_bytes, _limit(hub, file, revision, size)),
                )
            )
        )


def drop_connections() -> None:
    """Ends the downloads under way in other threads, as far as the library can."""
    with contextlib.suppress(ImportError):
        from huggingface_hub.utils import close_session

        close_session()


def remove_leftovers(hub: Hub, repo: str, *, min_age_s: float = 60.0) -> int:
    """Deletes pieces that killed downloads left in the cache of a repository; how many.

    A piece is a leftover when nobody holds the lock of its file and nobody wrote to it for a while;
    the second matters on file systems where locks do nothing.
    """
    folder = places.repository_cache(repo, cache=hub.cache)
    removed = 0
    for piece in folder.glob("blobs/*.incomplete"):
        lock = hub.cache / ".locks" / folder.name / f"{piece.name.partition('.')[0]}.lock"
        with contextlib.suppress(OSError):
            if time.time() - piece.stat().st_mtime >= min_age_s and not _is_locked(lock):
                piece.unlink()
                removed += 1
    return removed


def _is_locked(lock: Path) -> bool:
    from filelock import FileLock, Timeout

    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0, mode=0o664):
            return False
    except Timeout:
        return True
    except NotImplementedError:
        return False


def _patiently(request: Callable[[], _T]) -> _T:
    """The request's answer, after a second and a third try where it failed in passing."""
    for wait_s in RETRY_WAITS_S:
        try:
            return request()
        except Exception as error:  # noqa: BLE001 - raised again unless it may pass
            asked_s = is_passing(error)
            if asked_s is None or asked_s > MAX_WAIT_S:
                raise
            time.sleep(max(wait_s, asked_s))
    return request()


@contextlib.contextmanager
def _library(hub: Hub, file: WeightFile, revision: str) -> Iterator[Any]:
    """``huggingface_hub``, silent, and with its errors translated."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise CheckpointError(
            "downloading needs huggingface_hub, which is not installed",
            hint="pip install 'joyflash[full]'",
            code="E-HUB-LIBRARY",
        ) from error
    if hub.offline:
        raise CheckpointError(
            f"{hub.url(file, revision)} cannot be asked: offline",
            hint="leave --offline out, and unset HF_HUB_OFFLINE",
            code="E-HUB-OFFLINE",
        )
    token = refuse_bad_token(huggingface_hub.get_token())
    try:
        yield huggingface_hub
    except CheckpointError:
        raise
    except Exception as error:
        problem = hub_error(error, hub.url(file, revision), file.repo, hub.endpoint)
        if problem is None:
            raise
        scrub(error, token)
        raise problem from error


@contextlib.contextmanager
def quiet_session() -> Iterator[None]:
    """While it lasts, the library logs nothing and a refusal of a download is not retried by it.

    By itself it would sleep as long as a server's ``Retry-After`` says, an hour if need be, without
    a word. Both settings are the library's global ones, so they are put back.
    """
    try:
        import huggingface_hub
        from huggingface_hub.utils import hf_raise_for_status
    except ImportError:
        # The first request will say so.
        yield
        return
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    client = huggingface_hub.get_session()

    def refuse(response: Any) -> None:
        if response.status_code in PASSING_STATUSES:
            response.read()
            hf_raise_for_status(response)

    hooks = client.event_hooks
    client.event_hooks = {**hooks, "response": [*hooks.get("response", []), refuse]}
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
        client.event_hooks = hooks


def _limit(hub: Hub, file: WeightFile, revision: str, size: int) -> Callable[[int], None]:
    """Hears every piece; raises when far more came than the file is long."""
    received = 0

    def count(num_bytes: int) -> None:
        nonlocal received
        received += max(num_bytes, 0)
        if size and received > MAX_OVERHEAD * size + _OVERHEAD_BYTES:
            raise CheckpointError(
                f"{hub.url(file, revision)} is cut short again and again: {received} bytes came "
                f"for a file of {size}",
                hint="try again later, or another mirror with HF_ENDPOINT",
                code="E-HUB-CUT",
            )

    return count


def _progress_class(*listeners: Callable[[int], None]) -> type:
    """A stand-in for tqdm's class that only tells the listeners how many bytes came.

    The library looks for ``update_transfer`` on the class: with it, one bar gets both what was
    received and what was written, and nothing is counted twice.
    """

    class Relay:
        def __init__(self, **settings: Any) -> None:
            self.total = settings.get("total")
            self.n = 0

        def update(self, num_bytes: float | None = 1) -> None:
            self.n += int(num_bytes or 0)
            for listener in listeners:
                listener(int(num_bytes or 0))

        def ignore(self, *_: Any, **__: Any) -> None:
            return None

        update_transfer = set_postfix_str = set_transfer_postfix_str = set_description = ignore
        refresh = reset = close = ignore

        def __enter__(self) -> "Relay":
            return self

        def __exit__(self, *_: object) -> None:
            return None

    return Relay
