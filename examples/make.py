"""How the two examples were made: a rendered face that belongs to nobody and a synthetic voice.

python examples/make.py ASSETS     (the folder with the packs; needs joyflash[train])
"""

import sys
import wave
from pathlib import Path

import numpy as np

from joyflash_cli.media.sheet import write_picture
from joyflash_cli.studio.heads.assets import load_makehuman
from joyflash_cli.studio.heads.face_state import FaceState
from joyflash_cli.studio.heads.makehuman import sample_makehuman
from joyflash_cli.studio.speech.synthesis import speak_hibari

FACE_SEED = 9229
TEXT = (
    "Hello! I was a still picture a moment ago. A small model on this computer "
    "listens to the voice and moves my lips."
)


def main(assets: Path) -> None:
    """Write ``face.png`` and ``talk.wav`` beside this file."""
    here = Path(__file__).parent
    head = sample_makehuman(
        load_makehuman(assets / "heads"),
        np.random.default_rng(FACE_SEED),
        size_px=512,
        split="train",
    )
    write_picture(here / "face.png", head.render(FaceState(smile=0.12)))
    samples, _ = speak_hibari(TEXT, pitch=0.62, size=0.92)  # a deeper voice for this face
    with wave.open(str(here / "talk.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((samples * 0.8 / np.abs(samples).max() * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
