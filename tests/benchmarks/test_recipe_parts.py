"""benchmarks/recipe_parts.py on a few images."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.docs import ROOT


@pytest.mark.slow
def test_every_variant_is_compared_with_the_base(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(240):
        folder = tmp_path / "data" / ("dark" if number % 2 else "light")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 128, (16, 16, 3)) + 127 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    command = [sys.executable, str(ROOT / "benchmarks" / "recipe_parts.py")]
    command += ["--data", str(tmp_path / "data"), "--seeds", "2", "--epochs", "1"]
    command += ["--width", "4", "--batch-size", "32"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| (\w+) \| (\d+\.\d+) \|", done.stdout, re.M)
    assert len(rows) == 14
    assert rows[0][0] == "base"
    assert all(float(accuracy) > 50 for _, accuracy in rows)
