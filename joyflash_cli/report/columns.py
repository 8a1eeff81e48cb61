"""The figures of a clip as table columns: name, meaning, how to show them, which way is better."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from joyflash_cli.report.words import NOT_MEASURED, number, seconds

Better = Literal["high", "low", "one", "zero", ""]


@dataclass(frozen=True)
class Column:
    """One figure.

    Attributes:
        name: Key in the figures of a clip.
        head: Column head.
        meaning: What the figure is, in one sentence without a full stop.
        show: From a number to its text.
        better: Which way is better: ``high``, ``low``, near ``one``, near ``zero``, or neither.
    """

    name: str
    head: str
    meaning: str
    show: Callable[[Any], str] = number
    better: Better = ""

    def text(self, figures: Mapping[str, Any]) -> str:
        """The figure as shown; a dash where it was not measured."""
        value = figures.get(self.name)
        return NOT_MEASURED if value is None else self.show(value)


def _lag(value: int) -> str:
    return f"{value:+d}" if value else "0"


def _factor(value: float) -> str:
    return f"{value:.2f} ×"


COLUMNS = (
    Column("video_s", "Length", "length of the video", seconds),
    Column("realtime_factor", "Speed", "seconds of video per second of work, from the record",
           _factor, "high"),
    Column("first_frame_s", "First frame", "seconds from the start of sampling to the first frame, "
           "from the record", seconds, "low"),
    Column("sound_correlation", "Mouth–sound", "Pearson correlation of the opening of the mouth "
           "with the loudness of the sound at the best lag of five frames either way; a mouth that "
           "moves rightly scores well below 1, because loudness is not articulation",
           better="high"),
    Column("sound_lag_frames", "Lag", "that lag in frames; positive when the picture is late",
           _lag, "zero"),
    Column("silence_movement", "In silence", "movement of the mouth in silence over that in speech",
           better="low"),
    Column("identity", "Identity", "cosine of a small face embedding, last second against first "
           "frame, mouth masked", better="high"),
    Column("colour_change", "Colour ΔE", "distance of the mean colour in CIE Lab, last second "
           "against first", better="low"),
    Column("sharpness", "Sharpness", "mean gradient, last second over first", better="one"),
    Column("border_flicker", "Border flicker", "change from frame to frame at block borders over "
           "that elsewhere; 1 is seamless", better="one"),
)  # fmt: skip
"""In the order of the table."""


def gain(column: Column, before: float | None, after: float | None) -> int:
    """1 where ``after`` is better, -1 where it is worse, 0 where neither can be said."""
    if before is None or after is None:
        return 0
    return mean_gain(column, [(before, after)])


def mean_gain(column: Column, pairs: Sequence[tuple[float, float]]) -> int:
    """The same over several clips, by their mean distances from the best.

    So a picture that is early in one clip and late in another does not count as in time.
    """
    if not column.better or not pairs:
        return 0
    first = sum(_distance(column.better, before) for before, _ in pairs) / len(pairs)
    second = sum(_distance(column.better, after) for _, after in pairs) / len(pairs)
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
