"""Every figure that is printed of a talking video: its name, unit, meaning, limits and look.

``PAGE`` is what ``joyflash report`` shows of any video. Names are the keys of the JSON; one name
may mean different things in different tables. One that does not apply is ``None``, never 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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


FLICKER = Measure(
    "border_flicker", "Border flicker", "",
    "change from frame to frame at block borders over that elsewhere; 1 is seamless",
    "of videos made otherwise, whose blocks are unknown, it says nothing", better="one",
)  # fmt: skip
SOUND = Measure(
    "sound_correlation", "Mouth–sound", "",
    "Pearson correlation of the opening of the mouth with the loudness of the sound at the best "
    "lag of five frames either way",
    "a mouth that moves rightly scores well below 1, because loudness is not articulation",
    better="high",
)  # fmt: skip
SOUND_LAG = Measure(
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
    SOUND,
    SOUND_LAG,
    Measure("silence_movement", "In silence", "",
            "movement of the mouth in silence over that in speech", better="low"),
    Measure("identity", "Identity", "",
            "cosine of a small face embedding, last second against first frame, mouth masked",
            "other embeddings have other cosines", better="high"),
    Measure("colour_change", "Colour ΔE", "ΔE",
            "distance of the mean colour in CIE Lab, last second against first", better="low"),
    Measure("sharpness", "Sharpness", "", "mean gradient, last second over first", better="one"),
    FLICKER,
)  # fmt: skip
"""In the order of the page's table."""


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
