"""Train the networks that read mouths and identities for ``joyflash evaluate``.

    python runs/train_readers.py CLIPS OUT.safetensors

They see training clips only and are never used to train the generator. The committed file was made
with 440 MakeHuman, 320 ICT and 360 drawn clips, 1800 mouth steps and 1000 identity steps.
"""

import json
import sys
from pathlib import Path

from joyflash_cli.measures import reader
from joyflash_cli.studio.clips.clips import ClipStore
from joyflash_cli.studio.training.reader_training import (
    ReaderTraining,
    train_identity,
    train_mouth_reader,
)

MOUTH_STEPS = 1800
IDENTITY_STEPS = 1000


def main(clips: Path, out: Path) -> None:
    """Train both networks, one after the other, and save them."""
    store = ClipStore(clips)
    readers = reader.Readers(reader.MouthReader(), reader.IdentityNet())

    def report(step: int, loss: float) -> None:
        if step % 100 == 99:
            print(json.dumps({"step": step + 1, "loss": loss}), flush=True)

    train_mouth_reader(
        readers.mouth,
        store,
        crop=reader.mouth_and_eyes_crops,
        config=ReaderTraining(steps=MOUTH_STEPS),
        on_step=report,
    )
    train_identity(
        readers.identity,
        store,
        crop=reader.masked_face_crops,
        embedding_dim=reader.IDENTITY_DIM,
        config=ReaderTraining(steps=IDENTITY_STEPS, neighbour_share=0.1),
        on_step=report,
    )
    reader.save_readers(readers, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
