"""Write a student's model card in Markdown, `card.md`: use, limits, data, figures, origin.

Axes: N test images, K classes. Figures on test come from the run's ledger; until that is written, a
card has none. The sections follow Mitchell et al., "Model Cards for Model Reporting" (2019).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.commands import command
from common.files import read_arrays, write_bytes_atomically
from common.formats import (
    file_size,
    fixed,
    milliseconds,
    percent,
    percent_range,
    plural,
    two_digits,
)
from common.printable import markdown_code, markdown_text
from common.statistics.intervals import proportion_interval
from ensemble.deployment.card import Artifact, Card
from ensemble.deployment.card_sections import (
    Section,
    corrupted_section,
    markdown_table,
    sets_section,
)
from ensemble.deployment.metadata import NO_LICENSE
from ensemble.ledger.ledger import Ledger, Row, read_ledger
from ensemble.ledger.predictions import FILES, Network

Array = np.ndarray[Any, Any]

FILE = "card.md"
MOST_NAMED = 20
"""Largest number of classes named in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestFigures:
    """The shipped file's results on test."""

    __test__ = False  # not a class of tests

    ledger: Ledger
    row: Row
    labels: Array
    """The true classes [N]."""
    predicted: Array
    """The predicted classes [N]."""


def write_model_card(folder: Path, card: Card, test: TestFigures | None = None) -> Path:
    """Write `folder/card.md` atomically, replacing an earlier one, and return its path."""
    path = folder / FILE
    write_bytes_atomically(path, model_card(card, test).encode())
    return path


def read_test_figures(folder: Path, card: Card, network: Network) -> TestFigures | None:
    """Return the results of the card's main file from a run's ledger folder; None without them.

    `network` is the one that the card describes. The main file is the one that ships, or else the
    int8 file if there is one.

    Raises:
        RunError: the ledger is damaged.
    """
    path = folder / "ledger.json"
    if not path.is_file():
        return None
    ledger, file = read_ledger(path), _main_file(card)
    precision = "int8" if file is card.int8 else "fp32"
    stage = next(stage for stage, kind in FILES.items() if kind == (network, precision))
    row = ledger.row(stage)
    arrays = read_arrays(folder / "test_logprobs.npz", required=("labels",), optional=(stage,))
    if row is None or stage not in arrays:
        return None
    return TestFigures(
        ledger=ledger, row=row, labels=arrays["labels"], predicted=arrays[stage].argmax(axis=1)
    )


def model_card(card: Card, test: TestFigures | None = None) -> str:
    """Return a student's model card in Markdown."""
    name = markdown_text(str(card.dataset.get("name") or "images"))
    more = _measured(card, test)
    sections = [
        Section(title="Use", text=_use(card)),
        Section(title="Limits", text=_limits(card, test)),
        Section(title="Data", text=_data(card, test)),
        Section(title="Figures", text=_figures(card, test)),
        *more,
        Section(title="Origin", text=_origin(card)),
    ]
    parts = [f"# Image classifier: {name}", _summary(card, test)]
    parts += [f"## {section.title}\n\n{section.text}" for section in sections]
    return "\n\n".join(parts) + "\n"


def _measured(card: Card, test: TestFigures | None) -> list[Section]:
    """Return the sections on what the ledger measured beyond clean test images."""
    if test is None:
        return []
    stage = test.row.stage
    sections = (
        corrupted_section(test.ledger, stage),
        sets_section(test.ledger, stage, card.class_names),
    )
    return [section for section in sections if section is not None]


def _summary(card: Card, test: TestFigures | None) -> str:
    classes = plural(len(card.class_names), "class", "classes")
    text = f"Assigns an image to one of {classes}: {_names(card.class_names)}."
    if test is not None:
        row = test.row
        interval = percent_range(row.accuracy_interval, sign=True)
        images = plural(len(test.labels), "test image")
        text += f" Accuracy {percent(row.accuracy)} (95% interval {interval}) on {images}."
    if card.shipped is None and card.released_because:
        text += f"\n\n**Not released:** {markdown_text(card.released_because)}."
    return text


def _use(card: Card) -> str:
    files = [("fp32", card.fp32), *([("int8", card.int8)] if card.int8 else [])]
    rows = [_file_row(card, precision, file) for precision, file in files]
    shipped = _main_file(card).file
    return "\n\n".join(
        [
            markdown_table(
                ("file", "weights", "size", "one image", "images/s", "ships"), "llrrrl", rows
            ),
            "Each file can be used alone; class names and resize rule are in its metadata.",
            f"```\n{command('predict', shipped, 'photo.jpg')}\n{command('serve', shipped)}\n```",
            f"- Input: {markdown_text(card.input)}; size {card.image_size}.\n"
            f"- Output: {markdown_text(card.output)}.\n"
            f"- Preprocessing: {markdown_text(card.resize)}.",
        ]
    )


def _main_file(card: Card) -> Artifact:
    return card.shipped or card.int8 or card.fp32


def _file_row(card: Card, precision: str, file: Artifact) -> tuple[str, ...]:
    times = file.latency
    return (
        markdown_text(file.file),
        precision,
        file_size(file.bytes),
        milliseconds(times.ms_batch1 if times else None),
        f"{times.images_per_second:,.0f}" if times else "–",
        "yes" if file is card.shipped else "",
    )


def _limits(card: Card, test: TestFigures | None) -> str:
    items = [
        "It knows these classes only: an image of anything else is assigned to one of them.",
        "The figures hold for images like those of the data set; other cameras, places or times "
        "were not tested.",
        "Probabilities were calibrated on images like those of the data set.",
    ]
    robustness = None if test is None else test.ledger.robustness
    if test is None or robustness is None or robustness.row(test.row.stage) is None:
        reason = (
            f": {markdown_text(robustness.left_out)}" if robustness and robustness.left_out else ""
        )
        items.append(
            f"Robustness to noise, blur, weather and compression was not measured{reason}."
        )
    if card.int8 is not None:
        items.append("The int8 file can give other predictions on another kind of processor.")
    if card.parity is not None:
        parity = card.parity
        items.append(
            f"The int8 and the fp32 file predict the same class for {percent(parity.agreement)} of "
            f"{plural(parity.images, 'image')}; log-probabilities differ by up to "
            f"{two_digits(parity.max_abs)} nats."
        )
    weak = _weak_classes(card, test)
    if weak:
        items.append(f"Classes with a recall measurably below the accuracy: {_names(weak)}.")
    return "\n".join(f"- {item}" for item in items)


def _data(card: Card, test: TestFigures | None) -> str:
    facts = [
        ("data set", markdown_text(str(card.dataset.get("name", "")))),
        ("fingerprint", markdown_text(str(card.dataset.get("fingerprint", "")))),
        ("split", markdown_text(card.split_id)),
    ]
    if test is not None:
        sizes = ", ".join(f"{name} {size:,}" for name, size in test.ledger.dataset.sizes.items())
        facts.append(("images", sizes))
    text = "\n".join(f"- {name}: {value}" for name, value in facts if value)
    return (
        f"{text}\n\nThe splits are disjoint: the network was trained on train; val and holdout "
        "chose it and calibrated it; test was read for the figures below only."
    )


def _figures(card: Card, test: TestFigures | None) -> str:
    if test is None:
        return "The run has no figures on test yet."
    row, reads = test.row, test.ledger.test_reads
    head = (
        f"On {plural(len(test.labels), 'test image')}, read "
        f"{'once' if reads == 1 else f'{reads} times'}: accuracy {percent(row.accuracy)} "
        f"({percent_range(row.accuracy_interval, sign=True)}), balanced accuracy "
        f"{percent(row.balanced_accuracy)}, NLL {fixed(row.nll)}, Brier score {fixed(row.brier)}, "
        f"ECE {fixed(row.ece)} (a perfectly calibrated model has {fixed(row.ece_null)} on as many "
        "images)."
    )
    return f"{head} Intervals are 95%, Wilson's for a class.\n\n{_by_class(card, test)}"


def _by_class(card: Card, test: TestFigures) -> str:
    """Return each class's recall and precision with their intervals."""
    rows = []
    for index, name in enumerate(card.class_names):
        true, predicted = test.labels == index, test.predicted == index
        hits = int((true & predicted).sum())
        rows.append(
            (
                markdown_text(name),
                f"{int(true.sum()):,}",
                _share(hits, int(true.sum())),
                _share(hits, int(predicted.sum())),
            )
        )
    header = ("class", "test images", "recognised (recall)", "right when predicted (precision)")
    return markdown_table(header, "lrrr", rows)


def _share(successes: int, total: int) -> str:
    if not total:
        return "–"
    interval = proportion_interval(successes, total)
    limits = percent_range((interval.low, interval.high), sign=True)
    return f"{percent(successes / total)} ({limits})"


def _weak_classes(card: Card, test: TestFigures | None) -> list[str]:
    """Return the classes whose 99.9% interval of recall lies below the overall accuracy."""
    if test is None:
        return []
    overall = float((test.labels == test.predicted).mean())
    weak = []
    for index, name in enumerate(card.class_names):
        true = test.labels == index
        hits = int((true & (test.predicted == index)).sum())
        if true.any() and proportion_interval(hits, int(true.sum()), level=0.999).high < overall:
            weak.append(name)
    return weak


def _origin(card: Card) -> str:
    stated = card.license != NO_LICENSE
    license = markdown_text(card.license) if stated else "not stated (`student.license`)"
    facts = [
        ("licence", license),
        (
            "teacher",
            ", ".join(f"{markdown_text(m.name)} ({percent(m.weight)})" for m in card.teacher),
        ),
        ("network", card.untaught_because and f"a trial of the search ({card.untaught_because})"),
        ("parameters", f"{card.params:,}"),
        ("training", f"{_steps(card)}{card.train_seconds:,.0f} s"),
        ("recipe", f"SHA-256 {markdown_code(card.metadata.recipe_sha256)}, in full in card.json"),
        ("Quorum", markdown_text(card.code_version)),
        ("measured on", markdown_text(str(card.machine.get("processor", "")))),
    ]
    return "\n".join(f"- {name}: {value}" for name, value in facts if value)


def _steps(card: Card) -> str:
    return "" if card.steps is None else f"{plural(card.steps, 'step')} in "


def _names(names: Sequence[str]) -> str:
    listed = ", ".join(map(markdown_text, names[:MOST_NAMED]))
    return listed if len(names) <= MOST_NAMED else f"{listed} … ({len(names)} in all)"
