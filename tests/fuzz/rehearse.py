"""A short rehearsal of every fuzzing target, so that the programs themselves cannot rot.

``python rehearse.py FOLDER COUNT``: every seed, every input that was once a finding, and some
mutations of each target. Prints what was found as JSON.
"""

import importlib
import json
import os
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGETS = ("manifest", "wav", "sound", "picture", "weights", "checkpoint")


def main() -> None:
    """Runs all targets in this process."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]
    sys.dont_write_bytecode = True
    os.environ["HOME"] = str(folder)
    os.chdir(folder)
    told = {name: rehearse(name, folder, count) for name in TARGETS}
    sys.stdout.write(json.dumps(told) + "\n")


def rehearse(target: str, folder: Path, count: int) -> dict:
    """Figures of one target."""
    from oracle import Oracle

    module = importlib.import_module(f"fuzz_{target}")
    oracle = Oracle(module.check, folder / target)
    chance = random.Random(target)
    seeds = module.seeds()
    known = sorted((HERE / "findings" / target).glob("*"))
    for data in (*seeds, *(path.read_bytes() for path in known)):
        oracle.run(data)
    for _ in range(count):
        oracle.run(module.mutate(chance.choice(seeds), chance)[: module.MAX_BYTES])
    return {**vars(oracle.tally), "seeds": len(seeds), "known": len(known)}


if __name__ == "__main__":
    main()
