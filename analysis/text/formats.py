"""Numbers as a person reads them. One place, so terminal, README and report agree.

`None` and non-finite numbers become a dash: a missing figure is never shown as zero.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

DASH = "–"
MINUS = "−"

Number = float | int | None


def fixed(value: Number, decimals: int = 3) -> str:
    """A plain decimal: 0.1234 → `0.123`."""
    if _missing(value):
        return DASH
    return _minus(f"{value:.{decimals}f}")


def percent(value: Number, decimals: int = 1, *, sign: bool = True) -> str:
    """A fraction as a percentage: 0.954 → `95.4%`; `sign=False` leaves the sign out."""
    if _missing(value):
        return DASH
    return f"{fixed(100 * float(value or 0), decimals)}{'%' if sign else ''}"


def percent_range(interval: Sequence[float] | None, decimals: int = 1) -> str:
    """An interval of fractions, in percent without the sign: `93.9–96.6`."""
    if interval is None:
        return DASH
    low, high = interval
    return f"{percent(low, decimals, sign=False)}–{percent(high, decimals, sign=False)}"


def signed(value: Number, decimals: int = 3) -> str:
    """A difference, always with its sign: `+0.012`, `−0.003`."""
    if _missing(value):
        return DASH
    return _minus(f"{value:+.{decimals}f}")


def signed_range(interval: Sequence[float] | None, decimals: int = 3) -> str:
    """An interval of a difference: `−0.002 to +0.014`."""
    if interval is None:
        return DASH
    low, high = interval
    return f"{signed(low, decimals)} to {signed(high, decimals)}"


def compact(value: Number) -> str:
    """A count in three digits: 1970000 → `1.97M`, 12345 → `12.3k`, 812 → `812`."""
    if value is None or not math.isfinite(value):
        return DASH
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999,950 would round to 1000k.
        if abs(value) >= size * 0.9995:
            return f"{_three(value / size)}{suffix}"
    return f"{value:.0f}"


def count(value: Number) -> str:
    """A whole number with thousands set apart: `12,345`."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:,.0f}"


def plural(number: int, noun: str, nouns: str | None = None) -> str:
    """A number with its noun: `1 trial`, `24 trials`."""
    return f"{count(number)} {noun if number == 1 else nouns or noun + 's'}"


def file_size(value: Number) -> str:
    """Bytes in decimal units: `38.2 kB`, `4.71 MB`."""
    if value is None or not math.isfinite(value):
        return DASH
    for size, suffix in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= size * 0.9995:
            return f"{_three(value / size)} {suffix}"
    return f"{value:.0f} B"


def significant(value: Number) -> str:
    """About three digits, whatever the size: 0.281 → `0.28`, 5.931 → `5.93`, 123.4 → `123`."""
    return DASH if value is None or not math.isfinite(value) else _three(value)


def milliseconds(value: Number) -> str:
    """A latency: `0.42 ms`."""
    return DASH if significant(value) == DASH else f"{significant(value)} ms"


def duration(seconds: Number) -> str:
    """A span of time in its two largest units: `8.4 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def short_duration(seconds: Number) -> str:
    """A span of time in six characters: `8.4s`, `3m05s`, `2h10m`."""
    return duration(seconds).replace(" ", "").replace("min", "m")


def round_text(text: str) -> str:
    """A round value without the digits that say so: `50.0 kB` → `50 kB`, `5m00s` → `5m`."""
    return re.sub(r"\.0+(?!\d)|(?<=[hm])00[ms]$", "", text)


def shorten(text: str, width: int) -> str:
    """`text` on one line, in at most `width` characters, cut in its middle.

    Names of classes often differ at their ends alone.
    """
    line = " ".join(text.split())
    if len(line) <= width:
        return line
    head = (2 * width - 1) // 3
    return f"{line[:head].rstrip()}…{line[len(line) - (width - 1 - head) :].lstrip()}"


def shorten_all(names: Sequence[str], width: int) -> list[str]:
    """Each name in at most `width` characters; those that would look alike end in their number."""
    lines = [shorten(name, width) for name in names]
    alike = {line for line, times in Counter(lines).items() if line and times > 1}
    return [
        _numbered(name, number, width) if line in alike else line
        for number, (name, line) in enumerate(zip(names, lines, strict=True))
    ]


def minus(text: str) -> str:
    """Hyphens that stand before a number as minus signs; those in words and dates stay."""
    return re.sub(r"(?<![\w.])-(?=\d)", MINUS, text)


def value_text(value: object) -> str:
    """A value from a recipe or a record: floats in four digits, lists joined."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _minus(f"{value:.4g}")
    if isinstance(value, list | tuple):
        return ", ".join(value_text(item) for item in value) or DASH
    return str(value)


def _numbered(name: str, number: int, width: int) -> str:
    end = f" #{number}"
    return shorten(name, width - len(end)) + end


def _missing(value: Number) -> bool:
    return value is None or not math.isfinite(value)


def _three(value: float) -> str:
    """Three significant digits, without an exponent."""
    magnitude = abs(value)
    decimals = 0 if magnitude >= 99.95 else 1 if magnitude >= 9.995 else 2
    return _minus(f"{value:.{decimals}f}")


def _minus(text: str) -> str:
    return text.replace("-", MINUS)
