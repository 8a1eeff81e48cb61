"""Fuzzes the table of a batch (CSV and JSON lines) and the ledger beside its results.

An input's first byte says what the rest is: a CSV file, a JSON lines file, a file of neither name,
or a ledger.
"""

import hashlib
import io
import json
import os
import random
from pathlib import Path

from drive import main
from mutations import mutate_bytes, mutate_tree
from oracle import Oracle, Violation, line_problem

from joyflash_cli.batch.checks import RowRules
from joyflash_cli.batch.digests import KEY_FORMAT, key_of
from joyflash_cli.batch.plan import BatchChoices, BatchProblems, prepare_batch
from joyflash_cli.batch.rows import COLUMNS
from joyflash_cli.errors import UsageError

MAX_BYTES = 32_768
NAMES = ("rows.csv", "rows.jsonl", "rows", "ledger")
WORDS = (*COLUMNS, "a.mp4", "b/c.mkv", "out.m3u8", "face.png", "talk.wav", "publishing", "done")

_CSV = (
    b"id,image,audio,output,prompt,seed\r\nr1,face.png,talk.wav,,,\r\nr2,face.png,talk.wav,x/b.mp4,,7\r\n",
    b"\xef\xbb\xbfid;image;audio\n\"a;b\";face.png;talk.wav\nc;face.png;missing.wav\n",
    b"sep=\t\nid\timage\taudio\nx\tface.png\ttalk.wav\n",
    b'id,image,audio,prompt\n1,face.png,talk.wav,"two\nlines and ""quotes"""\n',
    b"id,image,audio,output\n-y,face.png,talk.wav,a b;$(touch pwn).mp4\n=1+1,face.png,talk.wav,\n",
)  # fmt: skip
_JSON = (
    b'{"id": "r1", "image": "face.png", "audio": "talk.wav"}\n'
    b'{"id": "r2", "image": "face.png", "audio": "talk.wav", "seed": 7, "output": "b.mkv"}\n',
    b'{"id": "\\u00e4\\ud83d\\ude00", "image": "face.png", "audio": "talk.wav", "prompt": "x"}\n',
)
_LEDGER_RECORD = {
    "v": 1, "time": "2026-01-01T00:00:00.000+00:00", "owner": "o", "host": "h", "state": "done",
    "output": "r1.mp4", "id": "r1", "key": "k", "settings": "s",
    "image": [3, 1, "ab"], "audio": [3, 1, "ab"], "facts": {"sha256": "ab", "bytes": 1},
    "replaces": [["s", "ab"]], "code": "E-X", "error": "text",
}  # fmt: skip
_CELLS = (
    b"", b'"', b"-1", b"9" * 30, b"\xff", b"../a.mp4", b"/a.mp4", b".joyflash/a.mp4", b"con.mp4",
    b"a" * 300 + b".mp4", b"a\x00b", b"\xc2\x85",
)  # fmt: skip
_SETTINGS = key_of({"weights": "w"})
_ABC = hashlib.sha256(b"abc").hexdigest()
_KEY = key_of(
    {
        "format": KEY_FORMAT, "image": _ABC, "audio": _ABC, "seed": 0, "prompt": "",
        "suffix": ".mp4", "settings": _SETTINGS,
    }
)  # fmt: skip
_TOKENS = (
    b'"', b'""', b",", b";", b"\t", b"\r", b"\n", b"\r\n", b"\x00", b"sep=;\n", b"\xef\xbb\xbf",
    b"\xff\xfe", b"\xe2\x80\xa8", b"\x1b[31m", b"[" * 20_000, b'{"id":', b"\\ud800", b"..", b"/",
    *(column.encode() for column in COLUMNS),
)  # fmt: skip


def seeds() -> list[bytes]:
    """Valid and nearly valid inputs."""
    states = ("done", "publishing", "failed", "running")
    true = {"key": _KEY, "settings": _SETTINGS}
    records = [{**_LEDGER_RECORD, **true, "state": state} for state in states]
    ledger = [json.dumps(record).encode() + b"\n" for record in records]
    return [
        *(b"\0" + text for text in _CSV),
        *(b"\1" + text for text in _JSON),
        b"\2" + _CSV[0],
        b"\2" + _JSON[0],
        *(b"\3" + line for line in ledger),
        b"\3" + b"".join(ledger),
    ]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Cells, keys, records, or plain bytes."""
    if len(data) < 2 or chance.random() < 0.3:
        return mutate_bytes(data, chance, _TOKENS)
    kind, body = data[:1], data[1:]
    if chance.random() < 0.02:
        kind = bytes([chance.randrange(4)])
    lines = body.split(b"\n")
    at = chance.randrange(len(lines))
    if chance.random() < 0.2:
        lines[at:at] = [lines[at]] * chance.choice((1, 2, 200))
        return kind + b"\n".join(lines)
    try:
        lines[at] = json.dumps(mutate_tree(json.loads(lines[at]), chance, WORDS)).encode()
    except (ValueError, RecursionError):
        cells = lines[at].split(b",")
        cells[chance.randrange(len(cells))] = chance.choice(
            (*(word.encode() for word in WORDS), *_CELLS)
        )
        lines[at] = b",".join(cells)
    return kind + b"\n".join(lines)


def check(data: bytes, folder: Path, oracle: Oracle) -> None:
    """Prepares the batch as ``joyflash batch`` does, without rendering."""
    kind, body = data[0] % 4 if data else 0, data[1:]
    for name in ("face.png", "talk.wav"):
        (folder / name).write_bytes(b"abc")
        os.utime(folder / name, ns=(1, 1))
    out = folder / "out"
    manifest = body
    if NAMES[kind] == "ledger":
        (out / ".joyflash").mkdir(parents=True)
        (out / ".joyflash" / "ledger.jsonl").write_bytes(body)
        (out / "r1.mp4").write_bytes(b"a video")
        manifest = _JSON[0]
    rules = RowRules(folder=folder, profile="tiny", hears_text=True)
    choices = BatchChoices(out_dir=out, weights_sha256="w", retry_failed=len(body) % 2 == 0)
    with oracle.armed():
        try:
            plan = prepare_batch(io.BytesIO(manifest), NAMES[kind], choices=choices, rules=rules)
        except BatchProblems as error:
            for problem in error.problems:
                if wrong := line_problem(str(problem)):
                    raise Violation(wrong) from error
            raise UsageError(error.summary, code=error.code) from error
        for row in plan.refused:
            if wrong := line_problem(row.error):
                raise Violation(wrong)
        refused = {row.number for row in plan.refused}
        for row in plan.rows:
            if row.number in refused:
                continue
            _check_row(row, out)
            plan.judge(row)
            plan.may_replace(row)


def _check_row(row, out: Path) -> None:
    inside = Path(os.path.normpath(out / row.output))
    if out not in inside.parents or inside.parent == out / ".joyflash":
        raise Violation("an output outside its folder")
    if not 0 <= row.seed < 1 << 63 or not row.id:
        raise Violation("an impossible row")
    if not (row.image_path.is_file() and row.audio_path.is_file()):
        raise Violation("a row without its files")


if __name__ == "__main__":
    main("manifest")
