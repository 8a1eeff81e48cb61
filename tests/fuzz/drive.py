"""Runs a fuzzing target for a while: atheris where it is installed, else blind mutation.

The work is done in a child, so that even a crash inside a library is a finding and not the end.
What was tried and what was found is kept in a folder: ``tally.json`` and one file for each distinct
finding, with the input that shows it beside its text.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(CHECKOUT)]
HANG_S = 600
"""A child that is silent for this long in one input is stopped, however busy the machine is."""


def main(target: str) -> None:
    """The program of one target."""
    options = _options(target)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.replay is not None:
        sys.stdout.write((_replay(target, options.replay) or "nothing wrong") + "\n")
        return
    end = time.monotonic() + options.seconds
    number = 0
    while (left := end - time.monotonic()) > 1:
        # In memory where possible: every input is written and removed again.
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        with tempfile.TemporaryDirectory(prefix="joyflash-fuzz-", dir=memory) as folder:
            _one_child(target, options, number, left, folder)
        number += 1
    report = summary(options.out)
    (options.out / "tally.json").write_text(json.dumps(report, indent=1) + "\n")
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


def summary(out: Path) -> dict:
    """The tallies of all children, added up."""
    total: dict = {"children": 0, "executions": 0, "accepted": 0, "refused": {}, "findings": {}}
    for path in sorted(out.glob("tally-*.json")):
        tally = json.loads(path.read_text())
        total["children"] += 1
        for name in ("executions", "accepted"):
            total[name] += tally[name]
        for name in ("refused", "findings"):
            for what, count in tally[name].items():
                total[name][what] = total[name].get(what, 0) + count
    return total


def _options(target: str = "") -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Fuzzes: {target}.")
    if not target:
        parser.add_argument("target")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / f"fuzz-{target}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--blind", action="store_true", help="without atheris")
    parser.add_argument("--replay", type=Path, help="try one saved input instead")
    parser.add_argument("--child", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out = options.out.absolute()
    return options


def _one_child(
    target: str, options: argparse.Namespace, number: int, seconds: float, folder: str
) -> None:
    """One child until its time is over or it dies; how it died is a finding."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    command = [
        *(sys.executable, str(HERE / "drive.py"), target),
        *("--child", str(number + 1), "--seed", str(options.seed + number), "--folder", folder),
        *("--out", str(options.out), "--seconds", str(seconds)),
        *["--blind"] * options.blind,
    ]
    child = subprocess.Popen(command, env=environment, cwd=options.out)
    beat = options.out / "beat"
    while child.poll() is None:
        time.sleep(0.5)
        last = beat.stat().st_mtime if beat.exists() else time.time()
        if time.time() - max(last, time.time() - (time.monotonic() - started)) > HANG_S:
            child.send_signal(signal.SIGKILL)
            child.wait()
            _save(options.out, f"hung for {HANG_S} s", (options.out / "current").read_bytes())
            return
        if time.monotonic() - started > seconds + HANG_S:
            child.kill()
    if child.returncode not in (0, -signal.SIGKILL):
        _save(options.out, f"died with {child.returncode}", (options.out / "current").read_bytes())
    if time.monotonic() - started < 5:
        time.sleep(5)  # a target that cannot even start must not spin


def _run_child(target: str, options: argparse.Namespace) -> None:
    atheris = None if options.blind else _atheris()
    folder = options.folder
    _isolate(folder)
    if atheris is None:
        module = importlib.import_module(f"fuzz_{target}")
        attempt = _first_attempts(module, options)
        _blind(module, attempt, options)
        return
    # The first attempts are made within, so that what is imported late is instrumented, too.
    with atheris.instrument_imports(include=["joyflash_cli", "PIL", "tomllib", "json"]):
        module = importlib.import_module(f"fuzz_{target}")
        attempt = _first_attempts(module, options)
    _guided(atheris, module, attempt, options)


def _first_attempts(module: ModuleType, options: argparse.Namespace) -> _Attempt:
    """Every seed once; none of them may be a finding."""
    attempt = _Attempt(module, options)
    for seed in module.seeds():
        attempt(seed)
    return attempt


def _atheris() -> ModuleType | None:
    try:
        return importlib.import_module("atheris")
    except ImportError:
        sys.stderr.write("atheris is not installed: mutating blindly\n")
        return None


def _isolate(folder: Path) -> None:
    """Home and working folder of the child's own: what it may write by mistake lands there."""
    for name in ("home", "here"):
        (folder / name).mkdir()
    os.environ.update(HOME=str(folder / "home"), XDG_STATE_HOME=str(folder / "home"),
                      XDG_CACHE_HOME=str(folder / "home"))  # fmt: skip
    os.chdir(folder / "here")
    sys.dont_write_bytecode = True


class _Attempt:
    """Tries inputs, saves what is found, and tells that it is alive."""

    def __init__(self, module: ModuleType, options: argparse.Namespace) -> None:
        from oracle import Oracle

        self.oracle = Oracle(module.check, options.folder / "input")
        self._out = options.out
        self._tally = options.out / f"tally-{options.seed:04d}-{options.child}.json"
        self._current = (options.out / "current").open("wb", buffering=0)
        self._beat = options.out / "beat"
        self._saved = 0.0

    def __call__(self, data: bytes) -> None:
        self._current.seek(0)
        self._current.truncate()
        self._current.write(data)
        wrong = self.oracle.run(data)
        if wrong and self.oracle.tally.findings[wrong] == 1:
            _save(self._out, wrong, data)
        now = time.monotonic()
        if now - self._saved > 2.0:
            self._saved = now
            self._beat.touch()
            self._tally.write_text(json.dumps(vars(self.oracle.tally)))


def _save(out: Path, wrong: str, data: bytes) -> None:
    name = hashlib.sha256(wrong.encode()).hexdigest()[:12]
    (out / f"finding-{name}.txt").write_text(wrong + "\n")
    (out / f"finding-{name}.input").write_bytes(data)


def _blind(module: ModuleType, attempt: _Attempt, options: argparse.Namespace) -> None:
    chance = random.Random(options.seed)
    pool = list(module.seeds())
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        data = chance.choice(pool)
        for _ in range(chance.choice((1, 1, 2, 4))):
            data = module.mutate(data, chance)
        attempt(data[: module.MAX_BYTES])


def _guided(
    atheris: ModuleType,
    module: ModuleType,
    attempt: _Attempt,
    options: argparse.Namespace,
) -> None:
    corpus = options.folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(module.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed[: module.MAX_BYTES])

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.3:
            return atheris.Mutate(data, max_size)
        return module.mutate(data, chance)[:max_size]

    arguments = [
        sys.argv[0],
        f"-max_total_time={max(1, int(options.seconds))}",
        f"-max_len={module.MAX_BYTES}",
        f"-seed={options.seed + 1}",
        f"-artifact_prefix={options.out}/",
        *("-rss_limit_mb=6000", f"-timeout={HANG_S}", "-len_control=0"),
        *("-print_final_stats=1", "-verbosity=0"),
        str(corpus),
    ]
    atheris.Setup(arguments, attempt, custom_mutator=mutate)
    atheris.Fuzz()


def _replay(target: str, path: Path) -> str:
    module = importlib.import_module(f"fuzz_{target}")
    from oracle import Oracle

    with tempfile.TemporaryDirectory() as folder:
        oracle = Oracle(module.check, Path(folder))
        return oracle.run(path.read_bytes())


if __name__ == "__main__":
    child = _options()
    _run_child(child.target, child)
