"""Runs command lines in processes that can be killed, without importing everything each time.

The server imports the program once, computes nothing, and forks for each job: a killed job dies
like any other process. One job a line on standard input; the answers are its process number and,
when it has ended, its wait status.
"""

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).resolve().parent


class ForkServer:
    """Starts jobs one at a time; used in a ``with`` statement."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()  # it is ready

    def start(self, kind: str, arguments: list[str], folder: Path, log: Path) -> int:
        """Begins a job: a command line (``run``) or a batch (``batch``); its process number."""
        job = {"kind": kind, "arguments": arguments, "folder": str(folder), "log": str(log)}
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def wait(self) -> int:
        """The exit code of the job, negative where a signal ended it."""
        return os.waitstatus_to_exitcode(self._answer())

    def run_for(self, seconds: float, *job, ready: Callable[[], bool] | None = None) -> int:
        """Kills a job some time after it is ready (or has ended); its exit code."""
        job[-1].unlink(missing_ok=True)
        number = self.start(*job)
        while ready is not None and not ready() and _runs(number):
            time.sleep(0.002)
        time.sleep(seconds)
        os.kill(number, 9)  # a job that has ended waits to be collected until now
        self._server.stdin.write("collect\n")
        self._server.stdin.flush()
        return self.wait()

    def run(self, *job) -> int:
        """Lets a job end by itself; its exit code."""
        self.start(*job)
        self._server.stdin.write("collect\n")
        self._server.stdin.flush()
        return self.wait()

    def _answer(self) -> int:
        line = self._server.stdout.readline()
        assert line, "the server has gone"
        return int(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()


def _runs(number: int) -> bool:
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def main() -> None:
    """The server."""
    import av  # noqa: F401 - imported so that jobs need not
    import torch  # noqa: F401

    import joyflash_cli.media.outputs.file_writer
    import joyflash_cli.render.stream  # noqa: F401

    sys.path[:0] = [str(TESTS), str(TESTS / "batch")]
    say(0)
    for line in sys.stdin:
        number = os.fork()
        if number == 0:
            _work(json.loads(line))
        say(number)
        sys.stdin.readline()  # only now may it be collected: until then its number is its own
        say(os.waitpid(number, 0)[1])


def say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _work(job: dict) -> None:
    code = 1
    try:
        os.chdir(job["folder"])
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if job["kind"] == "run":
            from joyflash_cli.cli.app import run

            code = run(job["arguments"])
        else:
            from real_batch import run_batch

            code = run_batch(*job["arguments"])
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
