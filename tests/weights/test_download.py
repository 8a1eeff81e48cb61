"""Fetching from a Hub on loopback: what arrives, what is refused, and what is left behind."""

import json
import signal
import subprocess
import sys
import time

import pytest
from hub_case import AUDIO, CODEC, NEEDED, TEXT, TRANSFORMER
from hub_server import COMMIT, LFS_POINTER, safetensors, sha256

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.download import fetch_files
from joyflash_cli.weights.fetch_plan import check_room, plan_fetch
from joyflash_cli.weights.hub import open_hub
from joyflash_cli.weights.lock_file import read_lock
from joyflash_cli.weights.manifest import find_profile, select_files
from joyflash_cli.weights.sources import local_sources

TOKEN = "hf_QwertyUiopAsdfGhjkl"


def plan(name="small", *, roles=(), without=(), offline=False):
    profile = find_profile(name)
    files = select_files(profile, roles=roles, without=without)
    return plan_fetch(name, profile, files, hub=open_hub(offline=offline))


def fetch(**options):
    return fetch_files(plan(**options))


def refused(**options) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        fetch(**options)
    assert TOKEN not in str(caught.value)
    return caught.value


def test_everything_arrives_is_checked_and_recorded(hub_case):
    result = fetch()
    assert [file.file.role for file in result.files] == [
        "transformer", "codec", "audio_encoder", "audio_encoder", "text_encoder",
    ]  # fmt: skip
    assert result.files[0].local.read_bytes() == TRANSFORMER
    assert result.files[0].revision == COMMIT
    assert result.warnings == ()
    assert len(hub_case.cached_files()) == NEEDED
    lock = read_lock(hub_case.lock)
    assert lock.revisions == {"maker/avatar": COMMIT}
    recorded = lock.files[f"maker/avatar@{COMMIT}/model.safetensors"]
    assert (recorded.bytes, recorded.sha256) == (len(TRANSFORMER), sha256(TRANSFORMER))
    assert hub_case.pieces() == []


def test_a_second_fetch_asks_nobody(hub_case):
    fetch()
    hub_case.hub.seen.clear()
    again = fetch()
    assert all(file.state == "ready" for file in again.files)
    assert hub_case.hub.seen == []


def test_the_plan_says_what_is_to_come(hub_case):
    fetch(roles=["codec"])
    planned = plan()
    assert [file.state for file in planned.files] == ["download", "ready", *["download"] * 3]
    assert planned.num_downloads == 4
    others = sum(file.bytes for file in planned.files) - len(CODEC)
    assert planned.download_bytes == others
    # The manifest does not know this size: the Hub was asked.
    assert planned.files[0].bytes == len(TRANSFORMER)
    assert planned.free_bytes > 0
    assert not any(seen.method == "GET" and "avatar" in seen.path for seen in hub_case.hub.seen)


def test_roles_alone_and_left_out(hub_case):
    fetch(without=["text_encoder", "codec"])
    assert {name.rpartition("/")[2] for name in hub_case.cached_files()} == {
        "model.safetensors", "config.json",
    }  # fmt: skip
    fetch(roles=["fast_codec"])
    assert "tae.safetensors" in {name.rpartition("/")[2] for name in hub_case.cached_files()}


def test_what_did_not_fit_is_said_before_it_starts(hub_case, monkeypatch):
    monkeypatch.setattr("joyflash_cli.weights.fetch_plan.free_disk_bytes", lambda _: 100)
    with pytest.raises(CheckpointError, match="HF_HOME") as caught:
        check_room(plan())
    assert caught.value.code == "E-WEIGHTS-DISK"


@pytest.mark.parametrize(
    ("end", "fault", "code", "words"),
    [
        ("model.safetensors", "status-401", "E-HUB-TOKEN", "401"),
        ("model.safetensors", "status-403", "E-HUB-REFUSED", "403"),
        ("model.safetensors", "status-404", "E-HUB-STATUS", "404"),
        ("model.safetensors", "status-429", "E-HUB-BUSY", "429"),
        ("model.safetensors", "status-500", "E-HUB-STATUS", "500"),
        ("model.safetensors", "gated", "E-HUB-GATED", "ask for access at http"),
        ("model.safetensors", "no-such-file", "E-HUB-FILE", "no such file"),
        ("model.safetensors", "no-such-revision", "E-HUB-REVISION", "no such revision"),
        ("model.safetensors", "no-such-repository", "E-HUB-REPOSITORY", "does not exist"),
        ("model.safetensors", "login-page", "E-HUB-ANSWER", "not answered by a Hub"),
        ("vae.pth", "other-commit", "E-HUB-REVISION", "answered with the commit"),
    ],
)
def test_refusals_name_address_and_status_and_never_the_token(
    hub_case, monkeypatch, end, fault, code, words
):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub_case.hub.faults = {end: fault}
    error = refused()
    assert error.code == code
    assert error.exit_code == 4
    assert words in str(error)
    assert hub_case.server.endpoint in str(error)
    assert end.rpartition("/")[2] in str(error)
    assert hub_case.cached_files() == set()


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_refusals_of_the_storage_hide_its_signature(hub_case, monkeypatch, status):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub_case.hub.faults = {"/storage/maker/avatar/model.safetensors": f"status-{status}-get"}
    error = refused(roles=["transformer"])
    assert str(status) in str(error)
    assert "/storage/maker/avatar/model.safetensors" in str(error)
    assert "secret-signature" not in str(error)
    assert hub_case.cached_files() == set()
    assert hub_case.pieces() == []


def test_the_token_goes_to_the_hub_and_to_nobody_else(hub_case, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fetch(roles=["transformer"])
    hub = [seen for seen in hub_case.hub.seen if not seen.path.startswith("/storage/")]
    storage = [seen for seen in hub_case.hub.seen if seen.path.startswith("/storage/")]
    assert {seen.token for seen in hub} == {f"Bearer {TOKEN}"}
    assert storage
    assert {seen.token for seen in storage} == {None}


def test_a_token_that_cannot_be_sent_is_not_printed(hub_case, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_geheim–x")
    error = refused()
    assert error.code == "E-HUB-TOKEN"
    assert "geheim" not in str(error)


@pytest.mark.parametrize(
    ("end", "fault", "times"),
    [
        ("/resolve/main/model.safetensors", "status-500", 2),
        ("/resolve/main/model.safetensors", "status-429", 2),
        ("/storage/maker/avatar/model.safetensors", "status-503", 2),
        ("/storage/maker/avatar/model.safetensors", "cut", 3),
    ],
)
def test_what_passes_is_waited_for(hub_case, end, fault, times):
    hub_case.hub.faults, hub_case.hub.counts = {end: fault}, {end: times}
    result = fetch(roles=["transformer"])
    assert result.files[0].local.read_bytes() == TRANSFORMER


def test_an_hour_is_not_waited_for(hub_case, monkeypatch):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    hub_case.hub.faults = {"model.safetensors": "status-429"}
    hub_case.hub.headers = {"Retry-After": "3600"}
    assert "in 3600 s" in str(refused(roles=["transformer"]))
    assert 3600 not in waits


@pytest.mark.parametrize(
    ("fault", "codes"),
    [
        ("cut", {"E-HUB-UNREACHABLE", "E-HUB-CUT"}),
        ("cut-always", {"E-HUB-UNREACHABLE", "E-HUB-CUT"}),
        ("announced-short", {"E-HUB-CUT"}),
        ("other-bytes", {"E-CHECKPOINT-DAMAGED", "E-WEIGHTS-HASH"}),
        ("html-body", {"E-CHECKPOINT-DAMAGED"}),
    ],
)
@pytest.mark.parametrize("role", ["transformer", "codec"])
def test_bad_bodies_leave_nothing(hub_case, fault, codes, role):
    end = {"transformer": "avatar/model.safetensors", "codec": "wan/vae.pth"}[role]
    hub_case.hub.faults = {f"/storage/maker/{end}": fault, f"/storage/base/{end}": fault}
    error = refused(roles=[role])
    assert error.code in codes
    assert end.rpartition("/")[2] in str(error)
    if fault == "html-body":
        assert "HTML" in str(error)
    assert hub_case.cached_files() == set()
    assert hub_case.pieces() == []
    assert list(hub_case.cache.glob("models--*/blobs/*")) == []
    # And afterwards nothing stands in the way of the right file.
    hub_case.hub.faults = {}
    fetch(roles=[role])


def test_a_size_that_differs_is_refused_before_a_byte(hub_case):
    hub_case.hub.files["base/wan/vae.pth"] = CODEC + b"more"
    error = refused(roles=["codec"])
    assert error.code == "E-WEIGHTS-SIZE"
    assert str(len(CODEC)) in str(error)
    assert not any(seen.method == "GET" for seen in hub_case.hub.seen)


def test_a_hash_that_differs_is_refused_before_a_byte(hub_case):
    hub_case.hub.files["base/wan/vae.pth"] = CODEC[:-1] + b"!"
    error = refused(roles=["codec"])
    assert error.code == "E-WEIGHTS-HASH"
    assert sha256(CODEC) in str(error)
    assert not any(seen.method == "GET" for seen in hub_case.hub.seen)


@pytest.mark.parametrize("role", ["transformer", "codec"])
def test_a_pointer_is_told_apart(hub_case, role):
    name = {"transformer": "maker/avatar/model.safetensors", "codec": "base/wan/vae.pth"}[role]
    hub_case.hub.files[name] = LFS_POINTER
    error = refused(roles=[role])
    assert "Git LFS pointer" in str(error)
    assert hub_case.cached_files() == set()


def test_the_first_download_decides_for_ever(hub_case):
    """Neither size nor hash of this file is in the manifest."""
    fetch(roles=["transformer"])
    (local,) = local_sources("small", ["transformer"])["transformer"]
    blob = local.resolve()
    local.unlink()
    blob.unlink()
    hub_case.hub.commit = "b" * 40
    hub_case.hub.files["maker/avatar/model.safetensors"] = safetensors(3000, b"\x09")
    error = refused(roles=["transformer"])
    assert error.code == "E-WEIGHTS-HASH"
    assert sha256(TRANSFORMER) in str(error)
    # The recorded commit was asked for, not whatever is newest.
    assert f"/resolve/{COMMIT}/" in hub_case.hub.seen[-1].path
    assert hub_case.cached_files() == set()


@pytest.mark.parametrize("content", [b"", b"\x00" * 5, AUDIO[:-1], AUDIO[:-1] + b"!"])
def test_a_damaged_copy_is_replaced(hub_case, content):
    fetch(roles=["audio_encoder"])
    local = local_sources("small", ["audio_encoder"])["audio_encoder"][0]
    local.resolve().write_bytes(content)
    result = fetch(roles=["audio_encoder"])
    assert result.files[0].local.read_bytes() == AUDIO


def test_a_copy_that_another_program_downloaded_is_checked_and_used(hub_case):
    fetch(roles=["codec"])
    hub_case.lock.unlink()
    hub_case.hub.seen.clear()
    result = fetch(roles=["codec"])
    assert hub_case.hub.seen == []
    assert result.files[0].sha256 == sha256(CODEC)


def test_offline_asks_nobody_and_says_the_command(hub_case, monkeypatch):
    error = refused(offline=True)
    assert error.code == "E-HUB-OFFLINE"
    assert "joyflash weights fetch small --role transformer" in error.hint
    assert "--accept-license" in error.hint
    assert hub_case.hub.seen == []
    fetch()
    hub_case.hub.seen.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert len(fetch().files) == NEEDED
    assert hub_case.hub.seen == []


def test_an_endpoint_where_nobody_listens(hub_case, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://user:secret@127.0.0.1:9")
    error = refused()
    assert error.code == "E-HUB-UNREACHABLE"
    assert "http://127.0.0.1:9/maker/avatar" in str(error)
    assert "secret" not in str(error)


def test_one_bad_file_does_not_stop_the_others(hub_case):
    hub_case.hub.faults = {"/storage/base/wan/vae.pth": "other-bytes"}
    assert "vae.pth" in str(refused())
    assert len(hub_case.cached_files()) == NEEDED - 1


def test_progress_counts_every_byte_once(hub_case):
    seen = []
    fetch_files(plan(), on_progress=seen.append)
    for index, content in enumerate([TRANSFORMER, CODEC, AUDIO]):
        for stage in ("download", "check"):
            received = sum(p.num_bytes for p in seen if (p.index, p.stage) == (index, stage))
            assert received == len(content)
    assert sorted(p.index for p in seen if p.stage == "done") == list(range(NEEDED))


def test_a_lock_file_that_cannot_be_written_is_a_warning(hub_case):
    hub_case.lock.with_suffix(".guard").mkdir(parents=True)  # where a file is to be
    result = fetch(roles=["codec"])
    assert len(result.warnings) == 1
    assert "hashes of first downloads are not kept" in result.warnings[0]


def test_a_cache_that_cannot_be_written(hub_case, monkeypatch):
    (hub_case.folder / "hf").mkdir(exist_ok=True)
    hub_case.cache.write_text("a file where the cache should be")
    error = refused(roles=["codec"])
    assert error.code == "E-WEIGHTS-CACHE"
    assert "HF_HOME" in error.hint


def start(hub_case, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", hub_case.program(), "weights", "fetch", "small", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=hub_case.subprocess_environment(),
        # A shell's background jobs ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_fetch_that_was_ended_can_be_run_again(hub_case, ending):
    """Whatever the moment, what is shown is whole, and the same command finishes the rest."""
    big = safetensors(400_000, b"\x05")
    hub_case.hub.files["maker/avatar/model.safetensors"] = big
    hub_case.hub.faults = {"/storage/maker/avatar/model.safetensors": "slow"}
    process = start(hub_case, "--accept-license")
    wait_for(lambda: hub_case.pieces() or process.poll() is not None, "no download began")
    assert process.poll() is None, process.stderr.read()
    process.send_signal(ending)
    told = "the same command brings what is missing"
    # The rest may only arrive once the program has noticed, or it is whole before that.
    assert ending != signal.SIGINT or any(told in line for line in process.stderr)
    hub_case.hub.piece_wait_s = 0.0
    process.communicate(timeout=60)
    assert process.returncode == (130 if ending == signal.SIGINT else -ending)
    shown_files = [name for name in hub_case.cached_files() if "avatar" in name]
    if ending == signal.SIGKILL:
        assert shown_files == []
    # A download that ends while the program does is kept, if it is whole.
    assert all((hub_case.cache / name).read_bytes() == big for name in shown_files)
    hub_case.hub.faults = {}
    result = fetch()
    assert result.files[0].local.read_bytes() == big
    # What was killed had no time to clean up; the library never goes on with such a piece.
    assert ending == signal.SIGKILL or hub_case.pieces() == []


def test_two_processes_at_once(hub_case):
    hub_case.hub.faults = {".safetensors": "slow"}
    hub_case.hub.piece_wait_s = 0.05
    both = [start(hub_case, "--accept-license", "--json") for _ in range(2)]
    results = [process.communicate(timeout=120) for process in both]
    for process, (out, err) in zip(both, results, strict=True):
        assert process.returncode == 0, err
        assert [file["state"] for file in json.loads(out)["files"]] == ["ready"] * NEEDED
    assert local_sources("small", ["text_encoder"])["text_encoder"][0].read_bytes() == TEXT
    assert hub_case.pieces() == []
    lock = read_lock(hub_case.lock)
    assert sum(file.checked_ns > 0 for file in lock.files.values()) == NEEDED
    assert lock.accepted == {"small": "MIT here, non-commercial there"}
