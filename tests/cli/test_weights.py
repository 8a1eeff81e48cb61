"""The verbs of ``joyflash weights`` as a user meets them."""

import io
import json
import os
import sys
import types
from pathlib import Path

import pytest
from hub_case import CODEC, NEEDED, TRANSFORMER
from hub_server import COMMIT, sha256

from joyflash_cli.cli.app import run
from joyflash_cli.cli.download_progress import FetchBars, FetchLines
from joyflash_cli.cli.progress import Lines
from joyflash_cli.weights.download import fetch_files
from joyflash_cli.weights.fetch_plan import plan_fetch
from joyflash_cli.weights.hub import open_hub
from joyflash_cli.weights.manifest import find_profile, select_files

TOKEN = "hf_QwertyUiopAsdfGhjkl"


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


@pytest.fixture
def weights(hub_case, capsys):
    """Runs a verb; gives its exit code, standard output and lines of standard error."""

    def call(*arguments):
        code = run(["weights", *arguments])
        shown = capsys.readouterr()
        assert TOKEN not in shown.out + shown.err
        return code, shown.out, lines(shown.err)

    return call


def test_the_first_run_of_someone_with_an_empty_cache(
    hub_case, weights, capsys, toy_picture, toy_voice, tmp_path
):
    """Every message names the next command, and the commands work as they are."""
    output = str(tmp_path / "video.mp4")
    render = ["render", "--image", str(toy_picture), "--audio", str(toy_voice), "-o", output]
    assert run([*render, "--profile", "small"]) == 4
    (error,) = lines(capsys.readouterr().err)
    assert "maker/avatar/model.safetensors" in error
    assert "joyflash weights fetch small --accept-license" in error
    assert hub_case.hub.seen == []

    code, out, err = weights("fetch", "small")
    assert (code, out, len(err)) == (4, "", 1)
    assert "MIT here, non-commercial there" in err[0]
    assert "--accept-license" in err[0]
    assert hub_case.hub.seen == []

    code, out, err = weights("fetch", "small", "--accept-license")
    assert code == 0
    assert len(lines(out)) == NEEDED
    text = "\n".join(err)
    assert f"to download: {NEEDED} of {NEEDED} files" in text
    assert "free in" in text
    assert "licence: MIT here, non-commercial there" in text
    assert "next: joyflash weights convert small" in text

    assert run([*render, "--profile", "small"]) == 4
    (error,) = lines(capsys.readouterr().err)
    assert "not converted yet" in error
    assert "joyflash weights convert small" in error

    # Accepted once, for these words.
    hub_case.lock.touch()
    assert weights("fetch", "small")[0] == 0
    hub_case.manifest.write_text(hub_case.manifest.read_text().replace("MIT here", "GPL here"))
    assert weights("fetch", "small")[0] == 4


def test_the_plan_is_shown_before_the_first_byte(hub_case, weights):
    hub_case.hub.faults = {"/storage/maker/avatar/model.safetensors": "status-500-get"}
    code, out, err = weights("fetch", "small", "--accept-license", "--role", "transformer")
    assert (code, out) == (4, "")
    assert any(line.startswith("to download: 1 of 1 files") for line in err)
    assert err[-1].startswith("joyflash: error[E-HUB-STATUS]: 500 for http://localhost")


def test_a_dry_run_downloads_nothing_and_needs_no_acceptance(hub_case, weights):
    code, out, err = weights("fetch", "small", "--dry-run", "--json")
    assert code == 0
    plan = json.loads(out)
    assert plan["download_files"] == NEEDED
    assert plan["download_bytes"] == sum(file["bytes"] for file in plan["files"])
    assert plan["files"][0] == {
        "role": "transformer", "repo": "maker/avatar", "revision": COMMIT,
        "path": "model.safetensors", "bytes": len(TRANSFORMER), "sha256": sha256(TRANSFORMER),
        "format": "safetensors", "licence": "contradictory", "state": "download",
        "local_path": None,
    }  # fmt: skip
    assert hub_case.cached_files() == set()
    assert not hub_case.lock.exists()


def test_files_without_doubtful_terms_need_no_acceptance(hub_case, weights):
    assert weights("fetch", "small", "--role", "codec", "--quiet")[0] == 0
    assert weights("fetch", "small", "--role", "codec", "--role", "transformer")[0] == 4


def test_quiet_says_only_where_the_files_are(weights):
    code, out, err = weights("fetch", "base", "--quiet")
    assert (code, err) == (0, [])
    assert Path(out.strip()).read_bytes() == CODEC


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fetch"], 2, "PROFILE"),
        (["fetch", "large"], 2, "one of tiny"),
        (["fetch", "tiny"], 2, "inside the package"),
        (["fetch", "none"], 2, "--checkpoint DIR"),
        (["fetch", "small", "--role", "kodec"], 2, "transformer, codec"),
        (["fetch", "small", "--role", "codec", "--without", "codec"], 2, "no file"),
        (["fetch", "small", "--offline", "--accept-license"], 4, "joyflash weights fetch small"),
        (["path", "small"], 4, "joyflash weights fetch small"),
        (["path", "base"], 2, "a base to train from"),
        (["path", "small", "--role", "codec"], 4, "joyflash weights fetch small --role codec"),
        (["path", "none"], 4, "no public weights"),
        (["convert", "tiny"], 2, "inside the package"),
        (["convert", "small"], 4, "--accept-license"),
        (["verify", "small"], 4, "joyflash weights fetch small --accept-license"),
        (["licenses", "large"], 2, "one of tiny"),
    ],
)
def test_mistakes_are_one_line_with_the_next_step(weights, arguments, code, words):
    found, out, err = weights(*arguments)
    assert (found, out) == (code, "")
    assert words in err[-1]
    assert sum(line.startswith("joyflash: error[") for line in err) == 1


def test_an_endpoint_that_is_no_address(weights, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "hf mirror")
    code, _, err = weights("fetch", "base")
    assert code == 2
    assert "HF_ENDPOINT" in err[-1]


def test_a_token_is_not_shown_even_by_a_server_that_repeats_it(hub_case, weights, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub_case.hub.faults = {"config.json": "status-403-get"}
    code, _, err = weights("fetch", "small", "--role", "audio_encoder", "--debug")
    assert code == 4
    assert any("Traceback" in line for line in err)
    assert any("<token>" in line for line in err)


def test_paths_of_downloads(weights):
    weights("fetch", "small", "--accept-license", "--quiet")
    code, out, _ = weights("path", "small", "--role", "audio_encoder")
    assert code == 0
    assert [line.rpartition("/")[2] for line in lines(out)] == ["model.safetensors", "config.json"]
    code, out, _ = weights("path", "small", "--role", "codec", "--json")
    assert list(json.loads(out)) == ["codec"]


def test_verify_finds_damage_and_fetch_repairs_it(hub_case, weights):
    weights("fetch", "small", "--accept-license", "--quiet")
    code, out, err = weights("verify", "small")
    assert (code, out) == (0, "")
    assert sum(line.strip().startswith("ok ") for line in err) == NEEDED
    _, path, _ = weights("path", "small", "--role", "codec")
    file = Path(path.strip())
    before = file.stat()
    with file.open("r+b") as opened:
        opened.seek(100)
        opened.write(b"\xff")
    # As bit rot would: size and time of change tell nothing.
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    code, out, err = weights("verify", "small", "--json")
    assert code == 4
    states = {file["name"]: file["state"] for file in json.loads(out)["small"]}
    assert states["base/wan/vae.pth"] == "damaged"
    assert sum(state == "ok" for state in states.values()) == NEEDED - 1
    assert "joyflash weights fetch small" in err[-1]
    assert weights("fetch", "small", "--quiet")[0] == 0
    assert weights("verify", "small")[0] == 0


def test_list_says_what_is_here(weights):
    assert "0 of 5 files; joyflash weights fetch small --accept-license" in weights("list")[1]
    weights("fetch", "small", "--accept-license", "--quiet")
    assert "all files; joyflash weights convert small" in weights("list")[1]
    profiles = json.loads(weights("list", "--json")[1])
    assert profiles["small"]["fetched_files"] == NEEDED
    assert profiles["small"]["converted"] is False
    assert profiles["small"]["files"][1]["sha256"] == sha256(CODEC)


def test_licences_with_their_conflicts(weights):
    code, out, err = weights("licenses")
    assert (code, err) == (0, [])
    assert "MIT here, non-commercial there" in out
    assert "not accepted yet (--accept-license)" in out
    assert "    base/wan/vae.pth" in out
    weights("fetch", "small", "--accept-license", "--quiet")
    values = json.loads(weights("licenses", "small", "--json")[1])
    assert values["small"]["accepted"] is True
    assert values["small"]["files"]["maker/avatar/model.safetensors"] == "contradictory"


def test_convert_passes_on_what_was_asked(hub_case, weights, monkeypatch, tmp_path):
    asked = {}

    def convert_weights(profile, *, on_progress, out_dir, **options):
        on_progress("transformer, file 1 of 1")
        asked.update(options, profile=profile, out_dir=out_dir)
        return out_dir

    fake = types.ModuleType("joyflash_cli.weights.convert")
    fake.convert_weights = convert_weights
    monkeypatch.setitem(sys.modules, "joyflash_cli.weights.convert", fake)
    code, out, err = weights("convert", "small", "--accept-license")
    assert (code, out.strip()) == (0, str(hub_case.converted / "small"))
    assert err == ["convert small: transformer, file 1 of 1"]
    assert asked == {
        "profile": "small", "source": None, "out_dir": hub_case.converted / "small",
        "dtype": "bf16", "overwrite": False,
    }  # fmt: skip
    options = ["--source", "here", "-o", str(tmp_path / "out"), "--dtype", "fp32", "--overwrite"]
    assert weights("convert", "small", *options, "--quiet", "--json")[0] == 0
    assert (asked["dtype"], asked["overwrite"], asked["out_dir"]) == (
        "fp32", True, tmp_path / "out",
    )  # fmt: skip


def make_plan():
    profile = find_profile("small")
    return plan_fetch("small", profile, select_files(profile), hub=open_hub())


def test_progress_in_a_log(hub_case):
    plan, stream = make_plan(), io.StringIO()
    clock = iter(range(0, 10_000, 6))
    display = Lines("fetch", stream, clock=lambda: next(clock))
    with FetchLines(plan, display) as progress:
        fetch_files(plan, on_progress=progress.update, num_parallel=1)
    shown = lines(stream.getvalue())
    assert "fetch: base/wan/vae.pth done" in shown
    assert any(line.endswith(f" of {plan.download_bytes / 1e6:.1f} MB") for line in shown)


def test_progress_on_a_terminal(hub_case, monkeypatch, capsys):
    plan = make_plan()
    with FetchBars(plan) as progress:
        fetch_files(plan, on_progress=progress.update)
        bars = progress._bars
        total = bars.tasks[-1]
        assert (total.completed, total.total) == (plan.download_bytes, plan.download_bytes)
        assert all(task.completed == task.total for task in bars.tasks)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "done  codec  base/wan/vae.pth" in shown.err
