"""How numbers are written for people: the same everywhere on a page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

SHARES = frozenset({"accuracy", "balanced_accuracy", "f1"})
SCORES = frozenset({"mcc", "roc_auc", "average_precision", "log_loss", "ece", "r2"})
LABELS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1 (macro)",
    "mcc": "Matthews correlation",
    "roc_auc": "ROC AUC",
    "average_precision": "Average precision",
    "log_loss": "Log loss",
    "ece": "Calibration error",
    "r2": "R²",
    "mae": "Mean absolute error",
    "rmse": "Root mean squared error",
    "median_ae": "Median absolute error",
}
NARROW = "\N{NARROW NO-BREAK SPACE}"


def defined(x: Any) -> bool:
    """Whether there is a finite number to write."""
    return isinstance(x, int | float) and math.isfinite(x)


def number(x: Any, digits: int = 4) -> str:
    """Significant digits, thousands grouped, a true minus sign; an en dash where there is none."""
    if not defined(x):
        return "–"
    if float(x) == int(x) and abs(x) < 1e15:
        return f"{int(x):,}".replace("-", "−")
    if abs(x) >= 10 ** (digits - 1):
        return f"{x:,.0f}".replace("-", "−")
    shown = f"{x:.{digits}g}"
    if "e" in shown:
        mantissa, exponent = shown.split("e")
        shown = f"{mantissa}·10{''.join('⁰¹²³⁴⁵⁶⁷⁸⁹'[int(c)] if c.isdigit() else '⁻' for c in str(int(exponent)))}"
    return shown.replace("-", "−")


def tick(x: float) -> str:
    """A number beside an axis, short: 400k, 1.5M."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(x) >= 10 * scale or (scale > 1e3 and abs(x) >= scale):
            return number(x / scale, 3) + unit
    return number(x)


def percent(x: Any, digits: int = 1) -> str:
    """A share in percent."""
    return f"{100 * x:.{digits}f}{NARROW}%".replace("-", "−") if defined(x) else "–"


def metric(name: str, x: Any) -> str:
    """A metric's value in its customary form: shares in percent, other scores with four decimals, amounts with four digits."""
    if name in SHARES:
        return percent(x)
    return f"{x:.4f}".replace("-", "−") if name in SCORES and defined(x) else number(x)


def difference(name: str, x: Any) -> str:
    """A signed difference of a metric; of shares, in percentage points."""
    if not defined(x):
        return "–"
    sign = "+" if x > 0 else "−" if x < 0 else "±"
    if name in SHARES:
        return f"{sign}{100 * abs(x):.1f}{NARROW}pp"
    return sign + (f"{abs(x):.4f}" if name in SCORES else number(abs(x), 3))


def interval(name: str, estimate: Mapping[str, Any] | None, write: Any = metric) -> str:
    """``[low, high]`` without repeating the unit."""
    if not estimate or not defined(estimate.get("low")) or not defined(estimate.get("high")):
        return ""
    low, high = write(name, estimate["low"]), write(name, estimate["high"])
    for unit in (f"{NARROW}%", f"{NARROW}pp"):
        low = low.removesuffix(unit)
    return f"{low} – {high}"


def size(n: Any) -> str:
    """Bytes in decimal units, as drives and networks count."""
    if not defined(n):
        return "–"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= scale:
            return f"{n / scale:.3g}{NARROW}{unit}"
    return f"{n:.0f}{NARROW}B"


def milliseconds(x: Any) -> str:
    """A duration given in milliseconds, in the unit that suits it."""
    if not defined(x):
        return "–"
    if x < 1:
        return f"{1000 * x:.3g}{NARROW}µs"
    return f"{x:.3g}{NARROW}ms" if x < 1000 else seconds(x / 1000)


def seconds(x: Any) -> str:
    """A duration given in seconds."""
    if not defined(x):
        return "–"
    if x < 1:
        return milliseconds(1000 * x)
    if x < 90:
        return f"{x:.3g}{NARROW}s"
    minutes, rest = divmod(round(x), 60)
    return f"{minutes}{NARROW}min {rest}{NARROW}s" if minutes < 90 else f"{minutes // 60}{NARROW}h {minutes % 60}{NARROW}min"


def times(x: Any) -> str:
    """A ratio."""
    return f"{x:.{2 if x < 10 else 1}f}{NARROW}×" if defined(x) else "–"


def count(n: int, what: str) -> str:
    """``1 false alarm``, ``2 false alarms``."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def moment(micros: Any) -> str:
    """Microseconds since 1970-01-01 UTC as a date, with the time where it is not midnight."""
    if not defined(micros):
        return "–"
    try:
        at = datetime(1970, 1, 1) + timedelta(microseconds=int(micros))
    except OverflowError:  # before the year 1, or after 9999
        return number(micros)
    return at.isoformat(sep=" ", timespec="minutes").removesuffix(" 00:00")


def plain(x: Any) -> str:
    """Any value of a record or a setting: numbers by :func:`number`, lists in brackets, missing as an en dash."""
    if x is None or x == "":
        return "–"
    if isinstance(x, bool):
        return "yes" if x else "no"
    if isinstance(x, int | float):
        return number(x)
    if isinstance(x, list | tuple):
        return "[" + ", ".join(plain(v) for v in x) + "]"
    return str(x)
