"""Every metric that ``joyflash evaluate videos`` knows: a new one needs an entry here."""

import difflib

from joyflash_cli.errors import UsageError
from joyflash_cli.measures.film_metrics import Drift, Lips, Speed
from joyflash_cli.measures.metric import Metric
from joyflash_cli.measures.sync_metric import SyncMetric
from joyflash_cli.measures.table import Measure

METRICS: tuple[Metric, ...] = (Lips(), Drift(), Speed(), SyncMetric())
"""In the order of the table."""

ALL = "all"


def choose_metrics(names: str | None) -> tuple[Metric, ...]:
    """The metrics that are asked for.

    Args:
        names: Separated by commas, or ``all``; those that need no download if ``None``.

    Raises:
        UsageError: ``E-METRIC`` for a name that is none.
    """
    if names is None:
        return tuple(metric for metric in METRICS if not metric.needs_download)
    known = {metric.name: metric for metric in METRICS}
    chosen = [name.strip().lower() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in known and name != ALL:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}, {ALL}"
            raise UsageError(f"{name!r:.80} is no metric", hint=hint, code="E-METRIC")
    if not chosen:
        raise UsageError("no metric is named", hint=f"known: {', '.join(known)}", code="E-METRIC")
    return tuple(metric for metric in METRICS if metric.name in chosen or ALL in chosen)


def all_measures() -> tuple[Measure, ...]:
    """Every figure that a row can have, in the order of the table."""
    return tuple(measure for metric in METRICS for measure in metric.measures)
