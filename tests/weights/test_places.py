"""Where weights are looked for, by the environment."""

from pathlib import Path

import pytest

from joyflash_cli.errors import UsageError
from joyflash_cli.weights import places

NAMES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME",
         "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # fmt: skip


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")


@pytest.mark.parametrize(
    ("environment", "cache"),
    [
        ({}, "/home/someone/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"XDG_CACHE_HOME": ""}, "/home/someone/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/c", "HF_HOME": "~/hf"}, "/home/someone/hf/hub"),
        ({"HF_HOME": "/h", "HUGGINGFACE_HUB_CACHE": "/old"}, "/old"),
        ({"HF_HOME": "/h", "HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "$HOME/n"},
         "/home/someone/n"),
    ],
)  # fmt: skip
def test_the_cache_is_the_one_that_every_hub_program_uses(monkeypatch, environment, cache):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert places.hub_cache() == Path(cache)


def test_our_own_folders(monkeypatch):
    assert places.lock_path() == Path("/home/someone/.local/state/joyflash/weights.lock.json")
    assert places.converted_directory("x") == Path("/home/someone/.cache/joyflash/checkpoints/x")
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert places.lock_path() == Path("/s/joyflash/weights.lock.json")
    assert places.converted_directory("x") == Path("/c/joyflash/checkpoints/x")


@pytest.mark.parametrize(
    ("value", "expected"), [("", False), ("0", False), ("1", True), ("yes", True), ("ON", True)]
)
def test_offline(monkeypatch, value, expected):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert places.is_offline() is expected
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", value)
    assert places.is_offline() is expected


def test_endpoints(monkeypatch):
    assert places.hub_endpoint() == "https://huggingface.co"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hf/")
    assert places.hub_endpoint() == "https://mirror.example/hf"


@pytest.mark.parametrize("value", ["mirror", "ftp://x", "http://", "http://[", "http://x:port"])
def test_endpoints_that_are_no_address(monkeypatch, value):
    monkeypatch.setenv("HF_ENDPOINT", value)
    with pytest.raises(UsageError, match="HF_ENDPOINT"):
        places.hub_endpoint()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a/b/c", "https://a/b/c"),
        ("https://me:secret@a:8/b?sign=secret#secret", "https://a:8/b"),
        ("http://[", "(not an address)"),
    ],
)
def test_addresses_are_shown_without_secrets(url, shown):
    assert places.public_url(url) == shown
