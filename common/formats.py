"""Format numbers, durations and names for people: one place, so all outputs agree.

`None` and non-finite numbers become a dash: a missing value is never shown as zero.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

DASH = "–"
MINUS = "−"

Number = float | int | None


def fixed(value: Number, decimals: int = 3) -> str:
    """Format a plain decimal: 0.1234 → `0.123`."""
    if _missing(value):
        return DASH
    return _with_minus(f"{value:.{decimals}f}")


def percent(value: Number, decimals: int = 1, *, sign: bool = True) -> str:
    """Format a fraction as a percentage: 0.954 → `95.4%`, or `95.4` with `sign=False`."""
    if _missing(value):
        return DASH
    return f"{fixed(100 * float(value or 0), decimals)}{'%' if sign else ''}"


def percent_range(
    interval: Sequence[float] | None, decimals: int = 1, *, sign: bool = False
) -> str:
    """Format an interval of fractions in percent: `93.9–96.6`, or `93.9–96.6%` with `sign`."""
    if interval is None:
        return DASH
    low, high = interval
    return f"{percent(low, decimals, sign=False)}–{percent(high, decimals, sign=sign)}"


def signed(value: Number, decimals: int = 3) -> str:
    """Format a difference, always with its sign: `+0.012`, `−0.003`."""
    if _missing(value):
        return DASH
    return _with_minus(f"{value:+.{decimals}f}")


def signed_range(interval: Sequence[float] | None, decimals: int = 3) -> str:
    """Format an interval of a difference: `−0.002 to +0.014`."""
    if interval is None:
        return DASH
    low, high = interval
    return f"{signed(low, decimals)} to {signed(high, decimals)}"


def significant(value: Number) -> str:
    """Format three digits, at most two of them decimals: 0.281 → `0.28`, 123.4 → `123`."""
    return DASH if _missing(value) else _three_digits(float(value or 0))


def two_digits(value: Number) -> str:
    """Format a small number in two significant digits: 0.00957 → `0.0096`."""
    return DASH if _missing(value) else _with_minus(f"{value:.2g}")


def gate_number(value: Number) -> str:
    """Format a gate's value or limit: four decimals below 1, else two."""
    return DASH if _missing(value) else fixed(value, 4 if abs(value or 0) < 1 else 2)


def compact(value: Number) -> str:
    """Format a count in three digits: 1970000 → `1.97M`, 12345 → `12.3k`, 812 → `812`."""
    if value is None or not math.isfinite(value):
        return DASH
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999,950 would round to 1000k.
        if abs(value) >= size * 0.9995:
            return f"{_three_digits(value / size)}{suffix}"
    return f"{value:.0f}"


def count(value: Number) -> str:
    """Format a whole number with thousands separators: `12,345`."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:,.0f}"


def plural(number: int, noun: str, nouns: str | None = None) -> str:
    """Format a number with its noun: `1 trial`, `24 trials`."""
    return f"{count(number)} {noun if number == 1 else nouns or noun + 's'}"


def file_size(value: Number) -> str:
    """Format bytes in decimal units: `38.2 kB`, `4.71 MB`."""
    if value is None or not math.isfinite(value):
        return DASH
    for size, suffix in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= size * 0.9995:
            return f"{_three_digits(value / size)} {suffix}"
    return f"{value:.0f} B"


def milliseconds(value: Number) -> str:
    """Format a latency in milliseconds: `0.42 ms`."""
    return DASH if significant(value) == DASH else f"{significant(value)} ms"


def duration(seconds: Number) -> str:
    """Format a measured duration in its two largest units: `8.4 s`, `3 min 05 s`, `2 h 10 min`."""
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
    """Format a measured duration without spaces: `8.4s`, `3m05s`, `2h10m`."""
    return duration(seconds).replace(" ", "").replace("min", "m")


def rounded_duration(seconds: float) -> str:
    """Format a forecast, rounded to 5 s, 1 min or 5 min: `40 s`, `7 min`, `2 h 10 min`."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(5 * round(minutes / 5), 60)
    return f"{hours} h {minutes:02d} min"


def stopwatch(seconds: float) -> str:
    """Format running time as a clock shows it: `0:42`, `12:05`, `3:20:07`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def trim_zeros(text: str) -> str:
    """Drop trailing zeros of a round value: `50.0 kB` → `50 kB`, `5m00s` → `5m`."""
    return re.sub(r"\.0+(?!\d)|(?<=[hm])00[ms]$", "", text)


def one_line(text: str) -> str:
    """Replace line breaks and runs of spaces by single spaces."""
    return " ".join(text.split())


def shorten(text: str, width: int) -> str:
    """Fit `text` on one line of at most `width` characters, cutting out its middle.

    Class names often differ only at their ends.
    """
    line = one_line(text)
    if len(line) <= width:
        return line
    head = (2 * width - 1) // 3
    return f"{line[:head].rstrip()}…{line[len(line) - (width - 1 - head) :].lstrip()}"


def shorten_all(names: Sequence[str], width: int) -> list[str]:
    """Shorten each name to `width` characters; names that become equal end in their index."""
    lines = [shorten(name, width) for name in names]
    ambiguous = {line for line, times in Counter(lines).items() if line and times > 1}
    return [
        _numbered(name, number, width) if line in ambiguous else line
        for number, (name, line) in enumerate(zip(names, lines, strict=True))
    ]


def with_minus_signs(text: str) -> str:
    """Turn hyphens before numbers into minus signs; those in words and dates stay."""
    return re.sub(r"(?<![\w.])-(?=\d)", MINUS, text)


def value_text(value: object) -> str:
    """Format a value from a recipe or a record: floats in four digits, lists joined."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _with_minus(f"{value:.4g}")
    if isinstance(value, list | tuple):
        return ", ".join(value_text(item) for item in value) or DASH
    return str(value)


def _numbered(name: str, number: int, width: int) -> str:
    end = f" #{number}"
    return shorten(name, width - len(end)) + end


def _missing(value: Number) -> bool:
    return value is None or not math.isfinite(value)


def _three_digits(value: float) -> str:
    """Format three digits, at most two of them decimals, without an exponent."""
    magnitude = abs(value)
    decimals = 0 if magnitude >= 99.95 else 1 if magnitude >= 9.995 else 2
    return _with_minus(f"{value:.{decimals}f}")


def _with_minus(text: str) -> str:
    return text.replace("-", MINUS)
