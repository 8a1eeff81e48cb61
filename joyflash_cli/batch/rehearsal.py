"""What a batch would do: every open row's inputs read as rendering would, nothing written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from joyflash_cli.batch.jobs import Failure
from joyflash_cli.batch.plan import BatchPlan
from joyflash_cli.errors import JoyFlashError
from joyflash_cli.media.inputs.hearing import SoundChoices
from joyflash_cli.media.scene import DEFAULT_FRAME, FrameOptions
from joyflash_cli.weights.store import CheckpointFiles

_REMEMBERED = 64
"""Pictures, and sounds, that are kept in mind at a time."""


@dataclass(frozen=True)
class Rehearsal:
    """What would come of the open rows of this run's shard.

    Attributes:
        num_renders: Rows whose inputs are good.
        num_blocks: Blocks they take together.
        video_s: Seconds of video they come to.
        failures: ``row``, ``id``, ``code`` and ``error`` of each of the others.
    """

    num_renders: int
    num_blocks: int
    video_s: float
    failures: tuple[dict[str, object], ...]


def rehearse(
    plan: BatchPlan,
    files: CheckpointFiles,
    *,
    needs_face: bool = True,
    choices: SoundChoices | None = None,
    frame: FrameOptions = DEFAULT_FRAME,
    label: str = "",
) -> Rehearsal:
    """Reads the inputs of every open row; no weights are loaded.

    Rows that share a picture or a sound are usual: neither is read again for every row.
    """
    from joyflash_cli.media.inputs.sound import check_sound_file
    from joyflash_cli.render import RenderRequest, plan_render
    from joyflash_cli.render.request import check_choices, read_face

    sampler = files.description.sampler
    face_of = lru_cache(_REMEMBERED)(
        lambda image: read_face(files, image, needs_face=needs_face)[1]
    )
    sound_of = lru_cache(_REMEMBERED)(lambda audio: check_sound_file(audio, choices=choices))
    num_renders, num_blocks, video_s = 0, 0, 0.0
    failures: list[dict[str, object]] = []
    for row in plan.rows.mine("open"):
        try:
            image, audio = row.image_path, row.audio_path
            check_choices(files, image, audio, seed=row.seed, prompt=row.prompt)
            face = face_of(image)
            request = RenderRequest(face, sound_of(audio), seed=row.seed, label=label)
            if label:
                replace(request, scene=frame.scene(face)).drawn_label()
        except JoyFlashError as error:
            failure = Failure.of(error)
            failures.append(
                {"row": row.number, "id": row.id, "code": failure.code, "error": failure.text}
            )
            continue
        render = plan_render(request, sampler)
        num_renders += 1
        num_blocks += render.num_blocks
        video_s += render.video_s
    return Rehearsal(num_renders, num_blocks, video_s, tuple(failures))
