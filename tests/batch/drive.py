"""A batch with fake renderers as a program of its own, to be killed from outside.

``python drive.py FOLDER WORKERS LEASE_S``: the rows are in ``FOLDER/manifest.jsonl``.
"""

import json
import sys
from pathlib import Path

from batch_fakes import Bench

from joyflash_cli.batch.engines.local import local_engine


def main() -> None:
    folder, workers, lease_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    bench = Bench(folder, rows)
    engine = local_engine(bench.loader(), devices=["cpu"] * workers)
    status = bench.run(engine, lease_s=lease_s)
    sys.stdout.write(json.dumps([status.num_done, status.num_failed, status.num_rendered]))


if __name__ == "__main__":
    main()
