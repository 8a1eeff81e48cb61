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

for path in sys.argv[2:]:
    with open_muxer(Path(path), size=(144, 144), fps=25) as muxer:
        muxer.write(np.load(sys.argv[1]))
        muxer.finish()
"""
SUFFIXES = (".mp4", ".mkv", ".mov")
FILLS = (1, 127, 200)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can fill the memory it hands out")
def test_what_lay_in_memory_changes_nothing(tmp_path):
    """x264's macroblock tree reads past its rows where 128 pixels do not divide the width."""
    noise = np.random.default_rng(0).normal(0, 10, (10, 144, 144, 1)).cumsum(0)
    np.save(tmp_path / "frames.npy", np.clip(noise + 128, 0, 255).astype(np.uint8).repeat(3, 3))
    for fill in FILLS:
        environment = {**os.environ, "MALLOC_PERTURB_": str(fill)}
        files = [str(tmp_path / f"{fill}{suffix}") for suffix in SUFFIXES]
        command = [sys.executable, "-c", WRITE, str(tmp_path / "frames.npy"), *files]
        subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2])
    for suffix in SUFFIXES:
        assert len({_digest(tmp_path / f"{fill}{suffix}") for fill in FILLS}) == 1, suffix


def _digest(path: Path) -> str:
    """Of the encoded frames alone: some containers are stamped with a random number."""
    import av

    with av.open(str(path)) as container:
        packets = b"".join(bytes(packet) for packet in container.demux(video=0))
    return hashlib.sha256(packets).hexdigest()
