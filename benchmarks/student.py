"""Measure how much of the ensemble's gain over the plain twin the student keeps.

Command:  python benchmarks/student.py digits --time-budget 3m
          python benchmarks/student.py cifar10 --data FOLDER --time-budget 10m --set KEY=VALUE

Each seed is a whole run, from its sweep to its ledger. The plain twin is the student's network,
trained for as many steps without a teacher. On test, with every row's own temperature:

    share = Σ (twin − student) / Σ (twin − ensemble)        in NLL and in errors, summed over seeds

Its 95% interval is a bootstrap over the test images, the same ones for every row of a seed
(2,000 draws). A gain that is not distinguishable from 0 has a share without meaning. Runs that are
there already are read, or resumed.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import quorum
from common.seeds import numpy_generator
from common.statistics.metrics import correct, nll_per_example

ROWS = ("ensemble", "student_plain", "student_fp32", "student_int8")
DRAWS = 2000
SCORES = ("NLL", "errors")

Array = np.ndarray[Any, np.dtype[np.float64]]


def main() -> None:
    """Run all seeds and print one row for each, then the shares over all of them."""
    parser = argparse.ArgumentParser(description="How much of the ensemble's gain a student keeps.")
    parser.add_argument("sweep")
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--time-budget", help="of each run; none for the sweep's own schedules")
    parser.add_argument("--runs", default="runs/benchmark-student")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    losses = []
    print("seed  row            accuracy     NLL  − ensemble: accuracy [95%]")
    for seed in range(arguments.seeds):
        run = _run(seed, arguments)
        for name in ROWS:
            print(f"{seed:4}  {_row(run, name)}", flush=True)
        losses.append(_losses(run))
    for student in ("student_fp32", "student_int8"):
        for index, score in enumerate(SCORES):
            print(f"{student}, share of the gain in {score}: {_share(losses, student, index)}")


def _run(seed: int, arguments: argparse.Namespace) -> quorum.Outcome:
    name = f"{arguments.sweep}-{seed}"
    folder = Path(arguments.runs) / name
    if (folder / "ledger.json").exists():
        return quorum.load_run(name, runs=arguments.runs)
    started = (folder / "sweep.yaml").exists()
    return quorum.run(
        folder / "sweep.yaml" if started else arguments.sweep,
        resume=started,
        name=name,
        runs=arguments.runs,
        data=arguments.data,
        time_budget=arguments.time_budget,
        set=[] if started else [*arguments.set, f"seed={seed}"],
        report=False,
        register=False,
        mirror=False,
        progress=False,
    )


def _row(run: quorum.Outcome, name: str) -> str:
    row = run.ledger.row(name)
    assert row is not None
    text = f"{name:13}  {row.accuracy:7.2%}  {row.nll:6.4f}"
    loss = run.ledger.difference(name, "ensemble", "accuracy")
    if loss is not None:
        low, high = loss.interval
        text += f"  {100 * loss.value:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}] points"
    return text


def _losses(run: quorum.Outcome) -> dict[str, Array]:
    """Return NLL and error of every test image, float64 [2, N], by row."""
    with np.load(run.folder.ledger / "test_logprobs.npz") as arrays:
        labels = arrays["labels"]
        return {
            name: np.stack(
                [
                    nll_per_example(arrays[name], labels).astype(np.float64),
                    1.0 - correct(arrays[name], labels),
                ]
            )
            for name in ROWS
        }


def _share(losses: list[dict[str, Array]], student: str, score: int) -> str:
    rng = numpy_generator(0, "benchmark", "student", student)

    def ratio(resample: bool) -> tuple[float, float]:
        kept = gain = 0.0
        for rows in losses:
            count = rows[student].shape[1]
            chosen = rng.integers(0, count, count) if resample else np.arange(count)
            twin, ensemble, net = (
                rows[name][score, chosen].mean() for name in ("student_plain", "ensemble", student)
            )
            kept, gain = kept + twin - net, gain + twin - ensemble
        return kept / len(losses), gain / len(losses)

    kept, gain = ratio(resample=False)
    draws = np.array([ratio(resample=True) for _ in range(DRAWS)])
    low, high = np.quantile(draws[:, 1], [0.025, 0.975])
    gains = f"gain {gain:.4f} [{low:.4f}, {high:.4f}]"
    if gain <= 0 or low <= 0:
        return f"{gains}: not distinguishably better than the twin; the student gains {kept:+.4f}"
    low, high = np.quantile(draws[:, 0] / draws[:, 1], [0.025, 0.975])
    return f"{kept / gain:.0%} [{low:.0%}, {high:.0%}]; {gains}, seeds {len(losses)}"


if __name__ == "__main__":
    main()
