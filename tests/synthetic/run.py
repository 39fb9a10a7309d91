"""Write the folder of a synthetic run: realistic files with invented numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from search.space.spec import SweepSpec
from search.space.sweep_files import load_spec
from tests.synthetic.predictions import Nets, Shape
from tests.synthetic.results import write_cards, write_ledger, write_selection
from tests.synthetic.trials import RunWriter
from trainables.records import RunFolder

RUNGS = (3, 9, 27)


def write_run(
    root: Path,
    *,
    shape: Shape | None = None,
    class_names: Sequence[str] | None = None,
    spec: SweepSpec | None = None,
    seed: int = 0,
) -> RunFolder:
    """Write a run's folder at `root` and return it; the same arguments give the same files."""
    shape = shape or Shape()
    folder = RunFolder(root)
    spec = spec or load_spec("digits").with_values(trials=shape.trials, rungs=RUNGS)
    nets = Nets(shape, np.random.default_rng(seed))
    root.mkdir(parents=True, exist_ok=True)
    folder.sweep.write_text(spec.to_yaml())
    np.savez(folder.labels, val=nets.labels["val"], holdout=nets.labels["holdout"])
    run = RunWriter(nets, folder, spec)
    names = class_names or [str(i) for i in range(shape.classes)]
    run.chain(names)
    if shape.selected:
        write_selection(folder, spec)
    if shape.distilled:
        write_cards(folder, shape, names)
    if shape.ledger:
        write_ledger(folder, nets, single=spec.deliver == "single")
    run.stage("report", "started")
    run.write()
    return folder
