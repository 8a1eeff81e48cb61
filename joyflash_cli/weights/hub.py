"""The Hugging Face Hub through ``huggingface_hub``: what a file is there, and bringing it here.

The library keeps the shared cache and its locks, resolves redirects, resumes within one download,
and shows a file only when it is whole. Its log lines stay off the terminal, and its errors become
one line that names address and status but never a token.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights import places
from joyflash_cli.weights.hub_errors import hub_error, passing_wait_s, scrub
from joyflash_cli.weights.manifest import WeightFile

RETRY_WAITS_S = (1.0, 3.0)
"""Seconds before the second and the third try of a request that failed in passing."""

MAX_WAIT_S = 30.0
"""A server that asks for a longer wait than this is not asked again."""

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


def cached_path(file: WeightFile, revision: str, *, cache: Path | None = None) -> Path | None:
    """The file in the Hub's cache, or ``None``; nothing is read and nothing asked for.

    Args:
        file: Names repository and path.
        revision: Full commit; empty for the one that :func:`cached_revision` finds.
        cache: Another cache than the environment's.
    """
    from huggingface_hub import try_to_load_from_cache

    cache = cache or places.hub_cache()
    revision = revision or cached_revision(file, cache=cache)
    if not revision:
        return None
    found = try_to_load_from_cache(file.repo, file.path, cache_dir=cache, revision=revision)
    return Path(found) if isinstance(found, str) else None


def cached_revision(file: WeightFile, *, cache: Path | None = None) -> str:
    """The commit of the copy that the cache has, for a file that nobody pinned; empty without one.

    That is the commit the cache knows as ``main``, else the one that was downloaded last.
    """
    from huggingface_hub import constants

    repository = constants.REPO_ID_SEPARATOR.join(("models", *file.repo.split("/")))
    folder = (cache or places.hub_cache()) / repository
    copies = {path.name: path / file.path for path in folder.glob("snapshots/*")}
    changed = {name: copy.stat().st_mtime for name, copy in copies.items() if copy.is_file()}
    with contextlib.suppress(OSError, ValueError):
        main = (folder / "refs/main").read_text(encoding="ascii").strip()
        if main in changed:
            return main
    return max(changed, key=lambda name: changed[name], default="")


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
        on_bytes(num_bytes)

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
                    tqdm_class=_progress_class(count),
                )
            )
        )


@contextlib.contextmanager
def quiet_library() -> Iterator[None]:
    """While it lasts, ``huggingface_hub`` logs nothing; its level is global and is put back."""
    from huggingface_hub.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _patiently(request: Callable[[], _T]) -> _T:
    """The request's answer, after a second and a third try where it failed in passing."""
    for wait_s in RETRY_WAITS_S:
        try:
            return request()
        except Exception as error:  # noqa: BLE001 - raised again unless it may pass
            asked_s = passing_wait_s(error)
            if asked_s is None or asked_s > MAX_WAIT_S:
                raise
            time.sleep(max(wait_s, asked_s))
    return request()


@contextlib.contextmanager
def _library(hub: Hub, file: WeightFile, revision: str) -> Iterator[Any]:
    """``huggingface_hub``, with its errors translated."""
    import huggingface_hub

    if hub.offline:
        raise CheckpointError(
            f"{hub.url(file, revision)} cannot be asked: offline",
            hint="leave --offline out, and unset HF_HUB_OFFLINE",
            code="E-HUB-OFFLINE",
        )
    token = huggingface_hub.get_token()
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        # The HTTP library would print it in its complaint.
        raise CheckpointError(
            "the Hub token holds characters that no token has",
            hint="set HF_TOKEN again, or run `hf auth login`",
            code="E-HUB-TOKEN",
        )
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


def _progress_class(on_bytes: Callable[[int], None]) -> type:
    """A bar of the library that shows nothing and only tells how many bytes came.

    Transfers by Xet count what was received and what was written; ``update_transfer`` takes the
    former, so that nothing is counted twice.
    """
    from huggingface_hub.utils import tqdm

    class Relay(tqdm):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **(settings | {"disable": True}))

        def update(self, n: float | None = 1) -> None:
            on_bytes(int(n or 0))

        def update_transfer(self, n: float | None = 1) -> None:
            """Received, but not written yet."""

        set_transfer_postfix_str = tqdm.set_postfix_str

    return Relay
