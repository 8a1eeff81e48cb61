"""Make the gallery's faces and voices: held-out heads, and voices that training never heard.

python examples/gallery_inputs.py ASSETS   (the packs' folder; needs joyflash[train] and flite)

The seeds were chosen by eye among some dozens, so that the six differ.
"""

import sys
from pathlib import Path

import numpy as np

from joyflash_cli.media.inputs.audio import read_audio, to_model_waveform
from joyflash_cli.media.sheet import picture_bytes
from joyflash_cli.studio.heads.drawn import sample_drawn
from joyflash_cli.studio.heads.face_state import FaceState, Head
from joyflash_cli.studio.heads.ict import load_wardrobe, sample_ict
from joyflash_cli.studio.heads.makehuman import sample_makehuman
from joyflash_cli.studio.heads.makehuman_pack import load_makehuman
from joyflash_cli.studio.speech.synthesis import speak_flite
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ

GALLERY = Path(__file__).parent / "gallery"
SIZE_PX = 384
SEEDS = {"person-1": 11, "person-2": 19, "person-3": 1, "scan-1": 7, "scan-2": 0, "drawn": 3}
FLITE_TEXT = "Nobody has ever seen this face, and nobody ever will."
KATHLEEN = "speech/kathleen-en/arctic_b0503_1592526120.opus"
NABU_CASA = "speech/nabucasa/nl_NL-pim.mp3"
NABU_CASA_S = (1.0, 5.0)
"""The stretch that is used; the recording begins with silence."""
ABOUT = (
    "`flite` is the synthetic voice rms, `kathleen` one of the last 100 recordings of Kathleen "
    "(CC0), which were kept out of training, and `pim` a Dutch voice donated to Nabu Casa (CC0): "
    "a language the model never trained on.\n"
)


def main(assets: Path) -> None:
    """Write ``gallery/faces`` and ``gallery/voices``."""
    for folder in ("faces", "voices"):
        (GALLERY / folder).mkdir(parents=True, exist_ok=True)
    makehuman = load_makehuman(assets / "heads")
    wardrobe = load_wardrobe(assets / "heads", makehuman)
    for name, seed in SEEDS.items():
        rng = np.random.default_rng([77, seed])
        head: Head
        if name.startswith("person"):
            head = sample_makehuman(makehuman, rng, size_px=SIZE_PX, split="held-out")
        elif name.startswith("scan"):
            head = sample_ict(wardrobe, rng, size_px=SIZE_PX, split="held-out")
        else:
            head = sample_drawn(rng, size_px=SIZE_PX, split="held-out")
        picture = head.render(FaceState(smile=0.12))
        (GALLERY / "faces" / f"{name}.jpg").write_bytes(picture_bytes(picture, quality=92))
    write_voice("flite", speak_flite(FLITE_TEXT, "rms")[0])
    write_voice("kathleen", to_model_waveform(read_audio(assets / KATHLEEN)))
    dutch = to_model_waveform(read_audio(assets / NABU_CASA))
    start, stop = (round(second * MODEL_SAMPLE_RATE_HZ) for second in NABU_CASA_S)
    write_voice("pim", dutch[start:stop])
    (GALLERY / "voices" / "ABOUT.txt").write_text(ABOUT, encoding="utf-8")


def write_voice(name: str, waveform: np.ndarray) -> None:
    """Write 16 kHz mono as Ogg Opus, equally loud."""
    import soundfile

    level = waveform * 0.7 / np.abs(waveform).max()
    # libsndfile overflows its stack on long single writes of Opus, so it gets a second at a time.
    path = GALLERY / "voices" / f"{name}.ogg"
    with soundfile.SoundFile(
        path, "w", MODEL_SAMPLE_RATE_HZ, 1, subtype="OPUS", format="OGG"
    ) as out:
        for start in range(0, len(level), MODEL_SAMPLE_RATE_HZ):
            out.write(level[start : start + MODEL_SAMPLE_RATE_HZ])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
