"""The journal and the trial folders of a synthetic run."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from common.files import write_array
from journal.events import (
    EpochEnded,
    Event,
    Kind,
    RungDecided,
    RunStarted,
    StageReported,
    Status,
    SweepEnded,
    TrialEnded,
    TrialStarted,
    encode,
)
from search.space.space import Space
from search.space.spec import SweepSpec
from tests.synthetic.predictions import Nets, log_softmax
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder, TrialRecord, TrialStart, write_record, write_start

START = 1_790_000_000.1234567
MACHINE = {
    "processor": "Example(R) Processor 9000 CPU @ 2.00GHz",
    "cores": 2,
    "memory_gib": 7.8,
    "system": "Linux x86_64",
    "python": "3.11.9",
    "cpu_flags": ["avx2", "avx512_vnni", "avx512f"],
}
FINGERPRINT = "sha256:7f3a9c0e51d2b84660aa"
SPLIT_ID = "b2c4d9e07f11"


class RunWriter:
    """Collect the events of a run under the ASHA rule, and write the folders of its trials."""

    def __init__(self, nets: Nets, folder: RunFolder, spec: SweepSpec) -> None:
        self.nets, self.folder, self.spec = nets, folder, spec
        self.events: list[Event] = []
        self.time = START
        self.arrived: dict[int, list[float]] = {rung: [] for rung in spec.rungs}

    def write(self) -> None:
        """Write the events to the run's journal."""
        lines = [json.dumps(encode(event)) + "\n" for event in self.events]
        self.folder.journal.write_text("".join(lines))

    def add(self, event: Event) -> None:
        """Add an event at the current simulated time."""
        self.events.append(replace(event, time=self.time))

    def stage(self, stage: str, status: Literal["started", "finished"]) -> None:
        """Add the start or end of a stage."""
        self.add(StageReported(stage=stage, status=status))

    def chain(self, class_names: Sequence[str]) -> None:
        """Add a whole run: search, seeds, and the stages after them."""
        shape = self.nets.shape
        self.add(RunStarted(
            run=self.folder.name, spec=self.spec.to_mapping(), split_id=SPLIT_ID,
            fingerprint=FINGERPRINT, sizes=shape.sizes, machine=MACHINE,
            code_version="0.1.0+8c1f2a90b3d4", class_names=tuple(class_names),
        ))  # fmt: skip
        self.stage("sweep", "started")
        for number in range(shape.trials):
            self.trial(f"t{number:04d}", number, "search")
        self.add(SweepEnded(kind="search", reason="finished", trials=shape.trials))
        self.stage("sweep", "finished")
        if shape.seeds:
            self.stage("seeds", "started")
            for number in range(self.spec.members):
                self.trial(f"s{number:02d}", number, "seed")
            self.add(SweepEnded(kind="seed", reason="finished", trials=self.spec.members))
            self.stage("seeds", "finished")
        for stage, seconds in (("select", 1.3), ("distill", 21.0), ("ledger", 4.2)):
            self.stage(stage, "started")
            self.time += seconds
            self.stage(stage, "finished")

    def trial(self, name: str, number: int, kind: Kind) -> None:
        """Add a trial from start to end, and write its folder."""
        rng = np.random.default_rng([number, kind == "seed"])
        recipe = _recipe(self.spec, rng if kind == "search" else np.random.default_rng([9, False]))
        skill = 4.5 if kind == "seed" else 4.8 - 1.8 * rng.beta(1.1, 2.2)
        start = TrialStart(
            trial=name, kind=kind, recipe=recipe, seed=number,
            rungs=self.spec.rungs, data={"name": "digits", "fingerprint": FINGERPRINT},
            split_id=SPLIT_ID, numerics=Numerics(), code_version="0.1.0", machine=MACHINE,
        )  # fmt: skip
        write_start(self.folder.trial(name), start)
        self.add(TrialStarted(trial=name, number=number, kind=kind,
                              recipe=recipe.to_mapping(), seed=number, attempt=1))  # fmt: skip
        begun = self.time
        status, reason, steps, rung = self.train(name, number, kind, skill, rng)
        whole = rung == self.spec.rungs[-1]
        self.add(TrialEnded(
            trial=name, kind=kind, status=status, reason=reason,
            seconds=self.time - begun, steps=steps, rung=rung, whole_schedule=whole,
        ))  # fmt: skip
        if status == "failed":
            return
        for split in ("val", "holdout"):
            logits = self.nets.logits(
                split, skill=skill, own_noise=0.9 if kind == "search" else 0.5
            )
            write_array(self.folder.trial(name) / f"{split}.npy", log_softmax(logits))
        record = TrialRecord(
            trial=name, kind=start.kind, status="completed" if whole else "pruned", reason=reason,
            split_id=SPLIT_ID, steps=steps, rung=rung, whole_schedule=whole,
            seconds=self.time - begun, peak_memory_bytes=310_000_000,
            params=int(recipe.architecture.width**2 * 9 * recipe.architecture.depth * 7),
        )  # fmt: skip
        write_record(self.folder.trial(name), record)

    def train(
        self, name: str, number: int, kind: Kind, skill: float, rng: np.random.Generator
    ) -> tuple[Status, str, int, int | None]:
        """Add the epochs of a trial; return status, reason, steps and highest rung."""
        floor = 1.9 * np.exp(-0.72 * (skill - 2.0))
        step, trunk, scored = 0, 0, None
        for rung in self.spec.rungs:
            begin = rung - max(1, int(np.ceil(0.34 * rung)))
            plan = [("trunk", epoch) for epoch in range(trunk + 1, begin + 1)]
            plan += [("cooldown", epoch) for epoch in range(begin + 1, rung + 1)]
            trunk = begin
            for phase, epoch in plan:
                step += 1
                self.time += 0.11
                if kind == "search" and number == 7 and step == 12:
                    return "failed", "DivergedError: the loss is nan at epoch 6", step, scored
                gain = 0.75 if phase == "cooldown" else 1.0
                nll = gain * (floor + 1.9 * np.exp(-epoch / (2.5 + floor)))
                nll *= 1 + 0.05 * rng.standard_normal()
                self.add(EpochEnded(
                    trial=name, step=step, epoch=epoch, phase=phase,
                    rung=rung if epoch == rung else None, train_loss=float(nll + 0.2),
                    val_nll=float(nll), val_accuracy=float(np.exp(-0.6 * nll)),
                    temperature=1.1, lr=0.01, seconds=0.11, images_per_second=3600.0,
                    peak_memory_bytes=310_000_000,
                ))  # fmt: skip
            scored = rung
            if kind == "search" and self.stops(name, rung, float(nll)):
                return "pruned", f"val_nll at rung {rung} is above the cutoff", step, rung
        return "completed", "", step, scored

    def stops(self, name: str, rung: int, value: float) -> bool:
        """Add the scheduler's decision on a score; return whether the trial stops."""
        if rung == self.spec.rungs[-1]:
            return False
        self.arrived[rung].append(value)
        cutoff = float(np.percentile(self.arrived[rung], 100 / self.spec.reduction_factor))
        stop = len(self.arrived[rung]) > 2 and value > cutoff
        self.add(RungDecided(
            trial=name, rung=rung, value=value, cutoff=cutoff,
            decision="stop" if stop else "continue", reason="above_cutoff" if stop else "promoted",
        ))  # fmt: skip
        return stop


class _Draws:
    """Draw from a search space with a NumPy generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None,
                      log: bool = False) -> float:  # fmt: skip
        if log:
            return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))
        return float(self.rng.uniform(low, high))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1,
                    log: bool = False) -> int:  # fmt: skip
        return int(self.rng.choice(np.arange(low, high + 1, step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[int(self.rng.integers(len(choices)))]


def _recipe(spec: SweepSpec, rng: np.random.Generator) -> Recipe:
    base = spec.base_recipe()
    return base.with_values(**Space.from_mapping(spec.space, base=base).suggest(_Draws(rng)))
