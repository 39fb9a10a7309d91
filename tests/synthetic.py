"""A run's folder without a run: realistic in its files, its figures made up.

Axes: M members, N examples, K classes. All members share each example's difficulty, so that
they err together, as trained nets do.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.files import dump_json, write_array
from common.parsing import to_mapping
from common.statistics.metrics import apply_temperature, fit_temperature
from ensemble.deployment.card import (
    Artifact,
    Card,
    Latency,
    Parity,
    Quantization,
    Speedup,
    TeacherMember,
    write_card,
)
from ensemble.deployment.gates import GateMargins
from ensemble.evaluation.ledger_writer import build_ledger
from ensemble.ledger.ledger import LedgerDataset
from ensemble.ledger.predictions import Predictions, StageCost
from ensemble.selection.decision import select_ensemble
from ensemble.selection.run_pool import pool_from_run
from search.space.space import Space
from search.space.spec import GateSpec, SweepSpec, load_spec
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder, TrialRecord, TrialStart, write_record, write_start

Array = np.ndarray[Any, Any]

RUNGS = (3, 9, 27)
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
STUDENTS = ("student_plain", "student_fp32", "student_int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large, and how far the run has come."""

    classes: int = 10
    train: int = 400
    val: int = 400
    holdout: int = 400
    test: int = 597
    trials: int = 24
    seeds: bool = True
    selected: bool = True
    distilled: bool = True
    ledger: bool = True
    int8_fails: bool = False
    test_reads: int = 1


SMALL = Shape(classes=4, val=60, holdout=200, test=120, trials=12)
"""Enough for most tests."""


class World:
    """Labels, difficulties and the noise that all nets share."""

    def __init__(self, shape: Shape, rng: np.random.Generator) -> None:
        self.shape, self.rng = shape, rng
        self.labels = {
            split: rng.integers(0, shape.classes, getattr(shape, split))
            for split in ("val", "holdout", "test")
        }
        self.shared = {
            split: rng.standard_normal((len(labels), shape.classes))
            for split, labels in self.labels.items()
        }
        # Some pairs of classes look alike.
        self.twin = (np.arange(shape.classes) + 1 + (np.arange(shape.classes) % 3)) % shape.classes

    def logits(self, split: str, *, skill: float, own: float = 0.6) -> Array:
        """Logits [N, K] of a net with this margin for the truth."""
        labels = self.labels[split]
        rows = np.arange(len(labels))
        noise = self.shared[split] + own * self.rng.standard_normal(self.shared[split].shape)
        noise[rows, labels] += skill
        noise[rows, self.twin[labels]] += 0.25 * skill
        return 1.6 * noise


def write_run(
    root: Path,
    *,
    shape: Shape | None = None,
    class_names: Sequence[str] | None = None,
    spec: SweepSpec | None = None,
    seed: int = 0,
) -> RunFolder:
    """Write a run's folder under `root` and return it."""
    shape = shape or Shape()
    folder = RunFolder(root)
    spec = spec or load_spec("digits").with_values(trials=shape.trials, rungs=RUNGS)
    world = World(shape, np.random.default_rng(seed))
    root.mkdir(parents=True, exist_ok=True)
    folder.sweep.write_text(spec.to_yaml())
    np.savez(folder.labels, val=world.labels["val"], holdout=world.labels["holdout"])
    journal = Journal(world, folder, spec)
    names = class_names or [str(i) for i in range(shape.classes)]
    journal.run(names)
    if shape.selected:
        _write_selection(folder, spec)
    if shape.distilled:
        _write_card(folder, shape, names)
    if shape.ledger:
        _write_ledger(folder, world, alone=spec.deliver == "single")
    journal.stage("report", "started")
    folder.journal.write_text("".join(json.dumps(event) + "\n" for event in journal.events))
    return folder


class Journal:
    """Writes the events of a sweep under the ASHA rule, and the folders of its trials."""

    def __init__(self, world: World, folder: RunFolder, spec: SweepSpec) -> None:
        self.world, self.folder, self.spec = world, folder, spec
        self.events: list[dict[str, Any]] = []
        self.time = START
        self.arrived: dict[int, list[float]] = {rung: [] for rung in spec.rungs}
        self.finished: list[tuple[float, str]] = []

    def add(self, event: str, **fields: Any) -> None:
        self.events.append({"time": self.time, "event": event, **fields})

    def stage(self, stage: str, status: str) -> None:
        self.add("stage", stage=stage, status=status, fraction=None, detail="")

    def run(self, class_names: Sequence[str]) -> None:
        shape = self.world.shape
        sizes = {name: getattr(shape, name) for name in ("train", "val", "holdout", "test")}
        self.add(
            "run_started", schema=1, run=self.folder.name, spec=self.spec.to_mapping(),
            split_id=SPLIT_ID, fingerprint=FINGERPRINT, sizes=sizes, machine=MACHINE,
            code_version="0.1.0+8c1f2a90b3d4", class_names=list(class_names),
        )  # fmt: skip
        self.stage("sweep", "started")
        for number in range(shape.trials):
            self.trial(f"t{number:04d}", number, "search")
        self.add("sweep_ended", kind="search", reason="finished", trials=shape.trials)
        self.stage("sweep", "finished")
        if shape.seeds:
            self.stage("seeds", "started")
            for number in range(self.spec.members):
                self.trial(f"s{number:02d}", number, "seed")
            self.add("sweep_ended", kind="seed", reason="finished", trials=self.spec.members)
            self.stage("seeds", "finished")
        for stage, seconds in (("select", 1.3), ("distill", 21.0), ("ledger", 4.2)):
            self.stage(stage, "started")
            self.time += seconds
            self.stage(stage, "finished")

    def trial(self, name: str, number: int, kind: str) -> None:
        rng = np.random.default_rng([number, kind == "seed"])
        recipe = _recipe(self.spec, rng if kind == "search" else np.random.default_rng([9, False]))
        skill = 4.5 if kind == "seed" else 4.8 - 1.8 * rng.beta(1.1, 2.2)
        start = TrialStart(
            trial=name, kind="seed" if kind == "seed" else "search", recipe=recipe, seed=number,
            rungs=self.spec.rungs, data={"name": "digits", "fingerprint": FINGERPRINT},
            split_id=SPLIT_ID, numerics=Numerics(), code_version="0.1.0", machine=MACHINE,
        )  # fmt: skip
        write_start(self.folder.trial(name), start)
        self.add("trial_started", trial=name, number=number, kind=kind,
                 recipe=recipe.to_mapping(), seed=number, attempt=1)  # fmt: skip
        begun = self.time
        status, reason, steps, rung = self.train(name, number, kind, skill, rng)
        whole = rung == self.spec.rungs[-1]
        self.add(
            "trial_ended", trial=name, kind=kind, status=status, reason=reason, traceback=None,
            seconds=self.time - begun, steps=steps, rung=rung, whole_schedule=whole,
        )  # fmt: skip
        if status == "failed":
            return
        for split in ("val", "holdout"):
            logits = self.world.logits(split, skill=skill, own=0.9 if kind == "search" else 0.5)
            write_array(self.folder.trial(name) / f"{split}.npy", log_softmax(logits))
        record = TrialRecord(
            trial=name, kind=start.kind, status="completed" if whole else "pruned", reason=reason,
            split_id=SPLIT_ID, steps=steps, rung=rung, whole_schedule=whole,
            seconds=self.time - begun, peak_memory_bytes=310_000_000,
            params=int(recipe.architecture.width**2 * 9 * recipe.architecture.depth * 7),
        )  # fmt: skip
        write_record(self.folder.trial(name), record)

    def train(
        self, name: str, number: int, kind: str, skill: float, rng: np.random.Generator
    ) -> tuple[str, str, int, int | None]:
        """Report the epochs of a trial: (status, reason, steps, highest rung)."""
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
                self.add(
                    "epoch", trial=name, step=step, epoch=epoch, phase=phase,
                    rung=rung if epoch == rung else None, train_loss=float(nll + 0.2),
                    val_nll=float(nll), val_accuracy=float(np.exp(-0.6 * nll)),
                    temperature=1.1, lr=0.01, seconds=0.11, images_per_second=3600.0,
                    peak_memory_bytes=310_000_000,
                )  # fmt: skip
            scored = rung
            if kind == "search" and self.stops(name, rung, float(nll)):
                return "pruned", f"val_nll at rung {rung} is above the cutoff", step, rung
        self.finished.append((float(nll), name))
        return "completed", "", step, scored

    def stops(self, name: str, rung: int, value: float) -> bool:
        before = [*self.arrived[rung], value]
        self.arrived[rung].append(value)
        cutoff = float(np.percentile(before, 100 / self.spec.reduction_factor))
        stop = rung != self.spec.rungs[-1] and len(before) > 2 and value > cutoff
        self.add("decision", trial=name, rung=rung, value=value,
                 decision="stop" if stop else "continue", cutoff=cutoff)  # fmt: skip
        return stop


class _Draws:
    """Draws from a space with a NumPy generator."""

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


def _write_selection(folder: RunFolder, spec: SweepSpec) -> None:
    selection = select_ensemble(pool_from_run(folder), members=spec.members, seed=spec.seed)
    folder.selection.write_text(dump_json(to_mapping(selection)))


def _write_card(folder: RunFolder, shape: Shape, names: Sequence[str]) -> None:
    spec = load_spec(folder.sweep)
    members = json.loads(folder.selection.read_text())["members"] if shape.selected else []

    def artifact(file: str, size: int, temperature: float, milliseconds: float) -> Artifact:
        latency = Latency(
            ms_batch1=milliseconds, interval=(0.96 * milliseconds, 1.05 * milliseconds),
            images_per_second=14_000 / milliseconds, batch=256, repeats=31, threads=1,
        )  # fmt: skip
        return Artifact(file=file, bytes=size, sha256="ab" * 32, temperature=temperature,
                        latency=latency)  # fmt: skip

    card = Card(
        class_names=tuple(names), image_size=16, split_id=SPLIT_ID, code_version="0.1.0+8c1f",
        dataset={"name": "digits", "fingerprint": FINGERPRINT}, seed=0, params=73_114,
        recipe=spec.student_recipe().to_mapping(), steps=840, train_seconds=19.4,
        alpha=0.9, tau=4.0, teacher_temperature=0.8731,
        teacher=tuple(TeacherMember(**member) for member in members),
        fp32=artifact("model.onnx", 296_412, 1.2143, 0.412),
        int8=artifact("model.int8.onnx", 91_004, 1.2391, 0.281),
        quantization=Quantization(
            method="Entropy", qdq_nodes=58, reduce_range=False,
            holdout_nll={"MinMax": 0.2042, "Entropy": 0.1991, "Percentile": 0.2013},
        ),
        parity=Parity(max_abs=0.4131, mean_abs=0.0013, agreement=0.9975, images=shape.holdout),
        speedup=Speedup(value=1.47, bound=1.39, level=0.95, repeats=31),
        released="fp32" if shape.int8_fails else "int8",
        released_because="accuracy_loss: fail" if shape.int8_fails else "all gates pass",
        machine=MACHINE,
    )  # fmt: skip
    write_card(folder.student, card)
    write_card(
        folder.student / "plain",
        replace(card, alpha=None, tau=None, teacher=(), teacher_temperature=None, int8=None,
                quantization=None, parity=None, speedup=None, released="fp32"),
    )  # fmt: skip


def _write_ledger(folder: RunFolder, world: World, *, alone: bool = False) -> None:
    shape = world.shape
    members = [log_softmax(world.logits("test", skill=4.4)) for _ in range(5)]
    pool = np.log(np.mean(np.exp(members), axis=0))
    stages: dict[str, Array] = {"best_single": members[0]}
    stages["uniform_top_k"] = np.log(np.mean(np.exp(members[:4]), axis=0))
    if shape.seeds:
        seeds = [log_softmax(world.logits("test", skill=4.35, own=0.45)) for _ in range(5)]
        stages["seeds_ensemble"] = np.log(np.mean(np.exp(seeds), axis=0))
    stages["ensemble"] = pool
    if shape.distilled:
        fp32 = world.logits("test", skill=4.35, own=0.4)
        stages["student_plain"] = log_softmax(world.logits("test", skill=4.1, own=0.7))
        stages["student_fp32"] = log_softmax(fp32)
        noise = 1.3 if shape.int8_fails else 0.15
        stages["student_int8"] = log_softmax(fp32 + noise * world.rng.standard_normal(fp32.shape))
    if alone:
        stages = {"best_single": members[0]}
    labels = world.labels["test"]
    stages = {name: _calibrated(value, labels) for name, value in stages.items()}
    folder.ledger.mkdir(exist_ok=True)
    arrays: dict[str, Any] = {"labels": labels, **stages}
    np.savez(folder.ledger / "test_logprobs.npz", **arrays)
    sizes = {name: getattr(shape, name) for name in ("train", "val", "holdout", "test")}
    ledger = build_ledger(
        run=folder.name,
        dataset=LedgerDataset(
            name="digits", fingerprint=FINGERPRINT, split_id=SPLIT_ID, sizes=sizes
        ),
        test=Predictions(labels=labels, stages=stages),
        holdout=Predictions(labels=world.labels["holdout"], stages=_on_holdout(world, stages)),
        costs={stage: _cost(stage) for stage in stages},
        margins=GateMargins(**(asdict(GateSpec()) | {"max_accuracy_loss": 0.03})),
        test_reads=shape.test_reads,
        compute={"search_seconds": 41.2, "seeds_seconds": 21.9, "distill_seconds": 21.0},
        machine=MACHINE,
        speedup=Speedup(value=1.47, bound=1.39, level=0.95, repeats=31),
    )
    (folder.ledger / "ledger.json").write_text(dump_json(to_mapping(ledger)))


def _on_holdout(world: World, stages: Mapping[str, Array]) -> dict[str, Array]:
    fp32 = world.logits("holdout", skill=4.35, own=0.4)
    noise = (1.3 if world.shape.int8_fails else 0.15) * world.rng.standard_normal(fp32.shape)
    pool = [log_softmax(world.logits("holdout", skill=4.4)) for _ in range(5)]
    logits = {"ensemble": np.log(np.mean(np.exp(pool), axis=0)), "student_fp32": fp32,
              "student_int8": fp32 + noise}  # fmt: skip
    labels = world.labels["holdout"]
    return {name: _calibrated(value, labels) for name, value in logits.items() if name in stages}


def _cost(stage: str) -> StageCost:
    params = {"best_single": 166_000, "uniform_top_k": 771_000, "seeds_ensemble": 830_000,
              "ensemble": 742_000}.get(stage, 73_114)  # fmt: skip
    latency = {"best_single": 1.21, "uniform_top_k": 5.62, "seeds_ensemble": 6.04,
               "ensemble": 5.31, "student_int8": 0.281}.get(stage, 0.412)  # fmt: skip
    seconds = {"best_single": 3.6, "uniform_top_k": 18.9, "seeds_ensemble": 21.9,
               "ensemble": 17.2, "student_plain": 9.8}.get(stage, 19.4)  # fmt: skip
    return StageCost(
        params=params, bytes=91_004 if stage == "student_int8" else 4 * params,
        latency_ms_batch1=latency, images_per_second=14_000 / latency, train_seconds=seconds,
    )  # fmt: skip


def _calibrated(logits: Array, labels: Array) -> Array:
    log_probs = log_softmax(logits)
    return apply_temperature(log_probs, fit_temperature(log_probs, labels))


def log_softmax(logits: Array) -> Array:
    """float32 log-probabilities."""
    shifted = logits - logits.max(1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return np.asarray(log_probs, np.float32)
