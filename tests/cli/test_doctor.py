"""``joyflash doctor``: the facts, the verdict, and nothing that is private."""

import getpass
import http.server
import json
import socket
import threading

import pytest

from joyflash_cli.cli import doctor as module
from joyflash_cli.cli.app import run
from joyflash_cli.cli.doctor import redact, redact_text
from joyflash_cli.errors import CheckpointError

SECTIONS = {
    "format", "joyflash", "python", "system", "libraries", "environment", "torch", "devices",
    "memory", "media", "cache", "here", "hub", "checkpoints", "findings",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    for name in ("HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))


def report_of(capsys, *options: str) -> dict:
    assert run(["doctor", "--json", *options]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 1
    assert shown.err == ""
    return json.loads(shown.out)


def test_the_report_has_every_section(capsys):
    import torch

    report = report_of(capsys)
    assert set(report) == SECTIONS
    assert report["torch"]["version"] == torch.__version__
    assert report["devices"][-1]["name"] == "cpu"
    assert "math" in report["devices"][-1]["attention"]
    assert report["media"]["abilities"]["encoder libx264"] is True
    assert report["cache"]["is_writable"] is True
    assert report["hub"]["is_reachable"] is None
    names = [file["name"] for file in report["checkpoints"]]
    assert "tiny/transformer.safetensors" in names
    assert all(len(file["sha256"]) == 64 for file in report["checkpoints"])


def test_people_get_lines(capsys):
    assert run(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for first in ("joyflash", "torch", "device", "memory", "media", "cache", "hub", "weights"):
        assert any(line.startswith(first) for line in lines), first
    assert lines[-1] == "ready      videos can be made with profile tiny"


def test_nothing_private_is_shown(capsys, monkeypatch, tmp_path):
    home = tmp_path / "home" / "ada.lovelace"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(home / "models"))
    monkeypatch.setenv("HF_ENDPOINT", "https://ada:secret@mirror.example:8443")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    monkeypatch.setenv("HTTPS_PROXY", "http://ada:secret@proxy.example:3128")
    assert run(["doctor", "--json"]) == 0
    text = capsys.readouterr().out
    for private in ("ada.lovelace", "secret", "hf_abcdefghijklmnop", str(home)):
        assert private not in text
    report = json.loads(text)
    assert report["cache"]["directory"] == "~/models/hub"
    assert report["environment"]["HF_TOKEN"] == "set"
    assert report["environment"]["HTTPS_PROXY"] == "http://<credentials>@proxy.example:3128"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ada/x.wav and /Users/bob/y", "~/x.wav and ~/y"),
        (r"C:\Users\carol\models", r"~\models"),
        ("token hf_AbCdEfGhIjKl, end", "token <token>, end"),
        ("https://u:p@host.example/a?sig=1", "https://<credentials>@host.example/a?<query>"),
        ("nothing private", "nothing private"),
    ],
)
def test_what_is_taken_out(text, expected, monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "somebody")
    monkeypatch.setattr(socket, "gethostname", lambda: "machine-7")
    assert redact_text(text) == expected


def test_names_are_taken_out_as_words_only(monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "dan")
    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    assert redact_text("/data/dan/box: a dance in boxes") == "/data/<user>/<host>: a dance in boxes"
    nested = {"dan": ["dan", ("box", 3, None, True)]}
    assert redact(nested) == {"dan": ["<user>", ["<host>", 3, None, True]]}


class Hub(http.server.BaseHTTPRequestHandler):
    status = 200
    requests: list[dict] = []

    def do_HEAD(self):
        self.requests.append(dict(self.headers))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.requests = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield Hub
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(("status", "reachable"), [(200, True), (404, True), (503, False)])
def test_the_hub_is_asked_when_told_to(hub, capsys, monkeypatch, status, reachable):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    monkeypatch.setattr(hub, "status", status)
    report = report_of(capsys, "--online")
    assert report["hub"]["is_reachable"] is reachable
    assert str(status) in report["hub"]["detail"]
    assert len(hub.requests) == 1
    assert "hf_abcdefghijklmnop" not in str(hub.requests)
    assert any("Hub" in finding["text"] for finding in report["findings"]) is not reachable


def test_the_hub_is_left_alone_otherwise(hub, capsys, monkeypatch):
    assert report_of(capsys)["hub"]["detail"] == "not asked"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in report_of(capsys, "--online")["hub"]["detail"]
    assert hub.requests == []


def test_a_hub_that_does_not_answer(capsys, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    report = report_of(capsys, "--online")
    assert report["hub"]["is_reachable"] is False
    assert report["hub"]["detail"].startswith("does not answer")


def test_changed_weights_are_a_problem(capsys, monkeypatch):
    changed = [
        {
            "name": "tiny/codec.safetensors", "num_bytes": 10, "sha256": "0" * 64,
            "is_as_installed": False,
        }
    ]  # fmt: skip
    monkeypatch.setattr("joyflash_cli.weights.diagnosis.embedded_files", lambda: changed)
    assert run(["doctor"]) == 4
    shown = capsys.readouterr().out
    assert "problem    tiny/codec.safetensors is not what was installed" in shown
    assert "ready" not in shown


def test_missing_weights_are_a_problem(capsys, monkeypatch):
    def missing(profile):
        raise CheckpointError("nothing there", hint="install the package again")

    monkeypatch.setattr("joyflash_cli.weights.store.resolve_checkpoint", missing)
    assert run(["doctor"]) == 4
    assert "problem    nothing there (hint: install the package again)" in capsys.readouterr().out


@pytest.mark.parametrize(("library", "exit_code"), [("torch", 5), ("av", 6)])
def test_a_library_that_does_not_load_is_told_not_raised(library, exit_code, capsys, monkeypatch):
    real = module.import_module

    def broken(name):
        if name == library:
            raise OSError("libsomething.so.12: cannot open shared object file\nand more")
        return real(name)

    monkeypatch.setattr(module, "import_module", broken)
    assert run(["doctor"]) == exit_code
    shown = capsys.readouterr().out
    assert f"problem    {library} cannot be imported: libsomething.so.12" in shown
    assert run(["doctor", "--json"]) == exit_code
    assert json.loads(capsys.readouterr().out)["findings"][0]["severity"] == "problem"


def test_missing_codecs_are_a_problem(capsys, monkeypatch):
    monkeypatch.setattr(
        "joyflash_cli.media.outputs.codecs.missing_abilities", lambda: ["encoder libx264"]
    )
    assert run(["doctor"]) == 6
    assert "it lacks encoder libx264" in capsys.readouterr().out


def test_a_full_disk_and_a_locked_cache_are_notes(capsys, monkeypatch):
    for writable, free, words in (
        (True, 1_000_000_000, "1.0 GB are free"),
        (False, 10**12, "cannot be written"),
    ):
        state = {"directory": "/c", "is_writable": writable, "free_bytes": free}
        monkeypatch.setattr("joyflash_cli.weights.diagnosis.cache_state", lambda s=state: s)
        assert run(["doctor"]) == 0
        assert words in capsys.readouterr().out
