"""The figures of heads and films that training is judged by: what each is, and how it is shown.

``FILM`` is what ``joyflash evaluate tiny --real`` says of films of faces, ``HELD_OUT`` what
``--held-out`` and the ablations say of heads whose visemes are known. None of the figures is
Sync-C, Sync-D, IDC or Q-Align. One that does not apply is ``None``, never 0.
"""

from dataclasses import replace
from typing import Any

from joyflash_cli.measures.film_metrics import Drift, Lips
from joyflash_cli.measures.table import FLICKER, SOUND, SOUND_LAG, Measure, fixed
from joyflash_cli.measures.words import number

_OF_VIDEOS = {measure.name: measure for measure in (*Lips.measures, *Drift.measures)}


def _as(name: str, head: str, **changes: Any) -> Measure:
    """The figure of any video, under the heading that it has here."""
    return replace(_OF_VIDEOS[name], head=head, **changes)


FILM = (
    _as("lip_correlation_at_zero_lag", "lips"),
    _as("lip_correlation", "best", limits="one lag for all that is averaged"),
    _as("lip_lag_frames", "lag", show=fixed(0)),
    Measure("lip_correlation_mismatched", "mismatched", "",
            "the same against the true films of other sentences: what a correlation is worth is "
            "its distance from this", show=fixed(2)),
    _as("mouth_amplitude", "amplitude"),
    _as("width_correlation_at_zero_lag", "width"),
    _as("open_mouth_psnr_db", "open dB"),
    _as("inside_lightness_p95", "inside"),
    _as("teeth", "teeth"),
    _as("blinks_per_min", "blinks"),
    _as("identity_similarity", "identity"),
    _as("sharpness_drift", "sharpness"),
    _as("colour_drift", "colour", show=number),
    _as("identity_drift", "identity drift", show=number),
    _as("mouth_movement", "movement", show=number),
    _as("face_seen", "seen", show=number),
    Measure("width_amplitude", "width amplitude", "",
            "spread of the mouth's width over the true one", better="one"),
    Measure("open_mouths", "open mouths", "frames", "how many frames the likeness is read from"),
    Measure("inside_lightness_mean", "inside mean", "",
            "mean luma between open lips over that of the cheeks"),
    Measure("skin_lightness", "skin", "L*", "lightness of the first frame's cheeks",
            "shade and glare count as skin"),
    SOUND,
    SOUND_LAG,
    FLICKER,
)  # fmt: skip

FILM_TEXT = FILM[:12]
"""Those that are printed as a table."""

HELD_OUT = (
    Measure("lip_correlation", "lip r", "",
            "correlation of the read opening of the mouth with the known one at the best lag",
            "read it next to its ceiling, the same of the true frames through the codec",
            fixed(3), "high"),
    Measure("identity_similarity", "identity", "",
            "mean cosine of a small face embedding with the reference picture, mouth hidden",
            "read it next to the cosine of other people", fixed(3), "high"),
    Measure("sharpness", "sharpness", "", "mean gradient in the face over that of the true frames",
            show=fixed(3), better="high"),
    replace(FLICKER, head="flicker", show=fixed(3), better="low"),
    Measure("silence_ratio", "silence", "",
            "movement of the mouth in silence over that in speech, of one long stream",
            better="low"),
    Measure("mouth_amplitude", "amplitude", "",
            "spread of the read opening over that of the true frames", better="one"),
    Measure("lip_p_value", "p", "",
            "chance that shuffled pairs of clip and voice agree as well as the true ones",
            better="low"),
    Measure("first_frame_psnr_db", "first frame", "dB", "first frame against the picture",
            better="high"),
    Measure("psnr_db", "PSNR", "dB", "all frames against the truth",
            "the free pose of the head counts as error"),
    Measure("speckle", "speckle", "levels of 255",
            "flicker of single pixels in a background that stands still", better="low"),
)  # fmt: skip

DRIFT = (
    Measure("colour", "colour drift", "levels of 255",
            "largest change of a channel's mean from the first ten seconds to the last (or halves)",
            show=fixed(3), better="low"),
    Measure("sharpness", "sharpness drift", "", "sharpness of the face in the last over the first",
            show=fixed(3), better="high"),
    Measure("identity", "identity drift", "", "cosine of the mean embeddings of first and last",
            show=fixed(3), better="high"),
)  # fmt: skip
"""What ``drift`` holds for every horizon."""
