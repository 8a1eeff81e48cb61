"""What went wrong at the Hub, in one line a user can act on."""

from typing import Any

from joyflash_cli.errors import CheckpointError, JoyFlashError
from joyflash_cli.files import is_disk_full
from joyflash_cli.weights.places import public_url

PASSING_STATUSES = (408, 429, 500, 502, 503, 504)

_LOGIN = "run `hf auth login`, or set HF_TOKEN"
_NO_HUB = "is HF_ENDPOINT right? a proxy or a login page may stand in between"
_HIDDEN = "<token>"


def hub_error(error: Exception, url: str, repo: str, endpoint: str) -> JoyFlashError | None:
    """The error of this project for one of ``huggingface_hub``; ``None`` when it is a bug.

    Args:
        error: What the library raised.
        url: Address of the file, fit to be shown.
        repo: Repository of the file.
        endpoint: Address of the Hub, for a link to the repository.
    """
    import huggingface_hub.errors as hub

    page = f"{public_url(endpoint)}/{repo}"
    refusals = {
        hub.GatedRepoError: (
            f"{repo} is gated", f"ask for access at {page}, then {_LOGIN}", "E-HUB-GATED"
        ),
        hub.RevisionNotFoundError: (
            f"{repo} has no such revision",
            f"look at {page}; the authors may have replaced it", "E-HUB-REVISION",
        ),
        hub.RemoteEntryNotFoundError: (
            f"{repo} has no such file",
            f"look at {page}; the authors may have renamed it", "E-HUB-FILE",
        ),
        # The last: a gated repository is one of these, too.
        hub.RepositoryNotFoundError: (
            f"{repo} does not exist there, or it is private",
            f"check HF_ENDPOINT; for a private repository {_LOGIN}", "E-HUB-REPOSITORY",
        ),
    }  # fmt: skip
    for kind, (what, hint, code) in refusals.items():
        if isinstance(error, kind):
            status = error.response.status_code
            return CheckpointError(f"{status} for {url}: {what}", hint=hint, code=code)
    if isinstance(error, hub.HfHubHTTPError):
        return _status_problem(error, url)
    if isinstance(error, hub.LocalEntryNotFoundError | hub.FileMetadataError):
        cause = error.__cause__
        known = hub_error(cause, url, repo, endpoint) if isinstance(cause, Exception) else None
        return known or CheckpointError(
            f"{url} was not answered by a Hub", hint=_NO_HUB, code="E-HUB-ANSWER"
        )
    if isinstance(error, hub.OfflineModeIsEnabled):
        return CheckpointError(
            f"{url} cannot be asked: offline", hint="unset HF_HUB_OFFLINE", code="E-HUB-OFFLINE"
        )
    return _local_problem(error, url)


def passing_wait_s(error: Exception) -> float | None:
    """Seconds that the server asks to wait (0 if it does not say) for an error that may pass.

    ``None`` means that the same request would fail again.
    """
    import httpx2
    import huggingface_hub.errors as hub

    if isinstance(error, hub.LocalEntryNotFoundError):
        return passing_wait_s(error.__cause__) if isinstance(error.__cause__, Exception) else None
    response = getattr(error, "response", None)
    if response is not None:
        if response.status_code not in PASSING_STATUSES:
            return None
        asked = response.headers.get("Retry-After", "").strip()
        return float(asked) if asked.isdigit() else 0.0
    # What breaks while it runs, the library tries again by itself.
    is_quick = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
    return 0.0 if is_quick else None


def scrub(error: BaseException | None, token: str | None) -> None:
    """Removes the token from the texts of an error and of those that caused it.

    A server may repeat it in an answer, and ``--debug`` prints every text of the chain.
    """
    seen: set[int] = set()
    while error is not None and token and id(error) not in seen:
        seen.add(id(error))
        error.args = tuple(
            value.replace(token, _HIDDEN) if isinstance(value, str) else value
            for value in error.args
        )
        error = error.__cause__ or error.__context__


def _status_problem(error: Any, url: str) -> JoyFlashError:
    """Refusals that are about the caller, the pace, or the server itself."""
    response = error.response
    status = response.status_code
    request = getattr(response, "request", None)
    # The Hub's address, or that of the storage behind it, without its signature.
    where = public_url(str(request.url)) if request is not None else url
    asked = response.headers.get("Retry-After", "").strip()
    wait = f"in {asked} s" if asked.isdigit() else "later"
    what = "the server failed" if status >= 500 else "the request is refused"
    what, hint, code = {
        401: ("the token is refused", _LOGIN, "E-HUB-TOKEN"),
        403: (
            "access is refused",
            f"the token may lack the right to read it: {_LOGIN}; or try without HF_ENDPOINT",
            "E-HUB-REFUSED",
        ),
        429: ("too many requests", f"try again {wait}; {_LOGIN}", "E-HUB-BUSY"),
    }.get(status, (what, "try again later, or another mirror with HF_ENDPOINT", "E-HUB-STATUS"))
    return CheckpointError(f"{status} for {where}: {what}", hint=hint, code=code)


def _local_problem(error: Exception, url: str) -> JoyFlashError | None:
    """Connections that break, and disks that are full or closed."""
    import httpx2

    if isinstance(error, httpx2.HTTPError | httpx2.InvalidURL):
        return CheckpointError(
            f"{url} cannot be reached: {type(error).__name__}",
            hint="check the network and HF_ENDPOINT; what is complete already stays",
            code="E-HUB-UNREACHABLE",
        )
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return CheckpointError(
            f"{url} is not of the size that the server announced",
            hint="try again; a proxy or mirror may have cut or replaced it",
            code="E-HUB-CUT",
        )
    if is_disk_full(error):
        return CheckpointError(
            "the disk of the cache is full",
            hint="make room, or set HF_HOME to a larger disk",
            code="E-WEIGHTS-DISK",
        )
    if isinstance(error, OSError) and error.errno is not None:
        place = f" {error.filename}" if error.filename else ""
        return CheckpointError(
            f"the cache{place} cannot be written: {error.strerror}",
            hint="set HF_HOME to a folder that is yours",
            code="E-WEIGHTS-CACHE",
        )
    # The native transfer library raises these two, and its texts may hold signed addresses.
    if isinstance(error, OSError | RuntimeError):
        return CheckpointError(
            f"{url} failed while it was downloaded: {type(error).__name__}",
            hint="try again; HF_HUB_DISABLE_XET=1 takes the plain way",
            code="E-HUB-TRANSFER",
        )
    return None
