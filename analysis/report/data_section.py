"""The section on the images: the data card.

Axes: N images, K classes.
"""

import numpy as np

from analysis.facts.data import DataFacts, class_counts
from analysis.facts.run_facts import RunFacts
from analysis.figures.fonts import Lettering
from analysis.report.blocks import Figure, Section, pairs, section, table, text
from analysis.text.sentences import source_sizes_text
from common.formats import count, fixed, plural, shorten

PURPOSES = {
    "train": "training",
    "val": "stopping trials, guiding the search",
    "holdout": "selection, weights, temperatures, quantizer, gates",
    "test": "this report only",
}
MOST_CLASS_NAMES = 20
MOST_SKIPPED = 5
"""Maximum number of unreadable files named."""


def data_section(facts: RunFacts, letters: Lettering) -> Section:
    """Describe the images, their splits, class sizes and duplicates."""
    data, sizes = facts.data, facts.sizes
    size = data.image_size or (facts.card.image_size if facts.card else None)
    size = size or facts.spec.dataset.image_size
    missing = (
        f"The images were not available for this report: {data.missing}. Duplicates, unreadable "
        "files and pictures are therefore missing here."
    )
    return section(
        "The data",
        table(
            ("split", "images", "used for"),
            [(name, count(sizes[name]), PURPOSES[name]) for name in PURPOSES if name in sizes],
            "lrl",
        ),
        pairs(
            (
                ("data set", _name(facts)),
                ("originals", source_sizes_text(data.source_sizes) if data.source_sizes else ""),
                ("images", f"{size}×{size} pixels, RGB, as fed to the networks" if size else ""),
                ("classes", _class_names(letters)),
                ("class sizes", _balance(data)),
                ("own splits", _own_splits(data)),
                ("duplicates", _duplicates(data)),
                ("left out", _left_out(data)),
                ("unreadable", _unreadable(data)),
                ("notes", "; ".join(_notes(facts))),
                ("fingerprint", facts.started.fingerprint if facts.started else ""),
                ("split", facts.started.split_id if facts.started else ""),
            )
        ),
        text(
            missing if data.missing else "",
            "Images with the same pixels, or of the same group, are always in the same split. "
            "The split's name is a hash of the fingerprint, the seed and the fractions; every "
            "record carries it, and numbers from different splits are never mixed.",
        ),
        Figure(name="class_sizes", caption=_sizes_caption(data, letters)),
        Figure(name="contact_sheet", caption=_sheet_caption(data, letters)),
    )


def _name(facts: RunFacts) -> str:
    """Return the data set's name, with the layout it was read from if that differs."""
    kind = facts.spec.dataset.name
    name = facts.ledger.dataset.name if facts.ledger else kind
    return name if name == kind else f"{name} ({kind})"


def _class_names(letters: Lettering) -> str:
    names = ", ".join(letters.names[:MOST_CLASS_NAMES])
    more = " …" if len(letters.names) > MOST_CLASS_NAMES else ""
    return f"{count(len(letters.names))}: {names}{more}" if names else ""


def _balance(data: DataFacts) -> str:
    """Describe the range of class sizes, over all splits where they are known."""
    totals = class_counts(data)
    where = "over all splits"
    if totals is None:
        known = tuple(data.counts)
        totals = class_counts(data, known) if known else None
        where = f"in {', '.join(known)}"
    if totals is None or not len(totals):
        return ""
    low, high = int(totals.min()), int(totals.max())
    if low == high:
        return f"{plural(low, 'image')} each, {where}"
    ratio = f", largest/smallest {fixed(high / low, 1)}" if low else ""
    median = count(float(np.median(totals)))
    return f"{count(low)} to {plural(high, 'image')}, median {median}{ratio}; {where}"


def _own_splits(data: DataFacts) -> str:
    if data.own_test is None:
        return ""
    own = {"val": data.own_val, "test": data.own_test}
    drawn = [name for name, is_own in (*own.items(), ("holdout", False)) if not is_own]
    kept = [name for name, is_own in own.items() if is_own]
    by_class = f"{', '.join(drawn)} drawn by Quorum, each class in the same proportions"
    return f"{' and '.join(kept)} from the data set; {by_class}" if kept else by_class


def _duplicates(data: DataFacts) -> str:
    duplicates = data.duplicates
    if duplicates is None:
        return ""
    if not duplicates.images:
        return "no two images have the same pixels"
    verb = "is a copy" if duplicates.images == 1 else "are copies"
    parts = [
        f"{plural(duplicates.images, 'image')} {verb} of earlier ones, in "
        f"{plural(duplicates.groups, 'group')}"
    ]
    if duplicates.across_test:
        parts.append(f"{count(duplicates.across_test)} of them also occur in test")
    if duplicates.conflicting_labels:
        parts.append(f"{plural(duplicates.conflicting_labels, 'group')} with conflicting labels")
    return "; ".join(parts)


def _left_out(data: DataFacts) -> str:
    if not data.left_out:
        return ""
    reason = "a copy" + (" or their group" if data.grouped else "")
    images = plural(data.left_out, "image")
    return f"{images} in no split, because {reason} is in another split"


def _unreadable(data: DataFacts) -> str:
    if not data.skipped:
        return ""
    named = ", ".join(shorten(name, 40) for name in data.skipped[:MOST_SKIPPED])
    more = " …" if len(data.skipped) > MOST_SKIPPED else ""
    return f"{plural(len(data.skipped), 'file')} skipped: {named}{more}"


def _notes(facts: RunFacts) -> tuple[str, ...]:
    """Return the notes of the run's start, and those on the images as they are now."""
    started = () if facts.started is None else facts.started.notes or ()
    return (*started, *(note for note in facts.data.notes if note not in started))


def _sizes_caption(data: DataFacts, letters: Lettering) -> str:
    known = ", ".join(data.counts)
    partial = "" if not data.missing else f" Only {known}: the other images were not available."
    classes = plural(len(letters.names), "class", "classes")
    return f"Number of images in each of {classes}, by split (exact counts).{partial}"


def _sheet_caption(data: DataFacts, letters: Lettering) -> str:
    shown = len(set(data.sheet_classes))
    partial = (
        f" The first {shown} of {len(letters.names)} classes." if shown < len(letters.names) else ""
    )
    images = "images" if len(data.sheet_classes) > shown else "image"
    return f"The first training {images} of each class, as fed to the networks.{partial}"
