"""Where weights live on this machine, and how the Hub is reached: read from the environment.

The names and defaults are those of ``huggingface_hub``, so that its cache is shared. They are read
at every call, not once at import, and without importing that library: listing models and rendering
with the embedded one must work where it is not installed.
"""

import contextlib
import os
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from joyflash_cli.errors import UsageError
from joyflash_cli.weights.manifest import WeightFile

DEFAULT_ENDPOINT = "https://huggingface.co"

_TRUE = {"1", "ON", "YES", "TRUE"}


def hub_cache() -> Path:
    """The Hub's shared cache: ``HF_HUB_CACHE``, else ``HF_HOME/hub``, else ``~/.cache``."""
    cache = _environment("HF_HUB_CACHE") or _environment("HUGGINGFACE_HUB_CACHE")
    if cache:
        return _directory(cache)
    home = _environment("HF_HOME")
    return (_directory(home) if home else _cache_home() / "huggingface") / "hub"


def hub_endpoint() -> str:
    """The Hub's address: ``HF_ENDPOINT`` or the public one, without a final slash.

    Raises:
        UsageError: When ``HF_ENDPOINT`` is no http or https address.
    """
    endpoint = (_environment("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    try:
        parts = urlsplit(endpoint)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_address = False
    if not is_address:
        raise UsageError(
            f"HF_ENDPOINT is {public_url(endpoint)!r}, which is no address",
            hint=f"give one such as {DEFAULT_ENDPOINT}, or unset it",
        )
    return endpoint


def public_url(url: str) -> str:
    """An address fit to be shown: without a user, a password, or a signature in its query."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))
    except ValueError:
        return "(not an address)"


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` (or transformers' own variable) forbids the network."""
    value = _environment("HF_HUB_OFFLINE") or _environment("TRANSFORMERS_OFFLINE")
    return value.upper() in _TRUE


def lock_path() -> Path:
    """The lock file: what was recorded at first downloads, and which terms were accepted."""
    state = _environment("XDG_STATE_HOME")
    return (_directory(state) if state else _home() / ".local/state") / "joyflash/weights.lock.json"


def converted_directory(profile: str) -> Path:
    """Where the converted checkpoint of a profile goes, whether or not it is there."""
    return _cache_home() / "joyflash" / "checkpoints" / profile


def prompts_directory() -> Path:
    """Where embeddings of prompts are kept, whether or not it is there."""
    return _cache_home() / "joyflash" / "prompts"


def cached_path(file: WeightFile, revision: str, *, cache: Path | None = None) -> Path | None:
    """The file in the Hub's cache, or ``None``; nothing is read and nothing asked for.

    Args:
        file: Names repository and path.
        revision: Full commit.
        cache: Another cache than the environment's.
    """
    path = repository_cache(file.repo, cache=cache) / "snapshots" / revision / file.path
    return path if revision and path.is_file() else None


def cached_revision(file: WeightFile, *, cache: Path | None = None) -> str:
    """The commit of the copy that the cache has, for a file that nobody pinned; empty without one.

    That is the commit the cache knows as ``main``, else the one that was downloaded last.
    """
    folder = repository_cache(file.repo, cache=cache)
    with contextlib.suppress(OSError, ValueError):
        main = (folder / "refs/main").read_text(encoding="ascii").strip()
        if cached_path(file, main, cache=cache):
            return main
    copies = {path: path / file.path for path in folder.glob("snapshots/*")}
    found = [path for path, copy in copies.items() if copy.is_file()]
    return max(found, key=lambda path: copies[path].stat().st_mtime_ns).name if found else ""


def repository_cache(repo: str, *, cache: Path | None = None) -> Path:
    """The folder of a repository in the Hub's cache, whether or not it is there."""
    return (cache or hub_cache()) / f"models--{repo.replace('/', '--')}"


def _environment(name: str) -> str:
    return os.environ.get(name, "").strip()


def _directory(text: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(text))).absolute()


def _home() -> Path:
    return Path(os.path.expanduser("~")).absolute()


def _cache_home() -> Path:
    cache = _environment("XDG_CACHE_HOME")
    return _directory(cache) if cache else _home() / ".cache"
