"""How the two examples were made: a rendered face that belongs to nobody and a synthetic voice.

python examples/make.py ASSETS     (the folder with the packs; needs joyflash[train])
"""

import sys
import wave
from pathlib import Path

import numpy as np

from joyflash_cli.media.sheet import write_picture
from joyflash_cli.studio.clips.photo_background import sample_photo_background
from joyflash_cli.studio.clips.photo_look import PhotoLook, apply_photo_look
from joyflash_cli.studio.heads.face_state import FaceState
from joyflash_cli.studio.heads.ict import load_wardrobe, sample_ict
from joyflash_cli.studio.heads.makehuman_pack import load_makehuman
from joyflash_cli.studio.heads.surroundings import Surroundings, sample_lighting
from joyflash_cli.studio.speech.synthesis import speak_hibari

FACE_SEED = 118
SIDE_PX = 512
LOOK = PhotoLook(
    white_balance=(1.02, 1.0, 0.97), gradient=(0.08, -0.05), vignette=0.25, contrast=1.08,
    saturation=0.95, blur_px=0.12, noise=0.004, colour_noise=0.002,
)  # fmt: skip
"""A good camera in a room."""

TEXT = (
    "Hello! I was a still picture a moment ago. A small model on this computer "
    "listens to the voice and moves my lips."
)


def face(assets: Path) -> np.ndarray:
    """The picture, ``(512, 512, 3)`` uint8."""
    rng = np.random.default_rng(FACE_SEED)
    wardrobe = load_wardrobe(assets / "heads", load_makehuman(assets / "heads"))
    background = sample_lighting(rng), sample_photo_background(rng, SIDE_PX)
    surroundings = Surroundings(*background, framing_spread=0.3)
    head = sample_ict(wardrobe, rng, size_px=SIDE_PX, split="train", surroundings=surroundings)
    picture = head.render(FaceState(smile=0.15))
    return apply_photo_look(picture[None], LOOK, np.random.default_rng(1))[0]


def main(assets: Path) -> None:
    """Write ``face.png`` and ``talk.wav`` beside this file."""
    here = Path(__file__).parent
    write_picture(here / "face.png", face(assets))
    samples, _ = speak_hibari(TEXT, pitch=0.62, size=0.92)  # a deeper voice for this face
    with wave.open(str(here / "talk.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((samples * 0.8 / np.abs(samples).max() * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
