"""Every metric that ``joyflash evaluate videos`` knows: a new one needs an entry here."""

import difflib
from collections.abc import Mapping
from pathlib import Path

from joyflash_cli.errors import UsageError
from joyflash_cli.measures.film_metrics import Drift, Lips, Speed
from joyflash_cli.measures.metric import Metric
from joyflash_cli.measures.score_metrics import (
    ClipIqa,
    IdentityConsistency,
    PictureLook,
    QAlignScores,
)
from joyflash_cli.measures.sync_metric import SyncMetric
from joyflash_cli.measures.table import Measure

METRICS: tuple[Metric, ...] = (
    Lips(),
    SyncMetric(),
    IdentityConsistency(),
    QAlignScores(),
    ClipIqa(),
    PictureLook(),
    Drift(),
    Speed(),
)
"""In the order of the table."""

ALL = "all"


def metrics_with(*, syncnet: Path | None = None, remote_code: str = "") -> dict[str, Metric]:
    """All metrics by the name under which they are asked for.

    Args:
        syncnet: Other weights than SyncNet's published ones.
        remote_code: What the user allows to run; see :class:`QAlignScores`.
    """
    changed: tuple[Metric, ...] = (SyncMetric(syncnet), QAlignScores(remote_code))
    return {metric.name: metric for metric in (*METRICS, *changed)}


def choose_metrics(
    names: str | None, known: Mapping[str, Metric] | None = None
) -> tuple[Metric, ...]:
    """The metrics that are asked for.

    Args:
        names: Separated by commas, or ``all``; those that need no download if ``None``.
        known: All of them by name; as they are without settings if ``None``.

    Raises:
        UsageError: ``E-METRIC`` for a name that is none.
    """
    known = metrics_with() if known is None else known
    if names is None:
        return tuple(metric for metric in known.values() if not metric.needs_download)
    chosen = [name.strip().lower() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in known and name != ALL:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}, {ALL}"
            raise UsageError(f"{name!r:.80} is no metric", hint=hint, code="E-METRIC")
    if not chosen:
        raise UsageError("no metric is named", hint=f"known: {', '.join(known)}", code="E-METRIC")
    return tuple(metric for name, metric in known.items() if name in chosen or ALL in chosen)


def all_measures() -> tuple[Measure, ...]:
    """Every figure that a row can have, in the order of the table."""
    return tuple(measure for metric in METRICS for measure in metric.measures)
