"""Render with a loaded model and lay frames out as one picture; used by the other examples."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from joyflash_cli.media.inputs.audio import read_audio
from joyflash_cli.media.outputs.writer import open_muxer
from joyflash_cli.media.sheet import picture_bytes, resized, tile
from joyflash_cli.render import FrameOptions, JoyFlash, RenderRequest, read_request
from joyflash_cli.render.record import begin_record
from joyflash_cli.types import AudioClip

JPEG_QUALITY = 82
VIDEO_CRF = 27
"""x264's quality: small files for a page, not for keeping."""
MOUTH = (0.50, 0.80, 0.32, 0.68)
"""Top, bottom, left and right of the mouth in a framed picture, as shares of its side."""


FACE = FrameOptions("face", 256)
"""Sheets show faces at one size."""


@dataclass(frozen=True)
class Rendering:
    """One rendered picture.

    Attributes:
        framed: ``(S, S, 3)`` uint8 square of the picture that the model starts from.
        frames: ``(F, H, W, 3)`` uint8.
        fps: Frames per second.
        warnings: What the program would have told about the inputs.
    """

    framed: np.ndarray
    frames: np.ndarray
    fps: float
    warnings: tuple[str, ...]


def render(
    model: JoyFlash, image: Path, sound: Path | AudioClip, *, video: Path | None = None
) -> Rendering:
    """Renders a picture with a sound.

    Args:
        model: A loaded checkpoint.
        image: PNG or JPEG.
        sound: A file, or samples.
        video: Where the video goes; ``None`` keeps only the frames.
    """
    clip = read_audio(sound) if isinstance(sound, Path) else sound
    request = read_request(model.files, image, clip, frame=FACE)
    if video is None:
        chunks = [chunk.frames for chunk in model.stream(request)]
    else:
        chunks = _write_video(model, request, clip, video)
    return Rendering(
        request.face.pixels, np.concatenate(chunks), float(model.sampler.fps), request.warnings
    )


def pick(
    model: JoyFlash, image: Path, sound: Path | AudioClip, wanted: np.ndarray
) -> dict[int, np.ndarray]:
    """Renders and keeps only the frames of some numbers, so that a long video fits in memory."""
    numbers = {int(number) for number in wanted}
    kept: dict[int, np.ndarray] = {}
    for chunk in model.stream(read_request(model.files, image, sound, frame=FACE)):
        for number, frame in enumerate(chunk.frames, chunk.first_frame):
            if number in numbers:
                kept[number] = frame.copy()
    return kept


def _write_video(
    model: JoyFlash, request: RenderRequest, sound: AudioClip, video: Path
) -> list[np.ndarray]:
    """What ``joyflash render`` would write, in a smaller file."""
    chunks = list(model.stream(request))
    begun = begin_record(request, model.files, model.placement, load_s=model.load_s)
    with open_muxer(
        video,
        size=request.size_px,
        fps=model.sampler.fps,
        audio=sound,
        overwrite=True,
        metadata={"comment": begun.notice},
        crf=VIDEO_CRF,
        preset="veryslow",
    ) as muxer:
        for chunk in chunks:
            muxer.write(chunk.frames)
        muxer.finish()
    return [chunk.frames for chunk in chunks]


def evenly(rendering: Rendering, count: int, *, height_px: int) -> list[np.ndarray]:
    """``count`` frames from the first to the last, each ``height_px`` tall."""
    places = np.linspace(0, len(rendering.frames) - 1, count).round().astype(int)
    return [resized(rendering.frames[place], height_px=height_px) for place in places]


def mouth_of(frame: np.ndarray) -> np.ndarray:
    """The mouth's part of a frame ``(H, W, 3)``."""
    height, width = frame.shape[:2]
    top, bottom, left, right = MOUTH
    return frame[round(top * height) : round(bottom * height),
                 round(left * width) : round(right * width)]  # fmt: skip


def most_different(rendering: Rendering, count: int) -> list[np.ndarray]:
    """The first frame and those whose mouths differ most from the ones chosen before, in time."""
    mouths = np.stack([resized(mouth_of(frame), height_px=24) for frame in rendering.frames])
    mouths = mouths.reshape(len(mouths), -1).astype(np.float32)
    chosen = [0]
    distance = np.linalg.norm(mouths - mouths[0], axis=1)
    while len(chosen) < min(count, len(mouths)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(mouths - mouths[chosen[-1]], axis=1))
    return [rendering.frames[index] for index in sorted(chosen)]


def write_sheet(path: Path, rows: list[list[np.ndarray]]) -> None:
    """Writes rows of pictures as one JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture_bytes(tile(rows), quality=JPEG_QUALITY))
