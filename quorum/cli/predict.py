"""Print class probabilities for any images."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path

import quorum
from common.errors import DataError
from quorum.cli.arguments import BOOLEAN, add_options
from quorum.cli.printing import print_line

NAMED = 5
"""Largest number of unreadable images that are named."""
EXAMPLE = "quorum predict runs/demo photo.jpg"


def add_arguments(parser: ArgumentParser) -> None:
    """Add MODEL, IMAGE…, --top, --json and --runs."""
    model = "an .onnx file, or a run with a student"
    parser.add_argument("model", metavar="MODEL", help=model)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="any image file")
    top = "classes to print, most likely first (3)"
    parser.add_argument("--top", type=int, default=3, metavar="K", help=top)
    lines = "print all classes, one JSON object per image"
    parser.add_argument("--json", action=BOOLEAN, help=lines)
    add_options(parser, only=["runs"])


def execute(arguments: Namespace) -> int:
    """Predict and print one line per image; unreadable images are an error after the others."""
    unreadable: dict[Path, DataError] = {}
    predictions = quorum.predict(
        arguments.model,
        arguments.images,
        runs=arguments.runs,
        on_unreadable=unreadable.__setitem__,
    )
    for prediction in predictions:
        pairs = zip(prediction.class_names, prediction.probabilities, strict=True)
        ranked = sorted(pairs, key=lambda pair: -pair[1])
        if arguments.json:
            print_line(json.dumps({"image": str(prediction.image), "probabilities": dict(ranked)}))
        else:
            top = "  ".join(f"{name} {share:.3f}" for name, share in ranked[: arguments.top])
            print_line(f"{prediction.image}\t{top}")
    if unreadable:
        raise _summary(unreadable, len(arguments.images))
    return 0


def _summary(unreadable: Mapping[Path, DataError], images: int) -> DataError:
    """Return one error for all unreadable images."""
    if len(unreadable) == 1:
        return next(iter(unreadable.values()))
    names = ", ".join(map(str, [*unreadable][:NAMED])) + (", …" if len(unreadable) > NAMED else "")
    return DataError(f"{len(unreadable)} of {images} images cannot be read: {names}; replace them")
