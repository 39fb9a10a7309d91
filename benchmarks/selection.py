"""Compare greedy selection with AutoGluon's, and time the whole choice of an ensemble.

Command:  python benchmarks/selection.py --autogluon PYTHON --out results/selection/speed.json

PYTHON is an interpreter that has autogluon.core, by default this one; without it only our times are
printed. All pools are synthetic: logits are skill on the true class plus Gaussian noise, 60% of its
variance shared by all members. Every part runs on one thread in processes of its own.

1. Greedy selection of 40 rounds, N = 5,000, K = 10. Both sides take turns in rounds, on the same
   probabilities. `EnsembleSelection` gets [M, N, K] and log_loss; ours gets [M, N, K] too, and its
   time includes taking the true class's probabilities from it. Picks are compared round by round.
   AutoGluon rounds scores to six digits after the first round and breaks ties at random, so from
   its first such tie on the picks may differ; in float64 without rounding (`oracle`) they may not.
2. The whole decision, by its parts.
3. A large pool in a file: peak memory of a process that loads it and decides.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common.files import dump_json
from common.provenance import machine_description
from common.statistics.metrics import FLOOR
from ensemble.selection.decision import select_ensemble
from ensemble.selection.greedy import ROUNDS, TOLERANCE, select_greedy
from ensemble.selection.pool import Pool
from ensemble.selection.pool_file import load_pool

EXAMPLES, CLASSES = 5_000, 10
SIZES = (50, 200, 1_000)
DECISIONS = ((50, 5_000, 10), (200, 5_000, 10), (1_000, 5_000, 10), (5, 2_000, 1_000))
LARGE = (1_000, 5_000, 100)
COMMON = 0.6

THEIRS = """
import sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
try:
    import autogluon.core
except ImportError:
    sys.exit(0)
from autogluon.core.metrics import log_loss
from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection
probs, labels = np.load(sys.argv[1]), np.load(sys.argv[2])
print(autogluon.core.__version__, flush=True)
for line in sys.stdin:
    began, cpu = time.perf_counter(), time.process_time()
    chosen = EnsembleSelection(int(line), "multiclass", log_loss)
    chosen.fit(list(probs), labels)
    print(time.perf_counter() - began, time.process_time() - cpu, *chosen.indices_, flush=True)
"""


def main() -> None:
    """Print the tables of results/selection, and write their numbers to --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--autogluon", default=sys.executable, metavar="PYTHON")
    rounds = "paired rounds of each comparison; at most 2 with 1,000 members"
    parser.add_argument("--rounds", type=int, default=5, help=rounds)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="pools to compare on")
    parser.add_argument("--only", choices=("greedy", "decision", "large"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(run_part(*options.part)))
        return
    results: dict[str, Any] = {"machine": machine_description(), "load_average": os.getloadavg()}
    if options.only in (None, "greedy"):
        results["greedy"] = [
            compare(members, options.autogluon, rounds=min(options.rounds, max(2, 600 // members)))
            for members in options.sizes
        ]
    if options.only in (None, "decision"):
        results["decision"] = [
            median_of([in_new_process("decision", *shape) for _ in range(min(3, options.rounds))])
            for shape in DECISIONS
        ]
    if options.only in (None, "large"):
        results["large"] = large(*LARGE)
    if options.out:
        options.out.write_text(dump_json(results))


def compare(members: int, python: str, *, rounds: int) -> dict[str, Any]:
    """Let both sides select from the same pool in turns."""
    pool = synthetic_pool(members, EXAMPLES, CLASSES)
    probs = np.exp(pool.stack()).astype(np.float64)
    probs /= probs.sum(axis=2, keepdims=True)
    rows = np.arange(EXAMPLES)

    def ours() -> tuple[int, ...]:
        prob_true = np.maximum(probs[:, rows, pool.labels].T, FLOOR)
        return select_greedy(prob_true, rng=np.random.default_rng(0), rounds=ROUNDS).order

    picks = ours()
    result: dict[str, Any] = {"members": members, "rounds": rounds}
    prob_true = probs[:, rows, pool.labels].T
    oracle = float64_picks(prob_true, rounds=ROUNDS)
    result["picks_equal_oracle"] = list(picks) == oracle[: len(picks)]
    with tempfile.TemporaryDirectory() as folder, Opponent(python, Path(folder)) as theirs:
        if theirs.start(probs, pool.labels):
            result["autogluon"] = theirs.version
        times: dict[str, list[float]] = {"ours": [], "ours_cpu": [], "theirs": [], "theirs_cpu": []}
        for _ in range(rounds):
            wall, cpu = timed(ours)
            times["ours"].append(wall)
            times["ours_cpu"].append(cpu)
            if theirs.version:
                wall, cpu, their_picks = theirs.turn()
                times["theirs"].append(wall)
                times["theirs_cpu"].append(cpu)
                same = equal_start(picks, their_picks)
                result |= {"equal_picks": same, "their_picks": len(their_picks)}
                if same < min(len(picks), len(their_picks)):
                    both = (picks[same], their_picks[same])
                    scores = (nll_of(prob_true, [*picks[:same], pick]) for pick in both)
                    result["tied_to_six_digits"] = len({round(score, 6) for score in scores}) == 1
    result |= {f"{name}_seconds": statistics.median(v) for name, v in times.items() if v}
    if times["theirs"]:
        pairs = zip(times["theirs_cpu"], times["ours_cpu"], strict=True)
        result["ratio_cpu"] = statistics.median(b / a for b, a in pairs)
        pairs = zip(times["theirs"], times["ours"], strict=True)
        result["ratio"] = statistics.median(b / a for b, a in pairs)
    result["picks"] = len(picks)
    print(json.dumps(result), flush=True)
    return result


class Opponent:
    """A process of another interpreter that selects with AutoGluon when asked."""

    def __init__(self, python: str, folder: Path) -> None:
        """Start nothing yet."""
        self._python, self._folder = python, folder
        self._process: subprocess.Popen[str] | None = None
        self.version = ""

    def __enter__(self) -> "Opponent":
        """Return the opponent."""
        return self

    def start(self, probs: np.ndarray, labels: np.ndarray) -> bool:
        """Hand over the pool; return whether the interpreter has AutoGluon."""
        np.save(self._folder / "probs.npy", probs)
        np.save(self._folder / "labels.npy", labels)
        self._process = subprocess.Popen(
            [self._python, "-c", THEIRS, *(str(self._folder / f"{name}.npy") for name in NAMES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=one_thread() | {"PYTHONPATH": ""},
        )
        assert self._process.stdout is not None
        self.version = self._process.stdout.readline().strip()
        return bool(self.version)

    def turn(self) -> tuple[float, float, list[int]]:
        """Select once; return wall-clock and CPU seconds, and the picks."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{ROUNDS}\n")
        self._process.stdin.flush()
        wall, cpu, *picks = self._process.stdout.readline().split()
        return float(wall), float(cpu), [int(pick) for pick in picks]

    def __exit__(self, *error: object) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()


NAMES = ("probs", "labels")


def float64_picks(prob_true: np.ndarray, *, rounds: int) -> list[int]:
    """Return the picks of a loop in float64 that scores every member in every round."""
    columns = np.ascontiguousarray(np.maximum(prob_true, FLOOR).T)
    total = np.zeros(columns.shape[1])
    picks: list[int] = []
    for n in range(rounds):
        losses = np.log(n + 1) - np.array([np.log(total + column).mean() for column in columns])
        tied = np.flatnonzero(losses <= losses.min() + TOLERANCE * max(1.0, abs(losses.min())))
        current = np.intersect1d(tied, picks)
        picks.append(int((current if current.size else tied)[0]))
        total += columns[picks[-1]]
    return picks


def nll_of(prob_true: np.ndarray, picks: list[int]) -> float:
    """Return the NLL of the mean of these columns."""
    return -float(np.log(prob_true[:, picks].mean(axis=1)).mean())


def equal_start(ours: tuple[int, ...], theirs: list[int]) -> int:
    """Return how many picks agree before the first that differs."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(ours), len(theirs)))


def run_part(part: str, *shape: str) -> dict[str, Any]:
    """Run `decision` on a pool in memory, or `large` on the pool of a file."""
    base = peak_megabytes()
    seconds: dict[str, float] = {}
    if part == "large":
        began = time.process_time()
        pool = load_pool(shape[0])
        seconds["loading"] = time.process_time() - began
    else:
        pool = synthetic_pool(*map(int, shape))
    loaded = peak_megabytes()
    stages: dict[str, float] = {}
    last = time.process_time()

    def report(stage: str, share: float) -> None:
        nonlocal last
        now = time.process_time()
        # A stage reports what it has done, except the last, which reports its start.
        key = stage if share else "comparing candidates out of fold"
        stages[key] = stages.get(key, 0.0) + now - last
        last = now

    wall, cpu = timed(lambda: select_ensemble(pool, progress=report))
    stages["certificate, baselines and report"] = time.process_time() - last
    return {
        "shape": [len(pool.names), *pool.log_probs.shape[1:]],
        "decision_seconds": wall,
        "decision_cpu_seconds": cpu,
        "parts_cpu_seconds": seconds | stages,
        "peak_megabytes": {"start": base, "loaded": loaded, "decided": peak_megabytes()},
    }


def in_new_process(part: str, *shape: object) -> dict[str, Any]:
    """Run a part in a process of its own, whose peak memory is its own too."""
    arguments = [str(value) for value in shape] + ["-"] * (3 - len(shape))
    output = subprocess.run(
        [sys.executable, __file__, "--part", part, *arguments],
        stdout=subprocess.PIPE, text=True, check=True, env=one_thread(),
    ).stdout  # fmt: skip
    result: dict[str, Any] = json.loads(output)
    return result


def median_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the result of the median CPU time."""
    middle = sorted(results, key=lambda result: float(result["decision_cpu_seconds"]))
    result = middle[len(middle) // 2] | {"runs": len(results)}
    print(json.dumps(result), flush=True)
    return result


def large(members: int, examples: int, classes: int) -> dict[str, Any]:
    """Write a large pool, then load it and decide in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.npz"
        write_pool(path, members, examples, classes)
        result = in_new_process("large", path) | {"file_megabytes": path.stat().st_size / 1e6}
    print(json.dumps(result), flush=True)
    return result


def write_pool(path: Path, members: int, examples: int, classes: int) -> None:
    """Write a pool of float32 without holding it in memory."""
    with zipfile.ZipFile(path, "w") as archive:
        labels, draw = drawn(examples, classes)
        with archive.open("labels.npy", "w") as file:
            np.lib.format.write_array(file, labels)
        with archive.open("probs.npy", "w", force_zip64=True) as file:
            shape = (members, examples, classes)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(members):
                file.write(np.exp(draw()).tobytes())


def synthetic_pool(members: int, examples: int, classes: int) -> Pool:
    """Return a pool in memory."""
    labels, draw = drawn(examples, classes)
    return Pool(
        names=tuple(f"m{member}" for member in range(members)),
        log_probs=np.stack([draw() for _ in range(members)]),
        labels=labels,
        split_id="synthetic",
        seconds=np.full(members, np.nan),
        kinds=("",) * members,
    )


def drawn(examples: int, classes: int) -> tuple[np.ndarray, Callable[[], np.ndarray]]:
    """Return labels, and a function that draws a member's log-probabilities."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(examples) % classes)
    shared = rng.normal(size=(examples, classes)) * np.sqrt(COMMON)

    def draw() -> np.ndarray:
        logits = shared + rng.normal(size=shared.shape) * np.sqrt(1 - COMMON)
        logits[np.arange(examples), labels] += rng.uniform(2.0, 3.0)
        logits *= 1.5
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return np.asarray(logits, np.float32)

    return labels, draw


def timed(task: Callable[[], object]) -> tuple[float, float]:
    """Return the wall-clock and the CPU seconds of a task."""
    began, cpu = time.perf_counter(), time.process_time()
    task()
    return time.perf_counter() - began, time.process_time() - cpu


def peak_megabytes() -> float:
    """Return the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def one_thread() -> dict[str, str]:
    """Return an environment in which libraries use one thread."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return dict(os.environ) | dict.fromkeys(names, "1")


if __name__ == "__main__":
    main()
