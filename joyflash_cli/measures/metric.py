"""What a metric of videos is: a name, the keys of its figures, and how they are computed.

``measures.metrics.METRICS`` lists those that there are. A figure that cannot be computed is
``None`` with a reason beside it, never 0.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from joyflash_cli.measures.clip import Clip
from joyflash_cli.measures.table import Measure


@dataclass(frozen=True)
class Measured:
    """The figures of one metric of one clip.

    Attributes:
        values: Key to figure; a key of the metric that is missing counts as ``None``.
        reasons: Key to why its figure is ``None``, in one line without a full stop.
    """

    values: dict[str, float | int | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


class Metric(ABC):
    """Some figures that are computed together.

    Attributes:
        name: As ``--metrics`` takes it: one lower-case word.
        measures: Its figures in the order of the table; ``Measure.name`` is the key in JSON.
        needs_download: Whether it needs weights that are not shipped; such metrics run when they
            are named.
    """

    name: str
    measures: tuple[Measure, ...]
    needs_download = False

    def missing(self) -> str:
        """Why it cannot be computed here for any clip, with the way to mend it; empty if it can.

        Called once before any video is read, and cheap: it looks whether weights and packages are
        there and loads nothing.
        """
        return ""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What its figures depend on beside the video, as JSON: thresholds, hashes of weights.

        What was kept of a video under other settings is measured again. Never asked for while
        ``missing()`` says something.
        """
        return {}

    @abstractmethod
    def compute(self, clip: Clip) -> Measured:
        """Its figures of one clip; never called while ``missing()`` says something.

        A figure that does not apply to this clip (no sound, no truth, too short) is ``None`` with
        its reason. An error ends this metric of this clip alone: its message is the reason of all
        of its figures and the clip is listed as failed.

        Raises:
            JoyFlashError: The clip cannot be read, or shows no face where one is needed.
        """
