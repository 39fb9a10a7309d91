"""Measure training on one GPU: one prepared script of less than ten minutes.

    python benchmarks/gpu.py --data FOLDER --airbench SCRIPT   # everything, in 9 minutes
    python benchmarks/gpu.py --only throughput,sharing         # some parts
    python benchmarks/gpu.py --tiny                            # every part once; runs on a CPU too

    time94       airbench94's recipes in our engine, and airbench's own script beside it, in turns
    waits        how often a training step waits for the device
    throughput   images per second of training and inference beside the card's measured limits
    sharing      trials per hour with 1, 4 and 16 at a time on the card
    replay       differences between two trainings from the same seed

On a machine that is lent for a few minutes:

1. Try `--tiny` where you are: it needs no GPU and shows that nothing is missing.
2. Take along this repository, the images and, for a comparison, one of airbench's scripts, e.g.
   airbench94_muon.py of github.com/KellerJordan/cifar10-airbench. `--data` is a folder in any
   layout that `quorum run images` reads; nothing is downloaded. Without it the images are noise:
   times are right, accuracies are not.
3. There, in the repository's root: `PYTHONPATH=. python benchmarks/gpu.py --data … --out …`. It
   needs torch, torchvision, timm, numpy, scipy, safetensors, jaxtyping, filelock, cloudpickle,
   pyarrow, psutil, joblib, PyYAML and Pillow, but not Ray, Optuna or MLflow.
4. Each part runs in a process of its own and ends when its time is over; time that one part
   leaves is divided among the next. A part that fails does not stop the others. Every row is
   printed and written as it comes, to OUT/PART.json.

Other programs on the card make all figures worthless: check nvidia-smi first.
"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SHARES = {"time94": 2.9, "waits": 0.8, "throughput": 2.4, "sharing": 1.7, "replay": 1.2}
"""Minutes of each part, in their order, if all have 9 minutes together."""
GRACE_SECONDS = 5.0
"""Time that a part may take longer than planned before it is killed."""
RESULTS = Path(__file__).parent.parent / "results"


def main() -> None:
    """Run the parts in turn; exit with 1 if one of them failed."""
    options = _options()
    parts = options.only.split(",")
    unknown = [part for part in parts if part not in SHARES]
    if unknown:
        raise SystemExit(f"there is no part {unknown[0]!r}; the parts are {', '.join(SHARES)}")
    if options.until is not None:
        _run_here(parts[0], options)
        return
    if options.device is None:
        options.device = "cuda" if _has_gpu() else "cpu"
    if options.device == "cpu" and not options.tiny:
        print("torch finds no GPU here; --tiny runs every part once on the CPU")
        return
    if options.tiny:
        print("tiny: everything runs once on a few images, and the figures mean nothing")
    end = time.time() + 60 * options.minutes
    failed = []
    for number, part in enumerate(parts):
        share = SHARES[part] / sum(SHARES[later] for later in parts[number:])
        until = time.time() + (end - time.time()) * share
        problem = _run_apart(_command(part, options, until=until), until=until)
        if problem:
            print(f"\n{part} {problem}", flush=True)
            failed.append(part)
    raise SystemExit(1 if failed else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SHARES), metavar="PART,…")
    parser.add_argument("--data", help="folder of CIFAR-10, in any layout; noise without it")
    parser.add_argument("--airbench", help="a script of airbench, to run beside ours")
    parser.add_argument("--out", help="folder of the JSON files; by default results/GPU")
    parser.add_argument("--minutes", type=float, default=9.0, help="of all parts together")
    parser.add_argument("--tiny", "--dry-run", action="store_true", help="try everything out")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="`cpu` with --tiny only")
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)  # of a part's own process
    parser.add_argument("--command", help=argparse.SUPPRESS)
    return parser.parse_args()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _command(part: str, options: argparse.Namespace, *, until: float) -> list[str]:
    """Return the command of a part's own process."""
    command = [sys.executable, __file__, "--only", part, "--until", str(until)]
    command += ["--device", options.device, "--command", shlex.join(["python", *sys.argv])]
    for name in ("data", "out", "airbench"):
        path = getattr(options, name)
        command += [f"--{name}", str(Path(path).resolve())] if path else []
    return [*command, "--tiny"] if options.tiny else command


def _run_apart(command: list[str], *, until: float) -> str:
    """Run a part in a process of its own; return its problem, or nothing."""
    process = subprocess.Popen(command, process_group=0)
    try:
        code = process.wait(timeout=max(0.0, until + GRACE_SECONDS - time.time()))
    except subprocess.TimeoutExpired:
        return "was stopped because its time was over; the rows above are complete"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
            process.wait()
    return f"failed with exit code {code}" if code else ""


def _run_here(part: str, options: argparse.Namespace) -> None:
    import torch
    from gpu_session import Session

    out = Path(options.out) if options.out else None
    if out is None and options.device == "cuda" and not options.tiny:
        name = torch.cuda.get_device_name().lower()
        out = RESULTS / re.sub(r"[^a-z0-9]+", "-", name).strip("-")
    session = Session(
        command=options.command,
        device=options.device,
        tiny=options.tiny,
        data=Path(options.data) if options.data else None,
        out=out,
        airbench=Path(options.airbench) if options.airbench else None,
        until=options.until,
    )
    _function(part)(session)


def _function(part: str) -> Callable[..., None]:
    if part == "time94":
        from gpu_time94 import run_time94

        return run_time94
    if part == "waits":
        from gpu_waits import run_waits

        return run_waits
    if part == "throughput":
        from gpu_throughput import run_throughput

        return run_throughput
    if part == "sharing":
        from gpu_sharing import run_sharing

        return run_sharing
    from gpu_replay import run_replay

    return run_replay


if __name__ == "__main__":
    main()
