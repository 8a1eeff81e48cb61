"""What the embedded model does to portraits it never saw the like of: one sheet for each.

python examples/portraits.py [FOLDER]

FOLDER holds the pictures that ``portraits.toml`` names; what is missing is fetched into it and
checked. Without FOLDER they are kept in ``~/.cache/joyflash/portraits``. The sheets, stills only,
go to docs/figures/portraits. A sheet shows the square that the model was given, then the frames of
some seconds of speech whose mouths differ most, and below them their mouths enlarged.
"""

import hashlib
import sys
import tomllib
import urllib.request
from pathlib import Path

import numpy as np
from contact_sheets import most_different, mouth_of, render, write_sheet

from joyflash_cli.errors import JoyFlashError
from joyflash_cli.media.sheet import resized, tile
from joyflash_cli.render import JoyFlash

HERE = Path(__file__).parent
SHEETS = HERE.parent / "docs" / "figures" / "portraits"
VOICE = HERE / "talk.wav"
CACHE = Path("~/.cache/joyflash/portraits").expanduser()
CELL_PX, COLUMNS = 128, 6
TIMEOUT_S = 60


def main(folder: Path) -> None:
    """Write a sheet for every portrait that can be used; say which could not."""
    model = JoyFlash.load("tiny")
    listed = tomllib.loads((HERE / "portraits.toml").read_text(encoding="utf-8"))
    for name, entry in listed.items():
        try:
            made = render(model, find_picture(folder, entry), VOICE)
        except (JoyFlashError, OSError, ValueError) as error:
            sys.stderr.write(f"{name}: {error}\n")
            continue
        frames = most_different(made, COLUMNS)
        given = resized(made.framed, height_px=2 * CELL_PX + 2)
        whole = [resized(frame, height_px=CELL_PX) for frame in frames]
        mouths = [fill_width(mouth_of(frame), CELL_PX) for frame in frames]
        write_sheet(SHEETS / f"{name}.jpg", [[given, tile([whole, mouths])[2:-2]]])
        sys.stderr.write(f"{name}: {'; '.join(made.warnings) or 'no warnings'}\n")


def fill_width(picture: np.ndarray, side_px: int) -> np.ndarray:
    """A wide picture as a square: its middle, ``side_px`` tall and wide."""
    tall = resized(picture, height_px=side_px)
    left = (tall.shape[1] - side_px) // 2
    return tall[:, left : left + side_px]


def find_picture(folder: Path, entry: dict[str, str]) -> Path:
    """The picture's path, fetched if it is not there yet.

    Raises:
        OSError: It cannot be fetched.
        ValueError: It is not the picture that was listed.
    """
    path = folder / entry["file"]
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(fetch(entry["url"]))
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
        raise ValueError(f"{path} differs from the listed picture; remove it to fetch it again")
    return path


def fetch(url: str) -> bytes:
    """The picture behind an entry's address."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        return bytes(answer.read())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else CACHE)
