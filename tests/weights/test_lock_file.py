"""The lock file: what it keeps, that writers do not lose each other's words, and damage."""

import json
import multiprocessing

import pytest

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.lock_file import (
    forget_copy,
    is_accepted,
    read_lock,
    record_acceptance,
    record_download,
    require_acceptance,
)
from joyflash_cli.weights.manifest import WeightFile, WeightProfile

FILE = WeightFile("transformer", "a/b", "x.safetensors", "safetensors", "MIT", acceptance=True)
PINNED = WeightFile("codec", "a/c", "y.pth", "pickle", "MIT", "c" * 40, 3, "d" * 64)
COMMIT = "a" * 40
PROFILE = WeightProfile("A model", "hub", "this or that", acceptance=True, files=(FILE, PINNED))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "weights.lock.json"


@pytest.fixture
def local(tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"weights")
    return file


def test_what_was_downloaded_is_known_from_then_on(path, local):
    assert read_lock(path).revision(FILE) == ""
    record_download(path, FILE, COMMIT, local, "e" * 64)
    lock = read_lock(path)
    assert lock.revision(FILE) == COMMIT
    assert (lock.size(FILE, COMMIT), lock.sha256(FILE, COMMIT)) == (7, "e" * 64)
    assert lock.is_checked(FILE, COMMIT, local)
    # Of another commit nothing is known.
    assert (lock.size(FILE, "b" * 40), lock.sha256(FILE, "b" * 40)) == (0, "")


def test_the_manifest_wins_over_the_record(path, local):
    record_download(path, PINNED, PINNED.revision, local, "e" * 64)
    lock = read_lock(path)
    assert lock.revisions == {}
    assert lock.sha256(PINNED, PINNED.revision) == "d" * 64


def test_other_content_of_the_same_commit_is_refused(path, local):
    record_download(path, FILE, COMMIT, local, "e" * 64)
    with pytest.raises(CheckpointError, match="recorded before") as caught:
        record_download(path, FILE, COMMIT, local, "f" * 64)
    assert caught.value.code == "E-WEIGHTS-CHANGED"
    assert read_lock(path).sha256(FILE, COMMIT) == "e" * 64


@pytest.mark.parametrize("content", [b"changed", b"longer than before"])
def test_a_copy_that_changed_is_not_taken_for_checked(path, local, content):
    record_download(path, FILE, COMMIT, local, "e" * 64)
    local.write_bytes(content)
    assert not read_lock(path).is_checked(FILE, COMMIT, local)


def test_a_copy_can_be_forgotten(path, local):
    record_download(path, FILE, COMMIT, local, "e" * 64)
    forget_copy(path, FILE, COMMIT)
    assert not read_lock(path).is_checked(FILE, COMMIT, local)
    assert read_lock(path).sha256(FILE, COMMIT) == "e" * 64


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1, "files": 3}', "[" * 100_000,
     '{"format": 1, "files": {"a": {"bytes": "1", "sha256": ""}}}',
     '{"format": 1, "revisions": {"a": 1}}'],
)  # fmt: skip
def test_a_lock_that_cannot_be_read_is_never_taken_for_none(path, text):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(CheckpointError) as caught:
        read_lock(path)
    assert caught.value.code == "E-LOCK-DAMAGED"
    assert str(path) in caught.value.message


def _record_many(path, name):
    for number in range(10):
        record_acceptance(path, f"{name}-{number}", "terms")


def test_writers_at_once_lose_nothing(path):
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_record_many, args=(path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_lock(path).accepted) == 30


def test_a_writer_that_fails_leaves_the_lock_as_it_was(path, monkeypatch):
    record_acceptance(path, "a", "terms")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        record_acceptance(path, "b", "terms")
    assert set(read_lock(path).accepted) == {"a"}
    assert {file.name for file in path.parent.iterdir()} == {path.name, "weights.lock.guard"}


def test_terms_are_accepted_once_for_their_wording(path):
    with pytest.raises(CheckpointError, match="this or that") as caught:
        require_acceptance("model", PROFILE, PROFILE.files, accept=False, lock_path=path)
    assert (caught.value.code, caught.value.exit_code) == ("E-LICENCE", 4)
    assert "--accept-license" in caught.value.hint
    assert require_acceptance("model", PROFILE, PROFILE.files, accept=True, lock_path=path) == ()
    assert require_acceptance("model", PROFILE, PROFILE.files, accept=False, lock_path=path) == ()
    other = WeightProfile("A model", "hub", "other words", acceptance=True, files=(FILE,))
    assert not is_accepted("model", other, other.files, read_lock(path))
    assert is_accepted("other", PROFILE, (PINNED,), read_lock(path))


def test_an_acceptance_that_cannot_be_kept_still_holds(path):
    path.parent.write_text("a file where the folder should be")
    with pytest.raises(CheckpointError):
        require_acceptance("model", PROFILE, PROFILE.files, accept=False, lock_path=path)


def test_acceptance_on_a_read_only_home_is_a_warning(path, monkeypatch):
    def fail(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("joyflash_cli.weights.lock_file.record_acceptance", fail)
    (warning,) = require_acceptance("model", PROFILE, PROFILE.files, accept=True, lock_path=path)
    assert "Read-only" in warning


def test_the_lock_is_plain_json(path, local):
    record_download(path, FILE, COMMIT, local, "e" * 64)
    (entry,) = json.loads(path.read_text())["files"].items()
    checked_ns = local.stat().st_mtime_ns
    expected = {"bytes": 7, "sha256": "e" * 64, "checked_ns": checked_ns}
    assert entry == (f"a/b@{COMMIT}/x.safetensors", expected)


def test_a_lock_of_an_earlier_version_is_read(path, local):
    """It had the copies that were hashed in a table of their own: they are hashed once more."""
    key = f"a/b@{COMMIT}/x.safetensors"
    path.parent.mkdir()
    path.write_text(json.dumps({
        "format": 1, "files": {key: {"bytes": 7, "sha256": "e" * 64}}, "revisions": {"a/b": COMMIT},
        "checked": {str(local): {"bytes": 7, "modified_ns": 1, "sha256": "e" * 64}},
        "accepted": {"model": "this or that"},
    }))  # fmt: skip
    lock = read_lock(path)
    assert (lock.revision(FILE), lock.sha256(FILE, COMMIT)) == (COMMIT, "e" * 64)
    assert is_accepted("model", PROFILE, PROFILE.files, lock)
    assert not lock.is_checked(FILE, COMMIT, local)
