"""What stands between this project and ``huggingface_hub``."""

import logging
import types

import httpx2
import pytest
from hub_case import TRANSFORMER
from hub_server import COMMIT, sha256

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.hub import (
    _limit,
    _progress_class,
    download,
    open_hub,
    quiet_session,
    read_remote,
)
from joyflash_cli.weights.hub_errors import hub_error, is_passing, scrub
from joyflash_cli.weights.manifest import WeightFile

FILE = WeightFile("transformer", "maker/avatar", "model.safetensors", "safetensors", "MIT")


def test_what_the_hub_says_about_a_file(hub_case):
    remote = read_remote(open_hub(), FILE, "main")
    assert (remote.revision, remote.bytes) == (COMMIT, len(TRANSFORMER))
    assert remote.sha256 == sha256(TRANSFORMER)
    small = WeightFile("audio_encoder", "base/wav2vec", "config.json", "json", "MIT")
    # Small files have another kind of hash there, which says nothing about SHA-256.
    assert read_remote(open_hub(), small, "main").sha256 == ""


def test_the_file_lies_in_the_shared_cache(hub_case):
    pieces = []
    path = download(open_hub(), FILE, COMMIT, on_bytes=pieces.append)
    assert path.is_relative_to(hub_case.cache)
    assert sum(pieces) == len(TRANSFORMER)


def test_nothing_is_logged_and_settings_come_back(hub_case, caplog):
    import huggingface_hub

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    hub_case.hub.faults = {"/storage/maker/avatar/model.safetensors": "cut"}
    hub_case.hub.counts = {"/storage/maker/avatar/model.safetensors": 2}
    with quiet_session():
        hooks = len(huggingface_hub.get_session().event_hooks["response"])
        download(open_hub(), FILE, COMMIT, on_bytes=lambda _: None)
    assert caplog.records == []
    assert logger.level == level
    assert len(huggingface_hub.get_session().event_hooks["response"]) == hooks - 1


def test_without_the_library_the_error_says_how_to_get_it(hub_case, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'joyflash\[full\]'"):
        read_remote(open_hub(), FILE, "main")


def test_a_server_that_cuts_for_ever_is_given_up(hub_case):
    """With pieces larger than these, the library would go on as long as some bytes came."""
    count = _limit(open_hub(), FILE, COMMIT, 100)
    for _ in range(6):
        count(10 << 20)
    with pytest.raises(CheckpointError) as caught:
        count(10 << 20)
    assert caught.value.code == "E-HUB-CUT"
    unlimited = _limit(open_hub(), FILE, COMMIT, 0)
    unlimited(1 << 40)


def test_native_transfers_count_every_byte_once():
    """They report what was received and what was written through one and the same class."""
    from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter

    heard = []
    reporter = XetDownloadProgressReporter(
        reconstruction_desc="x", total=100, log_level=0, tqdm_class=_progress_class(heard.append)
    )
    with reporter as progress:
        for done in (40, 100):
            progress.update_progress(
                types.SimpleNamespace(
                    total_bytes=100,
                    total_bytes_completed=done,
                    total_transfer_bytes_completed=done + 7,
                    total_bytes_completion_rate=1.0,
                    total_transfer_bytes_completion_rate=1.0,
                )
            )
    assert heard == [40, 60]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(28, "No space left on device"), "E-WEIGHTS-DISK"),
        (PermissionError(13, "Permission denied", "/cache"), "E-WEIGHTS-CACHE"),
        (OSError("Consistency check failed: file should be of size 1"), "E-HUB-CUT"),
        (RuntimeError("https://cas.example/?sig=secret"), "E-HUB-TRANSFER"),
        (httpx2.ReadTimeout("slow"), "E-HUB-UNREACHABLE"),
        (httpx2.InvalidURL("secret"), "E-HUB-UNREACHABLE"),
    ],
)
def test_what_goes_wrong_here(error, code):
    problem = hub_error(error, "http://hub/a", "a/b", "http://hub")
    assert problem.code == code
    assert problem.exit_code == 4
    assert "secret" not in str(problem)


def test_our_own_bugs_stay_bugs():
    assert hub_error(KeyError("x"), "http://hub/a", "a/b", "http://hub") is None
    assert is_passing(KeyError("x")) is None


def test_a_token_disappears_from_the_whole_chain():
    cause = ValueError("sent hf_secret to them")
    error = RuntimeError("refused hf_secret", 3)
    error.__cause__ = cause
    cause.__context__ = error
    scrub(error, "hf_secret")
    assert error.args == ("refused <token>", 3)
    assert cause.args == ("sent <token> to them",)
    scrub(error, None)
