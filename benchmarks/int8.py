"""Measure how much faster and smaller an int8 student is than the same student in fp32.

Command:  python benchmarks/int8.py            (half a minute on 2 cores)

The nets are plain/relu and untrained, since weights change neither size nor speed. Calls
alternate fp32, int8, int8, fp32; the speedup is the median ratio over repeats, followed by its
one-sided 95% lower bound in brackets.
"""

import tempfile
from pathlib import Path

import numpy as np

from common.provenance import machine_description
from common.seeds import numpy_generator
from ensemble.deployment.export import export_onnx
from ensemble.deployment.latency import paired_latency
from ensemble.deployment.onnx_model import OnnxClassifier
from ensemble.deployment.quantize import quantize_int8
from trainables.nets.build import build_model
from trainables.recipe import Recipe

SHAPES = ((16, 16), (16, 24), (16, 32), (32, 32), (32, 64))
"""Image size in pixels, width of the net."""


def main() -> None:
    """Print one row per shape."""
    machine = machine_description()
    print(f"{machine['processor']}, {machine['cores']} cores, {', '.join(machine['cpu_flags'])}")
    print("px  width  params   fp32 kB  int8 kB  smaller  faster  (at least)  batch 1, 1 thread")
    for size, width in SHAPES:
        print(measure(size, width))


def measure(size: int, width: int) -> str:
    """Return the table's row for one shape."""
    rng = numpy_generator(0, "benchmark")
    images = rng.integers(0, 256, (256, size, size, 3), dtype=np.uint8)
    labels = np.arange(256) % 10
    recipe = Recipe(width=width, block="plain", activation="relu", whitening=False)
    model = build_model(recipe, classes=10, image_size=size, train_images=images, seed=0).eval()
    with tempfile.TemporaryDirectory() as folder:
        fp32, int8 = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        export_onnx(model, fp32, image_size=size, classes=10)
        quantize_int8(
            fp32, int8, calibration=images, holdout=images, labels=labels, methods=["MinMax"]
        )
        speedup = paired_latency(OnnxClassifier(fp32), OnnxClassifier(int8), images[:1]).speedup
        sizes = [path.stat().st_size / 1000 for path in (fp32, int8)]
    params = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{size:2}  {width:5}  {params / 1000:5.0f}k  {sizes[0]:7.0f}  {sizes[1]:7.0f}  "
        f"{sizes[0] / sizes[1]:6.2f}x  {speedup.value:5.2f}x  ({speedup.bound:.2f}x)"
    )


if __name__ == "__main__":
    main()
