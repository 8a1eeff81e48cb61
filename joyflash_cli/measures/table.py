"""Every figure that is printed of a talking video: its name, unit, meaning, limits and look.

``PAGE`` is what ``joyflash report`` shows of any video, ``FILM`` what ``joyflash evaluate tiny
--real`` says of films of faces, ``HELD_OUT`` what ``--held-out`` and the ablations say of heads
whose visemes are known. Names are the keys of the JSON; one name may mean different things in
different tables. None of the figures is Sync-C, Sync-D, IDC or Q-Align. One that does not apply is
``None``, never 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from joyflash_cli.measures.words import NOT_MEASURED, number, seconds

Better = Literal["high", "low", "one", "zero", ""]
Show = Callable[[Any], str]


@dataclass(frozen=True)
class Measure:
    """One figure.

    Attributes:
        name: Its key in JSON.
        head: Its heading.
        unit: Empty for shares, ratios, cosines and correlations.
        what: What it is, in one sentence without a full stop.
        limits: What it does not say, likewise; may be empty.
        show: From a number to its text.
        better: Which way is better: ``high``, ``low``, near ``one``, near ``zero``, or neither.
    """

    name: str
    head: str
    unit: str
    what: str
    limits: str = ""
    show: Show = number
    better: Better = ""

    @property
    def meaning(self) -> str:
        """What it is and what it does not say, without a full stop."""
        return f"{self.what}; {self.limits}" if self.limits else self.what

    def text(self, figures: Mapping[str, Any], *, missing: str = NOT_MEASURED) -> str:
        """The figure as shown; ``missing`` where it was not measured."""
        value = figures.get(self.name)
        return missing if value is None else self.show(value)


def fixed(digits: int) -> Show:
    """Shows a number with so many digits after the point."""
    return lambda value: f"{value:.{digits}f}"


def signed(value: float) -> str:
    """Shows a count with its sign, or the mean of several to a tenth."""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:+.1f}"
    return f"{value:+.0f}" if value else "0"


def _factor(value: float) -> str:
    return f"{value:.2f} ×"


_FLICKER = Measure(
    "border_flicker", "Border flicker", "",
    "change from frame to frame at block borders over that elsewhere; 1 is seamless",
    "of videos made otherwise, whose blocks are unknown, it says nothing", better="one",
)  # fmt: skip
_SOUND = Measure(
    "sound_correlation", "Mouth–sound", "",
    "Pearson correlation of the opening of the mouth with the loudness of the sound at the best "
    "lag of five frames either way",
    "a mouth that moves rightly scores well below 1, because loudness is not articulation",
    better="high",
)  # fmt: skip
_SOUND_LAG = Measure(
    "sound_lag_frames", "Lag", "frames", "that lag in frames; positive when the picture is late",
    show=signed, better="zero",
)  # fmt: skip

PAGE = (
    Measure("video_s", "Length", "s", "length of the video", show=seconds),
    Measure("realtime_factor", "Speed", "×",
            "seconds of video per second of work, from the record", show=_factor, better="high"),
    Measure("first_frame_s", "First frame", "s",
            "seconds from the start of sampling to the first frame, from the record",
            show=seconds, better="low"),
    _SOUND,
    _SOUND_LAG,
    Measure("silence_movement", "In silence", "",
            "movement of the mouth in silence over that in speech", better="low"),
    Measure("identity", "Identity", "",
            "cosine of a small face embedding, last second against first frame, mouth masked",
            "other embeddings have other cosines", better="high"),
    Measure("colour_change", "Colour ΔE", "ΔE",
            "distance of the mean colour in CIE Lab, last second against first", better="low"),
    Measure("sharpness", "Sharpness", "", "mean gradient, last second over first", better="one"),
    _FLICKER,
)  # fmt: skip
"""In the order of the page's table."""

FILM = (
    Measure("lip_correlation_at_zero_lag", "lips", "",
            "correlation of the lips' opening with that of the true film, without a lag",
            "it says nothing of how large a movement is, and noise of the reader lowers it",
            fixed(2), "high"),
    Measure("lip_correlation", "best", "",
            "the same at the best lag of up to 0.2 s either way, one lag for all that is averaged",
            show=fixed(2), better="high"),
    Measure("lip_lag_frames", "lag", "frames", "that lag; positive when the picture is late",
            show=fixed(0), better="zero"),
    Measure("lip_correlation_mismatched", "mismatched", "",
            "the same against the true films of other sentences: what a correlation is worth is "
            "its distance from this", show=fixed(2)),
    Measure("mouth_amplitude", "amplitude", "", "spread of the opening over that of the true film",
            "noise of the reader is part of both spreads", fixed(2), "one"),
    Measure("width_correlation_at_zero_lag", "width", "",
            "correlation of the distance of the mouth's corners with the true one, without a lag",
            show=fixed(2), better="high"),
    Measure("open_mouth_psnr_db", "open dB", "dB",
            "likeness of every open mouth to the true one of nearest opening and width, upright "
            "and of one scale",
            "timing does not count; points misplaced by a pixel cost some dB in truth as well",
            fixed(1), "high"),
    Measure("inside_lightness_p95", "inside", "",
            "95th percentile of the luma between open lips over that of the cheeks; teeth that "
            "shine raise it", show=fixed(2)),
    Measure("teeth", "teeth", "levels of 255",
            "how much too bright that percentile is against the true mouths, where both are open",
            show=fixed(1), better="zero"),
    Measure("blinks_per_min", "blinks", "a minute",
            "lids below 0.7 of their usual opening for 0.08 to 0.48 s", "half-blinks do not count",
            fixed(1)),
    Measure("identity_similarity", "identity", "",
            "mean cosine of a small embedding of the face, mouth hidden, with the first frame; two "
            "films of one person gave 0.75, of two people 0.25", show=fixed(2), better="high"),
    Measure("sharpness_drift", "sharpness", "",
            "sharpness of the face in the last ten seconds (or half) over that in the first",
            show=fixed(2), better="one"),
    Measure("colour_drift", "colour", "levels of 255",
            "largest change of a channel's mean over the same", better="low"),
    Measure("identity_drift", "identity drift", "",
            "cosine of the mean embeddings of the same", better="high"),
    Measure("mouth_movement", "movement", "outer eye distances", "spread of the lips' opening",
            "it says how much, not how well, a mouth moves"),
    Measure("face_seen", "seen", "", "share of frames on which the face was made out"),
    Measure("width_amplitude", "width amplitude", "",
            "spread of the mouth's width over the true one", better="one"),
    Measure("open_mouths", "open mouths", "frames", "how many frames the likeness is read from"),
    Measure("inside_lightness_mean", "inside mean", "",
            "mean luma between open lips over that of the cheeks"),
    Measure("skin_lightness", "skin", "L*", "lightness of the first frame's cheeks",
            "shade and glare count as skin"),
    _SOUND,
    _SOUND_LAG,
    _FLICKER,
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
    replace(_FLICKER, head="flicker", show=fixed(3), better="low"),
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


def gain(measure: Measure, before: float | None, after: float | None) -> int:
    """1 where ``after`` is better, -1 where it is worse, 0 where neither can be said."""
    if before is None or after is None:
        return 0
    return mean_gain(measure, [(before, after)])


def mean_gain(measure: Measure, pairs: Sequence[tuple[float, float]]) -> int:
    """The same over several clips, by their mean distances from the best.

    So a picture that is early in one clip and late in another does not count as in time.
    """
    if not measure.better or not pairs:
        return 0
    first = sum(_distance(measure.better, before) for before, _ in pairs) / len(pairs)
    second = sum(_distance(measure.better, after) for _, after in pairs) / len(pairs)
    size = max(max(abs(before), abs(after)) for before, after in pairs)
    # Less than a hundredth of the largest value is no difference worth a colour.
    if abs(first - second) <= 0.01 * max(size, 1e-9):
        return 0
    return 1 if second < first else -1


def _distance(better: Better, value: float) -> float:
    """How far a figure is from its best; only differences of it mean anything."""
    if better == "one":
        return abs(value - 1.0)
    if better == "zero":
        return abs(value)
    return -value if better == "high" else value
