"""Where weights live on this machine, and how the Hub is reached: read from the environment.

The names and defaults are those of ``huggingface_hub``, so that its cache is shared. They are read
at every call; that library reads them once, when it is imported.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from joyflash_cli.errors import UsageError

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
    state = _directory(_environment("XDG_STATE_HOME") or "~/.local/state")
    return state / "joyflash/weights.lock.json"


def converted_directory(profile: str) -> Path:
    """Where the converted checkpoint of a profile goes, whether or not it is there."""
    return _cache_home() / "joyflash" / "checkpoints" / profile


def prompts_directory() -> Path:
    """Where embeddings of prompts are kept, whether or not it is there."""
    return _cache_home() / "joyflash" / "prompts"


def _environment(name: str) -> str:
    return os.environ.get(name, "").strip()


def _directory(text: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(text))).absolute()


def _cache_home() -> Path:
    return _directory(_environment("XDG_CACHE_HOME") or "~/.cache")
