"""Print class probabilities for any images."""

import json
from argparse import ArgumentParser, Namespace

import quorum
from quorum.cli.arguments import BOOLEAN, add_options

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
    """Predict and print one line per image."""
    predictions = quorum.predict(arguments.model, arguments.images, runs=arguments.runs)
    for prediction in predictions:
        pairs = zip(prediction.class_names, prediction.probabilities, strict=True)
        ranked = sorted(pairs, key=lambda pair: -pair[1])
        if arguments.json:
            print(json.dumps({"image": str(prediction.image), "probabilities": dict(ranked)}))
        else:
            top = "  ".join(f"{name} {share:.3f}" for name, share in ranked[: arguments.top])
            print(f"{prediction.image}\t{top}")
    return 0
