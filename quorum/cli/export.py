"""Write the released model in another format, checked against its ONNX file.

The predictions are compared on the images given, or on noise if there are none; if a
log-probability differs by more than 0.001, nothing is written.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import quorum
from quorum.cli.arguments import add_options
from quorum.cli.printing import print_line, print_path

EXAMPLE = "quorum export demo --format openvino -o model.xml"
FORMATS = ("onnx", "openvino")


def add_arguments(parser: ArgumentParser) -> None:
    """Add MODEL, --format, -o, --images and --runs."""
    model = "an .onnx file, or a run with a student"
    parser.add_argument("model", metavar="MODEL", help=model)
    kinds = "onnx, or openvino (needs the extra openvino)"
    parser.add_argument("--format", choices=FORMATS, default="onnx", help=kinds)
    target = "file to write, or a folder"
    parser.add_argument("-o", "--out", required=True, metavar="PATH", help=target)
    images = "images, or folders of them, to compare on"
    parser.add_argument("--images", nargs="+", default=(), metavar="IMAGE", help=images)
    add_options(parser, only=["runs"])


def execute(arguments: Namespace) -> int:
    """Convert, and print the files and how far their predictions differ."""
    made = quorum.export(
        arguments.model,
        Path(arguments.out),
        format=arguments.format,
        images=arguments.images,
        runs=arguments.runs,
    )
    for file in made.files:
        print_path("written to", file)
    print_line(
        f"log-probabilities differ by at most {made.max_difference:.2g} nats on "
        f"{made.images} images"
    )
    return 0
