"""Compare two runs on the same test images, paired.

Command:  python benchmarks/compare_runs.py runs/transfer runs/scratch

Prints the accuracy of every row that both ledgers have, and the difference with its 95% interval.
It reads the test predictions that the ledgers kept; nothing is predicted anew.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from common.files import read_json
from ensemble.selection.comparison import compare

ROWS = ("best_single", "ensemble", "student_fp32", "student_int8")


def main() -> None:
    """Print one line for each row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs=2, help="folders of two runs on the same data")
    folders = [run / "ledger" for run in parser.parse_args().runs]
    datasets = [read_json(folder / "ledger.json")["dataset"] for folder in folders]
    if datasets[0]["split_id"] != datasets[1]["split_id"]:
        sys.exit("the runs have different test images: their split_ids differ")
    predictions = [np.load(folder / "test_logprobs.npz") for folder in folders]
    labels = predictions[0]["labels"]
    for row in ROWS:
        if all(row in each for each in predictions):
            pair = {str(index): each[row] for index, each in enumerate(predictions)}
            first, second = ((logp.argmax(axis=1) == labels).mean() for logp in pair.values())
            gain = compare("0", "1", "accuracy", pair, labels, seed=0)
            low, high = (100 * bound for bound in gain.interval)
            print(
                f"{row:13} {first:.1%}  {second:.1%}  "
                f"{100 * gain.value:+.1f} points ({low:+.1f} to {high:+.1f}), n = {len(labels):,}"
            )


if __name__ == "__main__":
    main()
