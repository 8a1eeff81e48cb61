"""Fuzzes a checkpoint directory: its description, its indexes, and the headers of its weights.

The first byte of an input says which file of a small valid checkpoint the rest replaces; for
weights the rest is the header, with the true values behind it, or the whole file.
"""

import functools
import json
import random
import tempfile
from pathlib import Path

from drive import main
from mutations import mutate_bytes, mutate_json
from oracle import Oracle
from toy_checkpoint import write_toy_checkpoint

from joyflash_cli.render import JoyFlash
from joyflash_cli.render.memory import PlannedRun, check_memory
from joyflash_cli.render.placement import choose_placement
from joyflash_cli.weights.integrity import read_checksums
from joyflash_cli.weights.store import resolve_checkpoint
from joyflash_cli.weights.tensors import num_parameters

MAX_BYTES = 32_768
PARTS = ("front_end", "codec", "transformer")
DESCRIPTION, INDEX, CHECKSUMS = 0, 7, 8
WORDS = (
    "dtype", "shape", "data_offsets", "F32", "F16", "BF16", "I64", "F8_E4M3", "BOOL", "U64", "F4",
    "__metadata__", "kind", "wan", "tiny", "wav2vec2", "log-mel", "flow", "clean", "fps", "options",
    "config", "transformer", "codec", "front_end", "sampler", "framing", "conditioning",
    "weight_map", "codec.safetensors", "../codec.safetensors", "text_dim", "text_encoder",
    "audio_pack", "face_attention", "position_embedding",
)  # fmt: skip


@functools.cache
def _toy() -> dict[str, bytes]:
    """The files of a small valid checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        write_toy_checkpoint(Path(folder))
        # torch makes a folder for its compiler the first time; that is not an input's doing.
        JoyFlash.load("tiny", Path(folder), device="cpu", dtype="float32")
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def seeds() -> list[bytes]:
    """The description, and each file of weights by header and whole."""
    whole = [_toy()[f"{part}.safetensors"] for part in PARTS]
    index = {"metadata": {}, "weight_map": dict.fromkeys(("a", "b"), "codec.safetensors")}
    sums = {"codec.safetensors": {"bytes": 3, "sha256": "ab"}}
    return [
        b"\0" + _toy()["checkpoint.json"],
        *(bytes([1 + number]) + _header(data) for number, data in enumerate(whole)),
        *(bytes([4 + number]) + data[:2_000] for number, data in enumerate(whole)),
        bytes([INDEX]) + json.dumps(index).encode(),
        bytes([CHECKSUMS]) + json.dumps(sums).encode(),
    ]


def _header(data: bytes) -> bytes:
    return data[8 : 8 + int.from_bytes(data[:8], "little")]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Values of JSON, or bytes."""
    kind, body = data[:1], data[1:]
    if kind and 4 <= kind[0] % 9 <= 6:
        return kind + mutate_bytes(body, chance, (b"__metadata__", b"F32", b'"shape":[0]'))
    return kind + mutate_json(body, chance, WORDS)


def check(data: bytes, folder: Path, oracle: Oracle) -> None:
    """Resolves and loads the checkpoint as ``joyflash render`` does."""
    kind, body = data[0] % 9 if data else 0, data[1:]
    replaced = {}
    if kind == DESCRIPTION:
        replaced["checkpoint.json"] = body
    elif kind <= 3:
        name = f"{PARTS[kind - 1]}.safetensors"
        true = _toy()[name]
        values = true[8 + int.from_bytes(true[:8], "little") :]
        replaced[name] = len(body).to_bytes(8, "little") + body + values
    elif kind <= 6:
        replaced[f"{PARTS[kind - 4]}.safetensors"] = body
    elif kind == INDEX:
        replaced["codec.safetensors.index.json"] = body
    else:
        replaced["checksums.json"] = body
    checkpoint = folder / "toy"
    checkpoint.mkdir()
    for name, content in {**_toy(), **replaced}.items():
        if not (kind == INDEX and name == "codec.safetensors"):
            (checkpoint / name).write_bytes(content)
    with oracle.armed():
        files = resolve_checkpoint("tiny", checkpoint)
        read_checksums(checkpoint)
        for part in PARTS:
            num_parameters(files.shards(part))
        placement = choose_placement("cpu", "float32")
        check_memory(PlannedRun(files, (64, 64)), placement)
        loaded = JoyFlash.load(files, device="cpu", dtype="float32")
        loaded.latency()


if __name__ == "__main__":
    main("checkpoint")
