"""What stands between this project and ``huggingface_hub``."""

import logging
import os
import types

import httpx2
import pytest
from hub_case import TRANSFORMER
from hub_server import COMMIT, sha256

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights import hub
from joyflash_cli.weights.hub import (
    cached_path,
    cached_revision,
    download,
    open_hub,
    quiet_library,
    read_remote,
)
from joyflash_cli.weights.hub_errors import hub_error, passing_wait_s, scrub
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


def test_nothing_is_logged_and_the_level_comes_back(hub_case, caplog):
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    hub_case.hub.faults = {"/storage/maker/avatar/model.safetensors": "cut"}
    hub_case.hub.counts = {"/storage/maker/avatar/model.safetensors": 2}
    with quiet_library():
        download(open_hub(), FILE, COMMIT, on_bytes=lambda _: None)
    assert caplog.records == []
    assert logger.level == level


def test_a_server_that_cuts_for_ever_is_given_up(hub_case, monkeypatch):
    """As long as some bytes come, the library would go on."""
    monkeypatch.setattr(hub, "_OVERHEAD_BYTES", 0)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100)
    hub_case.hub.faults = {"/storage/maker/avatar/model.safetensors": "cut-always"}
    pieces = []
    with pytest.raises(CheckpointError) as caught:
        download(open_hub(), FILE, COMMIT, on_bytes=pieces.append, size=len(TRANSFORMER))
    assert caught.value.code == "E-HUB-CUT"
    assert "again and again" in caught.value.message
    assert sum(piece for piece in pieces if piece > 0) <= 4 * len(TRANSFORMER)
    assert hub_case.pieces() == []


def test_native_transfers_count_every_byte_once(hub_case, monkeypatch):
    """They report what was received and what was written through one and the same class."""
    from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter

    def transfer(*_, tqdm_class, **__):
        with XetDownloadProgressReporter(
            reconstruction_desc="x", total=100, log_level=0, tqdm_class=tqdm_class
        ) as progress:
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
        return "here"

    monkeypatch.setattr("huggingface_hub.hf_hub_download", transfer)
    heard = []
    download(open_hub(), FILE, COMMIT, on_bytes=heard.append)
    assert heard == [40, 60]


def test_a_copy_that_nobody_pinned_is_found(hub_case):
    """The commit that the cache knows as ``main``, else the one that came last."""
    assert cached_path(FILE, COMMIT) is None
    assert cached_revision(FILE) == ""
    path = download(open_hub(), FILE, COMMIT, on_bytes=lambda _: None)
    assert cached_path(FILE, COMMIT) == cached_path(FILE, "") == path
    assert cached_revision(FILE) == COMMIT
    snapshots = hub_case.cache / "models--maker--avatar" / "snapshots"
    newer = snapshots / ("b" * 40) / FILE.path
    newer.parent.mkdir(parents=True)
    newer.write_text("{}")
    os.utime(path, (0, 0))
    assert cached_revision(FILE) == "b" * 40
    reference = snapshots.parent / "refs" / "main"
    reference.parent.mkdir(exist_ok=True)
    reference.write_text(COMMIT)
    assert cached_revision(FILE) == COMMIT


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
    assert passing_wait_s(KeyError("x")) is None


def test_a_token_disappears_from_the_whole_chain():
    cause = ValueError("sent hf_secret to them")
    error = RuntimeError("refused hf_secret", 3)
    error.__cause__ = cause
    cause.__context__ = error
    scrub(error, "hf_secret")
    assert error.args == ("refused <token>", 3)
    assert cause.args == ("sent <token> to them",)
    scrub(error, None)
