"""A renderer without a model, whose prompts say how a row behaves, and batches made of it."""

import hashlib
import json
import os
import signal
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from joyflash_cli.batch.checks import RowRules
from joyflash_cli.batch.jobs import Job
from joyflash_cli.batch.plan import BatchChoices, BatchPlan, prepare_batch
from joyflash_cli.batch.rows import STATE_FOLDER
from joyflash_cli.batch.runner import BatchRunner, BatchStatus
from joyflash_cli.errors import AudioError, CheckpointError, OutputError


@dataclass(frozen=True)
class FakeLoader:
    """Loads a ``FakeRenderer``; each load and each render leaves a file in ``log``."""

    log: str
    loading: str = ""

    def __call__(self, device: str) -> "FakeRenderer":
        if self.loading == "refuse":
            raise CheckpointError("the weights are damaged", hint="fetch them", code="E-CHECKPOINT")
        if self.loading == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        note(self.log, "load", f"{os.getpid()}")
        if "ray" in sys.modules:
            import ray

            note(self.log, "node", ray.get_runtime_context().get_node_id())
        return FakeRenderer(self.log)


class FakeRenderer:
    """Writes bytes that depend on the row's contents only."""

    def __init__(self, log: str) -> None:
        self.log = log

    def render(self, job: Job) -> dict:
        note(self.log, "render", job.row.id)
        behave(job, self.log)
        digest = hashlib.sha256()
        for path in (job.row.image_path, job.row.audio_path):
            digest.update(path.read_bytes())
        digest.update(f"{job.row.seed} {job.row.prompt}".encode())
        job.staged.write_bytes(digest.digest() * 8)
        Path(f"{job.staged}.json").write_text(json.dumps({"seed": job.row.seed}))
        note(self.log, "finish", job.row.id)
        return {"sha256": hashlib.sha256(digest.digest() * 8).hexdigest(), "bytes": 256,
                "video_s": 1.0}  # fmt: skip


def behave(job: Job, log: str) -> None:
    """What the prompt says: ``refuse``, ``bug``, ``full``, ``die``, ``die-once``, ``wait 2``."""
    verb, _, amount = job.row.prompt.partition(" ")
    once = Path(log) / f"died-{job.row.id}"
    if verb == "refuse":
        raise AudioError(f"{job.row.audio_path.name} has no samples", code="E-AUDIO-EMPTY")
    if verb == "bug":
        raise ZeroDivisionError("nothing to divide")
    if verb == "full":
        raise OutputError("the disk is full", code="E-OUTPUT-FULL")
    if verb == "partial":
        kept = job.staged.with_name(f"{job.staged.stem}.partial{job.staged.suffix}")
        kept.write_bytes(b"half")
        raise AudioError(f"cut off; 9 frames are kept in {kept}")
    if verb == "die" or (verb == "die-once" and not once.exists()):
        once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if verb == "wait":
        time.sleep(float(amount))


def note(log: str, what: str, detail: str) -> None:
    (Path(log) / f"{what}-{detail}-{uuid.uuid4().hex[:8]}").touch()


def count(log: Path, what: str) -> int:
    return len(list(Path(log).glob(f"{what}-*")))


@dataclass
class Bench:
    """A folder with a picture, sounds, a log of what renderers did, and an output folder."""

    folder: Path
    rows: list[dict] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log.mkdir(parents=True, exist_ok=True)
        (self.folder / "face.png").write_bytes(b"a picture")

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def ledger(self) -> list[dict]:
        lines = (self.out / STATE_FOLDER / "ledger.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def results(self) -> dict[str, dict]:
        lines = (self.out / "results.jsonl").read_text().splitlines()
        return {row["id"]: row for row in map(json.loads, lines)}

    def states(self) -> dict[str, str]:
        return {name: row["state"] for name, row in self.results.items()}

    def add(self, row_id: str, prompt: str = "", **columns) -> None:
        audio = self.folder / f"{row_id}.wav"
        audio.write_bytes(f"sound of {row_id}".encode())
        row = {"id": row_id, "image": "face.png", "audio": audio.name, "prompt": prompt}
        self.rows.append({**row, **columns})

    def manifest(self) -> Path:
        path = self.folder / "manifest.jsonl"
        whole = path.with_name(f"{uuid.uuid4().hex}.jsonl")  # another driver may read the old one
        whole.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        return whole.replace(path)

    def plan(self, weights: str = "w", **choices) -> BatchPlan:
        rules = RowRules(folder=self.folder, profile="fake", hears_text=True)
        with self.manifest().open("rb") as file:
            return prepare_batch(
                file,
                "manifest.jsonl",
                choices=BatchChoices(out_dir=self.out, weights_sha256=weights, **choices),
                rules=rules,
            )

    def run(self, engine, *, lease_s: float = 60.0, **choices) -> BatchStatus:
        with engine:
            return BatchRunner(self.plan(**choices), engine, lease_s=lease_s).run()

    def loader(self, loading: str = "") -> FakeLoader:
        return FakeLoader(str(self.log), loading)

    def files(self) -> list[str]:
        """What lies in the output folder, without the batch's own folder."""
        return sorted(
            str(path.relative_to(self.out))
            for path in self.out.rglob("*")
            if path.is_file() and STATE_FOLDER not in path.parts
        )

    def left_behind(self) -> list[str]:
        """Claims, owners and half-made files that should be gone."""
        state = self.out / STATE_FOLDER
        return sorted(
            str(path.relative_to(state))
            for name in ("claims", "owners", "work")
            for path in (state / name).glob("*")
        )
