"""Phrases of the summary: accuracies, comparisons and image sizes in words."""

from collections.abc import Mapping, Sequence

from analysis.text.cells import difference_value
from analysis.text.labels import NOT_DISTINGUISHABLE, metric_label
from analysis.text.ledger import verdict
from common.formats import count, percent, percent_range
from ensemble.selection.comparison import Comparison
from trainables.data.source_sizes import SourceSizes

MODES: Mapping[str, str] = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    "I": "16-bit grey",
    "I;16": "16-bit grey",
    "P": "palette",
    "PA": "palette with transparency",
    "RGBA": "RGB with transparency",
}
"""Pillow's colour modes whose codes are not self-explanatory."""


def accuracy_text(accuracy: float, interval: tuple[float, float], decimals: int = 1) -> str:
    """Format an accuracy with its interval: `95.4% (95% interval 93.9–96.6%)`."""
    limits = percent_range(interval, decimals, sign=True)
    return f"{percent(accuracy, decimals)} (95% interval {limits})"


def comparison(difference: Comparison, other: str, decimals: int = 1) -> str:
    """Return half a sentence: `better than OTHER in accuracy (+1.2 points, 95% interval …)`."""
    judged = verdict(difference)
    link = "from" if judged == NOT_DISTINGUISHABLE else "than"
    metric = metric_label(difference.metric)
    return f"{judged} {link} {other} in {metric} {_numbers(difference, decimals)}"


def comparisons(differences: Sequence[Comparison], other: str, decimals: int = 1) -> str:
    """Compare one pair in several metrics, each with its own verdict."""
    if not differences:
        return ""
    first, *others = differences
    parts = [comparison(first, other, decimals)]
    parts += [
        f"{verdict(item)} in {metric_label(item.metric)} {_numbers(item, decimals)}"
        for item in others
    ]
    return ", and ".join(parts)


def source_sizes_text(source_sizes: SourceSizes) -> str:
    """Describe source images: `32×32 pixels, RGB`, or their range of sizes and colour modes."""
    low, middle, high = (
        f"{width}×{height}"
        for width, height in (source_sizes.smallest, source_sizes.median, source_sizes.largest)
    )
    modes = [
        (MODES.get(mode, mode), f"{count(number)} " if len(source_sizes.modes) > 1 else "")
        for mode, number in source_sizes.modes.items()
    ]
    colours = ", ".join(f"{number}{mode}" for mode, number in modes)
    if source_sizes.sizes == 1:
        return f"{middle} pixels{'; ' if len(modes) > 1 else ', '}{colours}"
    sizes = f"median {middle}, {count(source_sizes.sizes)} different sizes"
    return f"from {low} to {high} pixels, {sizes}; {colours}"


def _numbers(difference: Comparison, decimals: int) -> str:
    value, interval = difference_value(difference, decimals)
    return f"({value}, 95% interval {interval})"
