"""Print class probabilities for any images.

A folder stands for all images in it, at any depth, except hidden ones. Unreadable images, and
folders that are empty or cannot be listed, are named on standard error; the other images are
printed, and the exit code is 2.
"""

import csv
import io
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import quorum
from common.errors import DataError, SpecError
from common.printable import printable
from quorum.cli.arguments import BOOLEAN, add_options
from quorum.cli.printing import complain, print_line

if TYPE_CHECKING:
    from ensemble.deployment.onnx_model import Prediction

EXAMPLE = "quorum predict runs/demo photo.jpg photos/"


def add_arguments(parser: ArgumentParser) -> None:
    """Add MODEL, IMAGE…, --top, --csv, --json and --runs."""
    model = "an .onnx file, or a run with a student"
    parser.add_argument("model", metavar="MODEL", help=model)
    images = "an image file of almost any format, or a folder of them"
    parser.add_argument("images", metavar="IMAGE", nargs="+", help=images)
    top = "classes to print, most likely first (3)"
    parser.add_argument("--top", type=int, default=3, metavar="K", help=top)
    form = parser.add_mutually_exclusive_group()
    table = "print all classes, one row per image below a header"
    form.add_argument("--csv", action=BOOLEAN, help=table)
    lines = "print all classes, one JSON object per image"
    form.add_argument("--json", action=BOOLEAN, help=lines)
    add_options(parser, only=["runs"])


def execute(arguments: Namespace) -> int:
    """Predict, and print one line per image; name unreadable images."""
    if arguments.top < 1:
        raise SpecError(f"--top must be at least 1, got {arguments.top}")
    show = _text(arguments.top)
    if arguments.csv:
        show = _CsvRows()
    elif arguments.json:
        show = _json
    unreadable: list[Path] = []

    def name_unreadable(image: Path, error: DataError) -> None:
        unreadable.append(image)
        complain(str(error))

    predictions = quorum.predict(
        arguments.model,
        arguments.images,
        runs=arguments.runs,
        on_prediction=show,
        on_unreadable=name_unreadable,
    )
    if len(unreadable) > 1:
        count = len(unreadable) + len(predictions)
        raise DataError(
            f"{len(unreadable)} of {count} files or folders cannot be read; replace them"
        )
    return 2 if unreadable else 0


def _text(top: int) -> "Callable[[Prediction], None]":
    def show(prediction: "Prediction") -> None:
        best = "  ".join(
            f"{printable(name)} {share:.3f}" for name, share in prediction.ranked[:top]
        )
        print_line(f"{printable(str(prediction.image))}\t{best}")

    return show


def _json(prediction: "Prediction") -> None:
    values = {
        "image": str(prediction.image),
        "prediction": prediction.best,
        "probabilities": dict(prediction.ranked),
    }
    print_line(json.dumps(values))


class _CsvRows:
    """Prints rows below a header; control characters in names are escaped."""

    def __init__(self) -> None:
        self._began = False

    def __call__(self, prediction: "Prediction") -> None:
        if not self._began:
            columns = [f"p({name})" for name in prediction.class_names]
            self._print(["image", "prediction", "probability", *columns])
        self._began = True
        shares = prediction.probabilities
        numbers = [f"{share:.6g}" for share in (max(shares), *shares)]
        self._print([str(prediction.image), prediction.best, *numbers])

    def _print(self, cells: list[str]) -> None:
        row = io.StringIO()
        csv.writer(row, lineterminator="").writerow(map(printable, cells))
        print_line(row.getvalue())
