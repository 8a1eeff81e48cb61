"""Numbers as a person reads them."""

from typing import Any

NOT_MEASURED = "–"


def number(value: float | int | None) -> str:
    """Three significant digits, without an exponent; a dash for ``None``."""
    if value is None:
        return NOT_MEASURED
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    if abs(value) >= 0.01:
        return f"{value:.2f}"
    return f"{value:.4f}" if abs(value) >= 1e-4 else f"{value:.0e}"


def seconds(value: float | None) -> str:
    """``8.8 s``, ``3 min 05 s`` or ``2 h 04 min``; a dash for ``None``."""
    if value is None:
        return NOT_MEASURED
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def plain(value: Any) -> str:
    """Any JSON value as one text; the template escapes it."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value)
    return "" if value is None else str(value)
