"""Render the gallery: every face of gallery/faces with every voice of gallery/voices.

python examples/gallery.py [--no-long]     (or: make gallery; about seven minutes on two cores)

Nothing but the installed package is needed. The faces belong to nobody (``gallery_inputs.py`` made
them). Writes, beside the faces, one contact sheet for each face, a short video for each pair, the
sheet of a video of five minutes, and the page ``README.md`` that shows them; and ``demo.jpg``, six
frames of the example that ``make demo`` renders.
"""

import sys
from pathlib import Path

import numpy as np
from contact_sheets import evenly, most_different, pick, render, write_sheet

from joyflash_cli.media.inputs.audio import read_audio
from joyflash_cli.media.sheet import resized
from joyflash_cli.render import JoyFlash
from joyflash_cli.types import AudioClip

HERE = Path(__file__).parent
GALLERY = HERE / "gallery"
DEMO_COLUMNS, DEMO_CELL_PX = 6, 160
COLUMNS = 9
CELL_PX = 112
LONG_S = 300
PAUSE_S = 0.6
LONG_FACE = "scan-1"
LONG_MOMENTS_S = (1.2, 4.84, 10.0, 9.2)
"""Moments of every round that are shown: three in speech, the last in a pause."""


def main(*, with_long: bool = True) -> None:
    """Write demo picture, sheets, videos and page."""
    model = JoyFlash.load("tiny")
    demo = most_different(render(model, HERE / "face.png", HERE / "talk.wav"), DEMO_COLUMNS)
    write_sheet(HERE / "demo.jpg", [[resized(x, height_px=DEMO_CELL_PX) for x in demo]])
    faces = sorted((GALLERY / "faces").glob("*.jpg"))
    voices = sorted((GALLERY / "voices").glob("*.ogg"))
    (GALLERY / "videos").mkdir(exist_ok=True)
    for face in faces:
        rows = []
        for voice in voices:
            video = GALLERY / "videos" / f"{face.stem}-{voice.stem}.mp4"
            made = render(model, face, voice, video=video)
            rows.append([resized(made.framed, height_px=CELL_PX)])
            rows[-1] += evenly(made, COLUMNS, height_px=CELL_PX)
            sys.stderr.write(f"{video.name}: {len(made.frames)} frames\n")
        write_sheet(GALLERY / "sheets" / f"{face.stem}.jpg", rows)
    if with_long:
        sound, period_s = repeated([read_audio(voice) for voice in voices], LONG_S)
        moments = long_moments(LONG_S, period_s, float(model.sampler.fps))
        frames = pick(model, GALLERY / "faces" / f"{LONG_FACE}.jpg", sound, moments.ravel())
        rows = [[resized(frames[i], height_px=CELL_PX) for i in row] for row in moments.tolist()]
        write_sheet(GALLERY / "sheets" / "five-minutes.jpg", rows)
    write_page(faces, voices, version=model.files.version)


def repeated(clips: list[AudioClip], seconds: float) -> tuple[AudioClip, float]:
    """The voices one after the other, again and again, and the length of one round.

    A round is a whole number of seconds, so that the same word falls on the same frame of every
    round and its pictures can be compared.

    Args:
        clips: Voices of one rate.
        seconds: Length of the result.
    """
    rate = clips[0].sample_rate_hz
    pause = np.zeros(round(PAUSE_S * rate), np.float32)
    parts = [part for clip in clips for part in (clip.samples.mean(1), pause)]
    round_s = int(np.ceil(sum(map(len, parts)) / rate))
    parts.append(np.zeros(round_s * rate - sum(map(len, parts)), np.float32))
    whole = np.tile(np.concatenate(parts), int(np.ceil(seconds / round_s)))
    return AudioClip(whole[: round(seconds * rate)][:, None], rate), float(round_s)


def long_moments(seconds: float, period_s: float, fps: float) -> np.ndarray:
    """Frame numbers of the long sheet.

    Args:
        seconds: Length of the video.
        period_s: Length of a round, a whole number of frames.
        fps: Frames per second.

    Returns:
        ``(moments, COLUMNS + 1)`` int: a row for each moment, a column for each of ten rounds
        spread evenly over the video.
    """
    rounds = np.linspace(0, seconds // period_s - 1, COLUMNS + 1).round()
    starts = (rounds * period_s * fps).round().astype(int)
    return np.array([starts + round(moment * fps) for moment in LONG_MOMENTS_S])


def write_page(faces: list[Path], voices: list[Path], *, version: str) -> None:
    """Write ``README.md`` of the gallery from what lies there."""
    lines = [
        "# Gallery",
        "",
        f"Made by `make gallery` with the embedded model `{version}`, seed 0, exactly as "
        "`joyflash render` would. The faces belong to nobody: heads of the held-out split, whose "
        "skins, hair and drawing style the model never saw. Neither did it hear these voices: "
        + (GALLERY / "voices" / "ABOUT.txt").read_text(encoding="utf-8").strip(),
        "",
        "In every sheet the first column is the picture that was given, the others are evenly "
        "spaced frames; a row for each voice.",
        "",
    ]
    for face in faces:
        links = " · ".join(
            f"[{voice.stem}](videos/{face.stem}-{voice.stem}.mp4)" for voice in voices
        )
        lines += [f"## {face.stem}", "", f"![{face.stem}](sheets/{face.stem}.jpg)", "", links, ""]
    if (GALLERY / "sheets" / "five-minutes.jpg").exists():
        lines += [
            "## Five minutes",
            "",
            f"`{LONG_FACE}` speaks the three voices again and again for five minutes, one stream "
            "without a cut. Every row is one moment of the words, every column a later round, "
            "from the first to the last: what changes along a row is drift.",
            "",
            "![five minutes](sheets/five-minutes.jpg)",
            "",
        ]
    (GALLERY / "README.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(with_long="--no-long" not in sys.argv[1:])
