"""A headless Chromium for tests, spoken to through a pipe; no driver is needed.

The DevTools protocol: one JSON object per message, a zero byte after each, file descriptors 3 and
4 of the browser. It opens local files and ``127.0.0.1`` only: every other name on the network
resolves to nothing.
"""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE_S = 120.0
_MOVE_PIPES = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for place, pipe in zip((3, 4), pipes, strict=True):
    os.dup2(pipe, place)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def find_browser() -> str | None:
    """The browser's program, ``None`` where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One page at a given width.

    Args:
        width: Of the window in CSS pixels.
        phone: Whether it is shown as on a telephone: two device pixels each, touch, mobile layout.
        profile: An empty folder for the browser's own files.
    """

    def __init__(self, width: int, *, phone: bool = False, profile: Path) -> None:
        self.messages: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        self._buffer = b""
        from_us, self._to_browser = os.pipe()
        self._from_browser, to_us = os.pipe()
        self._process = _start(profile, from_us, to_us)
        os.close(from_us)
        os.close(to_us)
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attach = {"targetId": target, "flatten": True}
        self._session = self._call("Target.attachToTarget", attach)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to_browser)
        os.close(self._from_browser)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol to this page."""
        return self._call(method, parameters, self._session)

    def open(self, path: Path) -> None:
        """Shows a local file and waits until it is loaded."""
        self.show(path.resolve().as_uri())

    def show(self, address: str) -> None:
        """Shows an address and waits until it is loaded."""
        self.call("Page.navigate", url=address)
        self._wait(lambda message: message.get("method") == "Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, which may be a promise."""
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page, as long as it is, as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip
        )
        path.write_bytes(base64.b64decode(shot["data"]))

    def requests(self) -> list[str]:
        """Every address that the page asked for."""
        return [
            message["params"]["request"]["url"]
            for message in self.messages
            if message.get("method") == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        """What the page wrote to its console and what the browser refused."""
        found = []
        for message in self.messages:
            if message.get("method") == "Log.entryAdded":
                found.append(message["params"]["entry"]["text"])
            elif message.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                found.append(json.dumps(message["params"]))
        return found

    def _call(
        self, method: str, parameters: dict[str, Any], session: str | None = None
    ) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        answer = self._wait(lambda found: found.get("id") == number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _wait(self, wanted) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_S
        while True:
            message = self._next(until - time.monotonic())
            self.messages.append(message)
            if wanted(message):
                return message

    def _next(self, patience_s: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from_browser], [], [], max(patience_s, 0.0))
            if not ready:
                raise TimeoutError(f"the browser did not answer within {PATIENCE_S:.0f} s")
            piece = os.read(self._from_browser, 1 << 16)
            if not piece:
                raise RuntimeError("the browser has ended")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


def _start(profile: Path, commands: int, answers: int) -> subprocess.Popen:
    """The browser, reading commands from descriptor 3 and answering on 4."""
    arguments = [
        find_browser() or NAMES[0],
        "--headless=new",
        "--remote-debugging-pipe",
        "--no-sandbox",  # containers often run as root, where the sandbox cannot start
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={profile}",
        "about:blank",
    ]
    # A small program puts the two pipes where the browser looks for them, and becomes it.
    return subprocess.Popen(
        [sys.executable, "-c", _MOVE_PIPES, str(commands), str(answers), *arguments],
        pass_fds=(commands, answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
