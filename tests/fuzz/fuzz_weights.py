"""Fuzzes ``weights.toml``, the lock file of downloads, and ``config.toml``.

The first byte of an input says which of the three the rest is.
"""

import json
import random
import tomllib
from pathlib import Path
from typing import Any

from drive import CHECKOUT, main
from mutations import mutate_bytes, mutate_json, mutate_tree
from oracle import Oracle, Violation, line_problem
from typer.main import get_command

from joyflash_cli.cli.app import app
from joyflash_cli.cli.settings import (
    default_map,
    known_settings,
    read_settings,
    unknown_variables,
)
from joyflash_cli.weights.lock_file import read_lock
from joyflash_cli.weights.manifest import read_manifest

MAX_BYTES = 49_152
WORDS = (
    "format", "profiles", "title", "source", "licence", "kind", "note", "acceptance", "files",
    "role", "repo", "path", "revision", "bytes", "sha256", "optional", "hub", "embedded", "none",
    "avatar", "base", "safetensors", "pickle", "render", "batch", "seed", "device", "threads",
)  # fmt: skip
_SETTINGS = b'seed = 7\ndevice = "cpu"\n[render]\nthreads = 2\nquiet = true\n[batch]\nworkers = 1\n'
_LOCK = {
    "format": 1,
    "files": {"a/b@c/d": {"bytes": 3, "sha256": "ab"}},
    "revisions": {"a/b": "c" * 40},
    "checked": {"/x": {"bytes": 1, "modified_ns": 2, "sha256": "ab"}},
    "accepted": {"small": "MIT"},
}
_TOKENS = (
    b"[" * 20_000, b"a." * 10_000, b"[[a]]\n", b"[a]\n", b'"""', b"'''", b"= ", b"{a = 1}", b"nan",
    b"inf", b"0x", b"1979-05-27T07:32:00Z", b"\\u0000", b"\\UFFFFFFFF", b"\x00", b"\xff", b"\r",
    b'"\\ud800"', b"1_000", b"9" * 5_000, b"a = [" * 5_000, b"a = {b = " * 5_000,
)  # fmt: skip


def seeds() -> list[bytes]:
    """The project's own manifest, one of a single profile, a lock file and settings."""
    own = (CHECKOUT / "weights.toml").read_bytes()
    small = (
        b'format = 1\n[profiles.a]\ntitle = "A"\nsource = "hub"\nlicence = "MIT"\n'
        b'[[profiles.a.files]]\nrole = "codec"\nrepo = "o/n"\npath = "x/y.safetensors"\n'
        b'format = "safetensors"\nlicence = "MIT"\nrevision = "' + b"a" * 40 + b'"\nbytes = 10\n'
    )
    locked = json.dumps(_LOCK).encode()
    return [b"\0" + own[: MAX_BYTES - 1], b"\0" + small, b"\1" + locked, b"\2" + _SETTINGS]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Values and keys, or plain bytes."""
    kind, body = data[:1], data[1:]
    if kind == b"\1":
        return kind + mutate_json(body, chance, WORDS)
    if chance.random() < 0.4:
        return kind + mutate_bytes(body, chance, _TOKENS)
    try:
        tree = mutate_tree(tomllib.loads(body.decode()), chance, WORDS)
    except (ValueError, RecursionError):
        return kind + mutate_bytes(body, chance, _TOKENS)
    return kind + to_toml(tree)


def to_toml(tree: Any) -> bytes:
    """A tree as TOML, all values in line."""
    if not isinstance(tree, dict):
        return _inline(tree).encode(errors="replace")
    lines = (f"{json.dumps(str(key))} = {_inline(value)}\n" for key, value in tree.items())
    return "".join(lines).encode(errors="replace")


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        entries = (f"{json.dumps(str(key))} = {_inline(entry)}" for key, entry in value.items())
        return "{" + ", ".join(entries) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def check(data: bytes, folder: Path, oracle: Oracle) -> None:
    """Reads the file with the reader that the program uses for it."""
    kind, body = data[0] % 3 if data else 0, data[1:]
    if kind == 0:
        path = folder / "weights.toml"
        path.write_bytes(body)
        with oracle.armed():
            profiles = read_manifest(path)
        for profile in profiles.values():
            for file in profile.files:
                if ".." in Path(file.path).parts or Path(file.path).is_absolute():
                    raise Violation("a path that leaves its repository")
    elif kind == 1:
        path = folder / "weights.lock.json"
        path.write_bytes(body)
        with oracle.armed():
            read_lock(path)
    else:
        (folder / "joyflash").mkdir()
        (folder / "joyflash" / "config.toml").write_bytes(body)
        with oracle.armed():
            environment = {"XDG_CONFIG_HOME": str(folder)}
            default_map(read_settings(_KNOWN, environment))
        for warning in unknown_variables(_KNOWN, environment):
            if wrong := line_problem(warning):
                raise Violation(f"a warning: {wrong}")


_KNOWN = known_settings(get_command(app))


if __name__ == "__main__":
    main("weights")
