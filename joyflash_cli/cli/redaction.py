"""Takes out of a report what is nobody else's business: who, where and with which key."""

import getpass
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TOKENS = re.compile(r"\b(hf|api_org|ghp|gho|github_pat|sk)_[A-Za-z0-9_]{8,}")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_HOMES = re.compile(r"(?:[A-Za-z]:)?[\\/](?:home|Users)[\\/][^\\/\s:;,'\"]+")
_QUERY = re.compile(r"(?<=\?)\S+")


def redact(value: Any) -> Any:
    """The value with every text in it, at any depth, cleaned; keys of mappings stay."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {key: redact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def redact_text(text: str) -> str:
    """``text`` without home directories, user and host names, tokens and credentials."""
    home = str(Path.home())
    if len(home) > 1:
        text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    text = _HOMES.sub("~", text)
    text = _TOKENS.sub("<token>", text)
    text = _CREDENTIALS.sub("<credentials>@", text)
    if "://" in text:
        text = _QUERY.sub("<query>", text)
    for name, shown in ((_user(), "<user>"), (socket.gethostname(), "<host>")):
        if len(name) > 1:
            # As a part of a path or address only: a short name is also a part of words.
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", shown, text)
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
