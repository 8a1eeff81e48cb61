"""A small Hub on loopback that serves tiny repositories, and misbehaves on request.

It answers like the real one: a HEAD or GET of ``/<repo>/resolve/<revision>/<path>`` carries the
commit and the hash, and large files are redirected to a storage of another origin, which must never
see the token.
"""

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "c0ffee" + "0" * 34
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 19156315889\n"
LARGE_BYTES = 1000
"""Files from this size on are kept in the storage, like large files on the Hub."""


def safetensors(num_bytes: int, fill: bytes = b"\x01") -> bytes:
    """A valid safetensors file of one tensor."""
    entry = {"x": {"dtype": "U8", "shape": [num_bytes], "data_offsets": [0, num_bytes]}}
    header = json.dumps(entry).encode()
    return len(header).to_bytes(8, "little") + header + fill * num_bytes


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Seen:
    """One request."""

    method: str
    path: str
    token: str | None
    origin: str


@dataclass
class HubState:
    """What the server serves, how it misbehaves, and what it was asked.

    ``faults`` maps the end of a path to the name of a fault, ``counts`` limits how often it occurs.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    commit: str = COMMIT
    headers: dict[str, str] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    piece_wait_s: float = 0.02

    def fault(self, path: str) -> str:
        for end, name in self.faults.items():
            if path.endswith(end):
                if end in self.counts:
                    self.counts[end] -= 1
                    if self.counts[end] < 0:
                        return ""
                return name
        return ""

    def downloads(self, end: str) -> int:
        """How many bodies of a file were asked for."""
        return sum(
            seen.method == "GET"
            and seen.path.endswith(end)
            and seen.origin == self.last_origin(end)
            for seen in self.seen
        )

    def last_origin(self, end: str) -> str:
        return next(s.origin for s in reversed(self.seen) if s.path.endswith(end))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: HubState

    def log_message(self, *_):
        return

    def do_HEAD(self):
        self._answer(send_body=False)

    def do_GET(self):
        self._answer(send_body=True)

    def _answer(self, *, send_body: bool) -> None:
        path = urlsplit(self.path).path
        host = self.headers.get("Host", "")
        authorization = self.headers.get("Authorization")
        self.state.seen.append(Seen(self.command, path, authorization, host))
        fault = self.state.fault(path)
        is_storage = path.startswith("/storage/")
        if fault.startswith("status-"):
            if not (fault.endswith("-get") and not send_body):
                self._refuse(int(fault.split("-")[1]), authorization or "")
                return
        elif fault == "gated":
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "ask first"})
            return
        elif fault == "no-such-file":
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        elif fault == "no-such-revision":
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        elif fault == "no-such-repository":
            self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
            return
        elif fault == "login-page":
            self._send(200, b"<!DOCTYPE html><html>log in</html>", {"Content-Type": "text/html"})
            return
        if is_storage:
            name = path.removeprefix("/storage/")
        else:
            owner, repo, _, revision, rest = path.lstrip("/").split("/", 4)
            name = f"{owner}/{repo}/{rest}"
        content = self.state.files.get(name)
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        if is_storage:
            self._send_file(content, fault, send_body=send_body)
            return
        commit = revision if len(revision) == 40 else self.state.commit
        if fault == "other-commit":
            commit = "d" * 40
        headers = {"X-Repo-Commit": commit, **self.state.headers}
        if len(content) >= LARGE_BYTES:
            port = host.rpartition(":")[2]
            headers |= {
                "X-Linked-Etag": f'"{sha256(content)}"',
                "X-Linked-Size": str(len(content)),
                # Another name of the same machine is another origin.
                "Location": f"http://localhost:{port}/storage/{name}?signature=secret-signature",
            }
            self._send(302, b"", headers)
            return
        digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self._send_file(content, fault, send_body=send_body, headers=headers | {"ETag": digest})

    def _send_file(self, content, fault, *, send_body, headers=None):
        headers = dict(headers or {})
        if send_body and fault == "other-bytes":
            content = bytes(byte ^ 0xFF for byte in content)
        if send_body and fault == "html-body":
            content = b"<!DOCTYPE html>".ljust(len(content), b" ")
        start = 0
        requested = self.headers.get("Range")
        if requested and fault != "cut-always":
            start = int(requested.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send_response(206 if start else 200)
        body = content[start:]
        announced = len(body) // 2 if fault == "announced-short" and send_body else len(body)
        for name, value in (headers | {"Content-Length": str(announced)}).items():
            self.send_header(name, value)
        self.end_headers()
        if not send_body:
            return
        if fault in ("cut", "cut-always"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
        elif fault == "slow":
            for i in range(0, len(body), 1024):
                self.wfile.write(body[i : i + 1024])
                self.wfile.flush()
                time.sleep(self.state.piece_wait_s)
        else:
            self.wfile.write(body[:announced])

    def _refuse(self, status: int, authorization: str) -> None:
        headers = dict(self.state.headers)
        if status == 401:
            headers["X-Error-Message"] = "Invalid credentials in Authorization header"
        # A careless server repeats what it was sent.
        self._send(status, json.dumps({"error": f"refused: {authorization}"}).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that was killed is part of the tests."""


class HubServer:
    """The server in its thread; a context manager."""

    def __init__(self) -> None:
        self.state = HubState()
        handler = type("BoundHandler", (Handler,), {"state": self.state})
        self._server = QuietServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
