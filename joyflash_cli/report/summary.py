"""What a whole folder comes to: counts, time, speed, who made it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from joyflash_cli.measures.words import number, seconds
from joyflash_cli.report.views import ClipView


def summarise(clips: Sequence[ClipView]) -> dict[str, Any]:
    """Counts and medians of a folder as JSON; ``None`` where nothing was measured."""
    states = Counter(clip.status for clip in clips)
    codes = Counter(clip.code for clip in clips if clip.status == "failed")
    work = _known(clips, "wall_s")
    gpu = [
        clip.record["wall_s"]
        for clip in clips
        if str(clip.record.get("device", "")).startswith("cuda")
        and isinstance(clip.record.get("wall_s"), int | float)
    ]
    return {
        "clips": len(clips),
        "states": dict(states),
        "failures": dict(codes.most_common()),
        "video_s": sum(clip.figures["video_s"] or 0.0 for clip in clips),
        "work_s": sum(work) if work else None,
        "gpu_hours": sum(gpu) / 3600 if gpu else None,
        "realtime_median": _quantile(_figures(clips, "realtime_factor"), 0.5),
        "realtime_slowest_5_percent": _quantile(_figures(clips, "realtime_factor"), 0.05),
        "first_frame_median_s": _quantile(_figures(clips, "first_frame_s"), 0.5),
        "sound_correlation_median": _quantile(_figures(clips, "sound_correlation"), 0.5),
        "identity_least": min(_figures(clips, "identity"), default=None),
        "colour_change_most": max(_figures(clips, "colour_change"), default=None),
        "made_by": makers(clips),
    }


def makers(clips: Sequence[ClipView]) -> list[str]:
    """Each different checkpoint with device and program version, as the records say."""
    found = Counter(
        f"{record['profile']} {record.get('checkpoint_version', '')} "
        f"({str(record.get('weights_sha256') or 'weights unknown')[:12]}), "
        f"{record.get('device') or 'device unknown'} {record.get('dtype') or ''}, "
        f"JoyFlash {record.get('version', '')}"
        for clip in clips
        if (record := clip.record).get("profile")
    )
    return [" ".join(text.split()) for text, _ in found.most_common()]


def cards(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Head, value and a small line below for each card of the page's head."""
    states = summary["states"]
    good = summary["clips"] - states.get("failed", 0) - states.get("open", 0)
    rest = [f"{states[name]} {name}" for name in ("failed", "partial", "open") if states.get(name)]
    found = [
        ("Clips", str(good), ", ".join(rest) or "none failed"),
        ("Video", seconds(summary["video_s"]), "in all"),
    ]
    if summary["work_s"] is not None:
        gpu = summary["gpu_hours"]
        below = "of work, from the records" if gpu is None else f"{number(gpu)} GPU-hours"
        found.append(("Work", seconds(summary["work_s"]), below))
    if summary["realtime_median"] is not None:
        slow = f"slowest 5 %: {summary['realtime_slowest_5_percent']:.2f} ×"
        found.append(("Speed", f"{summary['realtime_median']:.2f} ×", f"real time; {slow}"))
    if summary["first_frame_median_s"] is not None:
        found.append(("First frame", seconds(summary["first_frame_median_s"]), "median"))
    if summary["sound_correlation_median"] is not None:
        value = number(summary["sound_correlation_median"])
        found.append(("Mouth–sound", value, "correlation, median"))
    if summary["identity_least"] is not None:
        found.append(("Identity", number(summary["identity_least"]), "least of all clips"))
    if summary["colour_change_most"] is not None:
        value = f"{number(summary['colour_change_most'])} ΔE"
        found.append(("Colour drift", value, "most of all clips"))
    return found


def _known(clips: Sequence[ClipView], name: str) -> list[float]:
    values = [clip.record.get(name) for clip in clips]
    return [float(value) for value in values if isinstance(value, int | float)]


def _figures(clips: Sequence[ClipView], name: str) -> list[float]:
    return [clip.figures[name] for clip in clips if clip.figures[name] is not None]


def _quantile(values: Sequence[float], share: float) -> float | None:
    return float(np.quantile(values, share)) if len(values) else None
