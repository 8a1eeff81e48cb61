"""The same frames give the same file, whatever lay in the memory the encoder was given."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WRITE = """
import sys
from pathlib import Path
import numpy as np
from joyflash_cli.media.outputs.writer import open_muxer

with open_muxer(Path(sys.argv[2]), size=(144, 144), fps=25) as muxer:
    muxer.write(np.load(sys.argv[1]))
    muxer.finish()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can fill the memory it hands out")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_what_lay_in_memory_changes_nothing(tmp_path, suffix):
    """x264's macroblock tree reads past its rows where 128 pixels do not divide the width."""
    noise = np.random.default_rng(0).normal(0, 10, (10, 144, 144, 1)).cumsum(0)
    np.save(tmp_path / "frames.npy", np.clip(noise + 128, 0, 255).astype(np.uint8).repeat(3, 3))
    files = [tmp_path / f"{fill}{suffix}" for fill in (1, 127, 200)]
    for path in files:
        environment = {**os.environ, "MALLOC_PERTURB_": path.stem}
        command = [sys.executable, "-c", WRITE, str(tmp_path / "frames.npy"), str(path)]
        subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2])
    assert len({_digest(path) for path in files}) == 1


def _digest(path: Path) -> str:
    """Of the encoded frames alone: some containers are stamped with a random number."""
    import av

    with av.open(str(path)) as container:
        packets = b"".join(bytes(packet) for packet in container.demux(video=0))
    return hashlib.sha256(packets).hexdigest()
