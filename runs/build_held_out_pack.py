"""Build the recorded held-out pack of ``joyflash evaluate tiny --held-out``.

python runs/build_held_out_pack.py CLIPS/held_out SPEECH.npz OUT
"""

import sys
from pathlib import Path

from joyflash_cli.studio.clips.clips import ClipStore
from joyflash_cli.studio.evaluation.pack import build_pack
from joyflash_cli.studio.speech.speech import load_speech


def main(clips: Path, speech: Path, out: Path) -> None:
    """Choose the clips, store them and print what was chosen."""
    pack = build_pack(ClipStore(clips), load_speech(speech, split="held-out"), out)
    for clip in pack.clips:
        print(clip.name, clip.kind, clip.voice, clip.identity)
    print(f"stored frames: {pack.storage_psnr_db:.1f} dB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
