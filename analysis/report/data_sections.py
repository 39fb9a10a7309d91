"""The report's section on the images: the data card.

Axes: N images, K classes.
"""

from collections.abc import Collection

import numpy as np

from analysis.facts.data import DataFacts, class_counts
from analysis.facts.run_facts import RunFacts
from analysis.figures.fonts import Lettering
from analysis.report.blocks import Block, figure, pairs, section, table, text
from analysis.text.wording import source_sizes_text
from common.formats import count, fixed, plural, shorten

Drawn = Collection[str]

PURPOSES = {
    "train": "training",
    "val": "stopping trials, guiding the search",
    "holdout": "selection, weights, temperatures, quantizer, gates",
    "test": "this report only",
}
MOST_SKIPPED = 5
"""Unreadable files that are named."""


def data_section(facts: RunFacts, letters: Lettering, drawn: Drawn) -> Block:
    """Which images, in which splits, how many of each class, which copies."""
    data, sizes = facts.data, facts.sizes
    size = data.image_size or (facts.card.image_size if facts.card else None)
    size = size or facts.spec.dataset.image_size
    names = ", ".join(letters.names[:20]) + (" …" if len(letters.names) > 20 else "")
    return section(
        "The data",
        table(
            ("split", "images", "used for"),
            [[name, count(sizes[name]), PURPOSES[name]] for name in PURPOSES if name in sizes],
            "lrl",
        ),
        pairs(
            (
                ("data set", _name(facts)),
                ("originals", source_sizes_text(data.source_sizes) if data.source_sizes else ""),
                ("images", f"{size}×{size} pixels, RGB, as the nets get them" if size else ""),
                ("classes", f"{count(len(letters.names))}: {names}" if names else ""),
                ("per class", _balance(data)),
                ("test split", _test_split(data)),
                ("copies", _copies(data)),
                ("left out", _left_out(data)),
                ("unreadable", _unreadable(data)),
                ("fingerprint", str(facts.started.get("fingerprint") or "")),
                ("split", str(facts.started.get("split_id") or "")),
            )
        ),
        text(
            f"The images were not at hand for this report: {data.missing}. So copies, unreadable "
            "files and pictures are missing here."
            if data.missing
            else "",
            "Images with the same pixels, or of the same group, are always in the same split. "
            "The split's name is a hash of the fingerprint, the seed and the fractions; every "
            "record carries it, and figures of different splits are never mixed.",
        ),
        figure("class_sizes", _sizes_caption(data, letters), drawn=drawn),
        figure("contact_sheet", _sheet_caption(data, letters), drawn=drawn),
    )


def _name(facts: RunFacts) -> str:
    """Its own name, and the layout it was read from where that is another word."""
    kind = facts.spec.dataset.name
    name = str((facts.ledger or {}).get("dataset", {}).get("name") or kind)
    return name if name == kind else f"{name} ({kind})"


def _balance(data: DataFacts) -> str:
    """From the rarest to the commonest class, over all splits."""
    totals = class_counts(data)
    where = "all splits together"
    if totals is None:
        known = tuple(data.counts)
        totals = class_counts(data, known) if known else None
        where = f"in {', '.join(known)}"
    if totals is None or not len(totals):
        return ""
    low, high = int(totals.min()), int(totals.max())
    if low == high:
        return f"{plural(low, 'image')} each, {where}"
    ratio = f", a ratio of {fixed(high / low, 1)}" if low else ""
    median = count(float(np.median(totals)))
    return f"{count(low)} to {plural(high, 'image')}, median {median}{ratio}; {where}"


def _test_split(data: DataFacts) -> str:
    if data.own_test is None:
        return ""
    return "the data set's own" if data.own_test else "drawn by us: the data set has none"


def _copies(data: DataFacts) -> str:
    found = data.duplicates
    if found is None:
        return ""
    if not found.images:
        return "no two images have the same pixels"
    parts = [
        f"{plural(found.images, 'image')} {'is a copy' if found.images == 1 else 'are copies'} of "
        f"earlier ones, in {plural(found.groups, 'group')}"
    ]
    if found.across_test:
        parts.append(f"{count(found.across_test)} of them stand in test too")
    if found.conflicting_labels:
        parts.append(f"{plural(found.conflicting_labels, 'group')} with labels that contradict")
    return "; ".join(parts)


def _left_out(data: DataFacts) -> str:
    if not data.left_out:
        return ""
    what = "a copy of them" + (", or their group," if data.grouped else "")
    return f"{plural(data.left_out, 'image')} in no split, because {what} stands in another one"


def _unreadable(data: DataFacts) -> str:
    if not data.skipped:
        return ""
    named = ", ".join(shorten(name, 40) for name in data.skipped[:MOST_SKIPPED])
    more = " …" if len(data.skipped) > MOST_SKIPPED else ""
    return f"{plural(len(data.skipped), 'file')} left out: {named}{more}"


def _sizes_caption(data: DataFacts, letters: Lettering) -> str:
    known = ", ".join(data.counts)
    gone = "" if not data.missing else f" Only of {known}: the images were not at hand."
    classes = plural(len(letters.names), "class", "classes")
    return f"Images of each of {classes}, by split: a count, without uncertainty.{gone}"


def _sheet_caption(data: DataFacts, letters: Lettering) -> str:
    shown = len(set(data.sheet_classes))
    some = (
        f" The first {shown} of {len(letters.names)} classes." if shown < len(letters.names) else ""
    )
    images = "images" if len(data.sheet_classes) > shown else "image"
    return f"The first training {images} of each class, as the nets get them.{some}"
