"""Judges videos one after the other and keeps what was measured of each.

What is kept of a video holds the hashes of its files, and what is kept of a metric those of its
settings: a run that was stopped, or that asks for one more metric, measures only what is not known
yet. Failures are tried again.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from joyflash_cli.errors import CheckpointError, DeviceError, JoyFlashError
from joyflash_cli.files import cannot_write, check_place, file_sha256, write_whole
from joyflash_cli.measures.clip import Clip, VideoRow
from joyflash_cli.measures.metric import Measured, Metric
from joyflash_cli.measures.reader import load_readers

FORMAT = 1
"""Of what is kept of a video; changes when a figure changes its meaning."""

RESULTS_FOLDER = "measures"
"""Below a folder of videos, unless another place is named."""

CLIPS_FOLDER, RESULTS_FILE, PAGE_FILE = "clips", "videos.json", "videos.md"
OTHER_FOLDER = "choose another folder with --out"
NOT_ASKED = "not asked for: --metrics {}"

Progress = Callable[[str, int, int], None]
"""Told (video and metric, videos done, videos in all)."""


def measure_videos(
    rows: Sequence[VideoRow],
    metrics: Sequence[Metric],
    known: Sequence[Metric],
    folder: Path,
    *,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[dict[str, Any]] | None:
    """Every row with its figures, as JSON.

    Args:
        rows: What to judge.
        metrics: What is asked for.
        known: All metrics: figures of the others are ``None``, too, and say so.
        folder: Where results are kept; made if it is not there.
        progress: Told where the run is.
        should_stop: Asked between metrics.

    Returns:
        Of each row ``video``, ``system``, ``category``, ``metrics`` (every key of every metric),
        ``reasons`` (of every key that is ``None``) and ``error`` (why it failed, or ``None``);
        ``None`` if it was stopped.

    Raises:
        OutputError: If the folder cannot be written.
        CheckpointError: If weights that are there cannot be loaded.
        DeviceError: If the device cannot do it.
    """
    check_place(folder / RESULTS_FILE, hint=OTHER_FOLDER)
    missing = {metric.name: why for metric in metrics if (why := metric.missing())}
    settings = {
        name: hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        for name, values in settings_of(metrics).items()
    }
    readers = load_readers()
    found = []
    for index, row in enumerate(rows):
        kept = KeptClip(folder / CLIPS_FOLDER, row, settings)
        clip = Clip(row, readers)
        errors: dict[str, str] = {}
        for metric in metrics:
            if metric.name in missing or metric.name in kept.measured:
                continue
            if kept.error:
                errors[metric.name] = kept.error
                continue
            if should_stop():
                return None
            if progress is not None:
                progress(f"{row.name}: {metric.name}", index, len(rows))
            measured, error = _measured(metric, clip)
            if error:
                errors[metric.name] = error
            else:
                kept.keep(metric, measured)
        if errors and progress is not None:
            progress(f"{row.name} failed: {next(iter(errors.values()))};", index + 1, len(rows))
        found.append(_row(row, metrics, known, kept.measured, missing | errors, errors))
    return found


def settings_of(metrics: Sequence[Metric]) -> dict[str, Mapping[str, Any]]:
    """By name what the figures of each metric that can be computed here depend on."""
    return {metric.name: metric.settings for metric in metrics if not metric.missing()}


def _measured(metric: Metric, clip: Clip) -> tuple[Measured, str]:
    """What a metric says of a clip, and why it failed or nothing."""
    try:
        return metric.compute(clip), ""
    except (CheckpointError, DeviceError):
        raise  # no other clip would fare better
    except JoyFlashError as error:
        return Measured(), error.message
    except Exception as error:  # noqa: BLE001 - one odd video must not end the judging of all
        return Measured(), f"this is a bug: {type(error).__name__}: {error}"


def _row(
    row: VideoRow,
    metrics: Sequence[Metric],
    known: Sequence[Metric],
    measured: Mapping[str, Measured],
    why: Mapping[str, str],
    errors: Mapping[str, str],
) -> dict[str, Any]:
    asked = {metric.name for metric in metrics}
    values: dict[str, float | int | None] = {}
    reasons: dict[str, str] = {}
    for metric in known:
        found, reason = Measured(), NOT_ASKED.format(metric.name)
        if metric.name in asked:
            found = measured.get(metric.name, found)
            reason = why.get(metric.name, "it does not apply to this video")
        for measure in metric.measures:
            value = values[measure.name] = found.values.get(measure.name)
            if value is None:
                reasons[measure.name] = found.reasons.get(measure.name, reason)
    return {
        "video": str(row.video), "system": row.system, "category": row.category,
        "metrics": values, "reasons": reasons, "error": next(iter(errors.values()), None),
    }  # fmt: skip


class KeptClip:
    """What is known of one video, in a file of its own.

    Args:
        folder: Of all such files.
        row: The video; results of other files under its name are forgotten.
        settings: By metric the digest of what its figures depend on; results of a metric under
            other settings do not count.
    """

    def __init__(self, folder: Path, row: VideoRow, settings: Mapping[str, str]) -> None:
        digest = hashlib.sha256(row.name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        words = re.sub(r"[^\w.-]+", "_", row.name)[-80:]
        self._path = folder / f"{words}-{digest}.json"
        self._about: dict[str, Any] = {"format": FORMAT, "name": row.name}
        self._settings = settings
        self._parts: dict[str, dict[str, Any]] = {}
        self.error = ""
        self.measured: dict[str, Measured] = {}
        try:
            self._about["files"] = {name: file_sha256(path) for name, path in row.files.items()}
        except OSError as error:
            self.error = f"{error.filename} cannot be read: {error.strerror or error}"
        else:
            self.measured = dict(self._read())

    def _read(self) -> Iterator[tuple[str, Measured]]:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            if {key: kept.get(key) for key in self._about} != self._about:
                return
            for name, found in kept["measured"].items():
                self._parts[name] = found
                if found.get("settings") == self._settings.get(name, ""):
                    yield name, Measured(dict(found["values"]), dict(found["reasons"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return  # none, or somebody else's file: measured again

    def keep(self, metric: Metric, found: Measured) -> None:
        """Writes what a metric says beside what is known.

        Raises:
            OutputError: If it cannot be written.
        """
        names = {measure.name for measure in metric.measures}
        values = {}
        for name in names:
            value = found.values.get(name)
            if value is not None and not abs(value) < float("inf"):
                value = None  # what is not finite is not a figure
            values[name] = float(f"{value:.6g}") if isinstance(value, float) else value
        reasons = {name: why for name, why in found.reasons.items() if values.get(name) is None}
        self.measured[metric.name] = Measured(values, reasons)
        settings = self._settings[metric.name]
        part = {"settings": settings, "values": values, "reasons": reasons}
        self._parts[metric.name] = part
        write_result(self._path, self._about | {"measured": self._parts})


def write_result(path: Path, values: Mapping[str, Any]) -> None:
    """One JSON object, written whole, its folder made.

    Raises:
        OutputError: If it cannot be written.
    """
    write_text(path, json.dumps(values, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """A text, written whole, its folder made.

    Raises:
        OutputError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise cannot_write(path, error, hint=OTHER_FOLDER) from error


def write_results(folder: Path, summary: Mapping[str, Any], page: str) -> None:
    """``videos.json`` and ``videos.md`` beside what is kept of every video.

    Raises:
        OutputError: If they cannot be written.
    """
    write_result(folder / RESULTS_FILE, summary)
    write_text(folder / PAGE_FILE, page)
