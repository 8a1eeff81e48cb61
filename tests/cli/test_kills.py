"""Renders and batches that are killed at any moment, again and again."""

import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from conftest import write_tone
from programs import Program

from joyflash_cli.media.outputs.probe import probe

pytestmark = pytest.mark.slow
ROUNDS = 50
BATCH = Path(__file__).parents[1] / "batch"


class Job:
    """A command line or a batch, started again and again in one folder, with what it says."""

    def __init__(self, arguments: list[str], folder: Path, log: Path, **options) -> None:
        self._arguments, self._options = arguments, {"cwd": folder, **options}
        self._log = log

    def start(self) -> Program:
        with self._log.open("wb") as log:
            return Program(self._arguments, stdout=log, stderr=log, **self._options)

    def finish(self) -> None:
        """Lets it end by itself."""
        assert self.start().wait() == 0, self._log.read_text()

    def timed(self) -> float:
        """Seconds that it takes now, on this machine as busy as it is."""
        began = time.monotonic()
        self.finish()
        return time.monotonic() - began

    def run_for(self, seconds: float, ready: Callable[[], bool]) -> int:
        """Kills it some time after it is ready, or has ended; its exit code."""
        program = self.start()
        while not ready() and program.poll() is None:
            time.sleep(0.002)
        time.sleep(seconds)
        program.kill()
        return program.wait()


def frames_that_play(path: Path) -> int:
    try:
        with av.open(str(path)) as container:
            return sum(1 for _ in container.decode(video=0))
    except (av.error.FFmpegError, FileNotFoundError):
        return 0


def blocks_told(log: Path) -> int:
    return log.read_bytes().count(b'"event": "block"') if log.exists() else 0


def frames_told(log: Path) -> int:
    """Frames that were written when the last event was told."""
    written = 0
    for line in log.read_text().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # cut off by the kill
        if event["event"] == "block":
            written = event["frames"]
    return written


def test_render(toy_checkpoint, toy_picture, tmp_path):
    """All but the last second plays, and the same command afterwards leaves one whole video."""
    here, log = tmp_path / "here", tmp_path / "log"
    here.mkdir()
    voice = write_tone(tmp_path / "voice.wav", 8.0)
    job = Job(["render", "--image", str(toy_picture), "--audio", str(voice), "-o", "out.mp4",
               "--checkpoint", str(toy_checkpoint), "--device", "cpu", "--dtype", "float32",
               "--progress", "json", "--overwrite"], here, log)  # fmt: skip
    chance = random.Random(0)
    whole_s = job.timed()
    expected = (here / "out.mp4").read_bytes()
    (here / "out.mp4").unlink()
    (here / "out.mp4.json").unlink()
    killed, lost = 0, []
    for number in range(ROUNDS):
        # Every fifth at any time at all, the others once so many blocks were written.
        after_s = chance.uniform(0, whole_s) if number % 5 == 0 else chance.uniform(0, 0.1)
        blocks = 0 if number % 5 == 0 else chance.randrange(1, 17)
        if job.run_for(after_s, lambda n=blocks: blocks_told(log) >= n) == 0:
            assert (here / "out.mp4").read_bytes() == expected
        else:
            killed += 1
            names = sorted(os.listdir(here))
            allowed = {
                ".out.part.mp4",
                ".out.part2.mp4",
                "out.mp4",
                ".out.mp4.json.part",
                "out.mp4.json",
            }
            assert set(names) <= allowed, names
            if ".out.part.mp4" in names:
                lost.append(frames_told(log) - frames_that_play(here / ".out.part.mp4"))
                assert lost[-1] <= 25, (number, lost)
            if "out.mp4" in names:
                assert probe(here / "out.mp4").num_frames == 200
        if number % 5 == 4:
            job.finish()
            assert sorted(os.listdir(here)) == ["out.mp4", "out.mp4.json"]
            assert (here / "out.mp4").read_bytes() == expected
            (here / "out.mp4").unlink()
            (here / "out.mp4.json").unlink()
    sys.stdout.write(f"render: {killed} of {ROUNDS} killed, {len(lost)} had begun, "
                     f"at most {max(lost, default=0)} frames lost\n")  # fmt: skip
    assert killed > ROUNDS // 2


def test_batch(toy_checkpoint, toy_picture, tmp_path):
    """The ledger stays readable, every row is done once, and its bytes are those of a calm run."""
    rows = 12
    lines = ["id,image,audio,seed"]
    for number in range(rows):
        write_tone(tmp_path / f"v{number}.wav", 0.8 + number / 10)
        lines.append(f"r{number},{toy_picture},v{number}.wav,{number}")
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    log = tmp_path / "log"

    paths = os.pathsep.join([os.environ["PYTHONPATH"], str(BATCH)])
    batch = {
        "program": "import real_batch; real_batch.main()",
        "env": {**os.environ, "PYTHONPATH": paths},
    }

    def job(folder: str) -> Job:
        arguments = [tmp_path / "rows.csv", tmp_path / folder, toy_checkpoint]
        return Job(arguments, tmp_path, log, **batch)

    whole_s = job("calm").timed()
    expected = digests(tmp_path / "calm")
    assert len(expected) == rows
    chance, killed, folder = random.Random(1), 0, 0
    for number in range(ROUNDS):
        # Once it has written something into its ledger, so that not all die while loading.
        ledger = tmp_path / f"out{folder}" / ".joyflash" / "ledger.jsonl"
        size = size_of(ledger)
        told = lambda ledger=ledger, size=size: size_of(ledger) > size  # noqa: E731
        after_s = chance.uniform(0, whole_s / rows)
        if job(f"out{folder}").run_for(after_s, told) == 0:
            check_batch(tmp_path / f"out{folder}", expected)
            folder += 1
        else:
            killed += 1
            check_ledger(tmp_path / f"out{folder}", whole=False)
        if number % 10 == 9:
            job(f"out{folder}").finish()
            check_batch(tmp_path / f"out{folder}", expected)
            folder += 1
    sys.stdout.write(f"batch: {killed} of {ROUNDS} killed, {folder} folders completed\n")
    assert killed > ROUNDS // 2


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.mp4")
    }


def check_ledger(folder: Path, *, whole: bool) -> list[dict]:
    """Every line but perhaps the last is one record."""
    path = folder / ".joyflash" / "ledger.jsonl"
    if not path.exists():
        assert not whole
        return []
    lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            records.append(json.loads(line))
        except ValueError:
            assert not whole or number < len(lines) - 2, line
    return records


def check_batch(folder: Path, expected: dict[str, str]) -> None:
    assert digests(folder) == expected
    done = [r["output"] for r in check_ledger(folder, whole=True) if r["state"] == "done"]
    assert sorted(done) == sorted(expected)
    state = folder / ".joyflash"
    left = [path for name in ("claims", "owners", "work") for path in (state / name).glob("*")]
    assert left == []
    assert not [path.name for path in folder.iterdir() if path.name.endswith(".part")]
