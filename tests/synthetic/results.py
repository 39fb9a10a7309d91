"""Selection, student cards and ledger of a synthetic run.

Axes: N examples, K classes.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from common.files import dump_json
from common.parsing import to_mapping
from common.statistics.conformal import fit_conformal
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
from ensemble.deployment.release import decide_release
from ensemble.evaluation.ledger_writer import build_ledger
from ensemble.evaluation.robustness import coverage_row
from ensemble.ledger.ledger import LedgerDataset
from ensemble.ledger.predictions import Predictions, StageCost
from ensemble.ledger.robustness import Robustness
from ensemble.robustness.other_data import other_data_rows
from ensemble.robustness.sample import draw_sample
from ensemble.robustness.table import corrupted_differences, corrupted_rows
from ensemble.selection.candidates import Request
from ensemble.selection.decision import select_ensemble
from ensemble.selection.front import TrialCost, with_front
from ensemble.selection.run_pool import pool_from_run
from search.space.sections import GateSpec
from search.space.spec import SweepSpec
from search.space.sweep_files import load_spec
from tests.synthetic.predictions import Nets, Shape, log_softmax, mean_probability
from tests.synthetic.trials import FINGERPRINT, MACHINE, SPLIT_ID
from trainables.records import RunFolder

Array = np.ndarray[Any, Any]


def write_selection(folder: RunFolder, spec: SweepSpec) -> None:
    """Select an ensemble from the trials and write selection.json."""
    pool = pool_from_run(folder)
    costs = {
        name: TrialCost(params=1000 * i, gflops=0.01 * i, bytes=4000 * i, latency_ms=0.1 * i)
        for i, name in enumerate(pool.names, start=1)
    }
    selection = select_ensemble(pool, Request(members=spec.members), seed=spec.seed)
    selection = with_front(selection, pool, costs, {})
    folder.selection.write_text(dump_json(to_mapping(selection)))


def write_cards(folder: RunFolder, shape: Shape, names: Sequence[str]) -> None:
    """Write the cards of the student and of the plain student, trained without a teacher."""
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
        teacher=tuple(TeacherMember(name=m["name"], weight=m["weight"]) for m in members),
        fp32=artifact("model.onnx", 296_412, 1.2143, 0.412),
        int8=artifact("model.int8.onnx", 91_004, 1.2391, 0.281),
        quantization=Quantization(
            method="Entropy", qdq_nodes=58, reduce_range=False,
            holdout_nll={"MinMax": 0.2042, "Entropy": 0.1991, "Percentile": 0.2013},
        ),
        parity=Parity(max_abs=0.4131, mean_abs=0.0013, agreement=0.9975, images=shape.holdout),
        speedup=Speedup(value=1.47, bound=1.39, level=0.95, repeats=31),
        released="none", machine=MACHINE,
    )  # fmt: skip
    write_card(folder.student, card)
    untaught = replace(card, alpha=None, tau=None, teacher=(), teacher_temperature=None)
    plain = replace(untaught, int8=None, quantization=None, parity=None, speedup=None)
    write_card(folder.student / "plain", plain)
    single = replace(
        untaught, params=166_000, steps=None,
        fp32=artifact("model.onnx", 664_000, 1.19, 1.21),
        int8=artifact("model.int8.onnx", 204_000, 1.2, 0.81),
    )  # fmt: skip
    write_card(folder.student / "single", single)


def write_ledger(folder: RunFolder, nets: Nets, *, single: bool = False) -> None:
    """Write test predictions and ledger.json; `single` writes only the best single network."""
    shape = nets.shape
    test = _test_stages(nets)
    if single:
        test = {"best_single": test["best_single"]}
    test = {stage: nets.calibrated("test", values) for stage, values in test.items()}
    labels = nets.labels["test"]
    folder.ledger.mkdir(exist_ok=True)
    arrays: dict[str, Any] = {"labels": labels, **test}
    np.savez(folder.ledger / "test_logprobs.npz", **arrays)
    holdout = {name: v for name, v in _holdout_stages(nets).items() if name in test}
    decision = None
    if shape.distilled and not single:
        margins = asdict(GateSpec()) | {"max_accuracy_loss": 0.03, "max_nll_gain": 0.02}
        made = Predictions(labels=nets.labels["holdout"], stages=holdout)
        decision = decide_release(folder.student, made, GateMargins(**margins), seed=0).decision
    ledger = build_ledger(
        run=folder.name,
        dataset=LedgerDataset(
            name="digits", fingerprint=FINGERPRINT, split_id=SPLIT_ID, sizes=shape.sizes
        ),
        test=Predictions(labels=labels, stages=test),
        costs={stage: _cost(stage) for stage in test},
        decision=decision,
        test_reads=shape.test_reads,
        compute={"search_seconds": 41.2, "seeds_seconds": 21.9, "distill_seconds": 21.0},
        machine=MACHINE,
        robustness=_robustness(test, labels, corrupted_holdout=0 if decision is None else 60),
        conformal=tuple(
            coverage_row(
                stage,
                fit_conformal(np.exp(values), nets.labels["holdout"], level=0.95),
                test[stage],
                labels,
                classes=shape.classes,
            )
            for stage, values in holdout.items()
        ),
    )
    (folder.ledger / "ledger.json").write_text(dump_json(to_mapping(ledger)))


def _robustness(test: dict[str, Array], labels: Array, *, corrupted_holdout: int) -> Robustness:
    """Return made figures: corrupted images have flatter probabilities and some wrong labels."""
    sample = draw_sample(np.arange(len(labels)), labels, 120)
    rng = np.random.default_rng(7)
    noise = rng.normal(size=(len(sample), next(iter(test.values())).shape[1]))
    clean = {stage: values[sample.rows] for stage, values in test.items()}
    changed = {stage: log_softmax(0.5 * values + noise) for stage, values in clean.items()}
    corrupted = Predictions(labels=labels[sample.rows], stages=changed)
    before = Predictions(labels=labels[sample.rows], stages=clean)
    return Robustness(
        images=len(sample),
        holdout_images=corrupted_holdout,
        rows=corrupted_rows(corrupted, before, sample.families, seed=0),
        differences=corrupted_differences(corrupted, seed=0),
        other_data=other_data_rows("textures", test, changed),
    )


def _test_stages(nets: Nets) -> dict[str, Array]:
    """Return the stages' logits or log-probabilities [N, K] on test."""
    members = nets.pool("test", 5, skill=4.4)
    stages = {"best_single": members[0], "uniform_top_k": mean_probability(members[:4])}
    if nets.shape.seeds:
        seeds = nets.pool("test", 5, skill=4.35, own_noise=0.45)
        stages["seeds_ensemble"] = mean_probability(seeds)
    stages["ensemble"] = mean_probability(members)
    if nets.shape.distilled:
        stages["best_single_int8"] = nets.quantized(members[0])
        fp32 = nets.logits("test", skill=4.35, own_noise=0.4)
        stages["student_plain"] = nets.logits("test", skill=4.1, own_noise=0.7)
        stages["student_fp32"] = fp32
        stages["student_int8"] = nets.quantized(fp32)
    return stages


def _holdout_stages(nets: Nets) -> dict[str, Array]:
    """Return log-probabilities [N, K] on holdout of the stages that gates compare."""
    fp32 = nets.logits("holdout", skill=4.35, own_noise=0.4)
    int8 = nets.quantized(fp32)
    members = nets.pool("holdout", 5, skill=4.4)
    stages = {
        "best_single": members[0], "best_single_int8": nets.quantized(members[0]),
        "ensemble": mean_probability(members), "student_fp32": fp32, "student_int8": int8,
    }  # fmt: skip
    return {stage: nets.calibrated("holdout", values) for stage, values in stages.items()}


def _cost(stage: str) -> StageCost:
    params = {"best_single": 166_000, "best_single_int8": 166_000,
              "uniform_top_k": 771_000, "seeds_ensemble": 830_000, "ensemble": 742_000,
              }.get(stage, 73_114)  # fmt: skip
    latency = {"best_single": 1.21, "best_single_int8": 0.81, "uniform_top_k": 5.62,
               "seeds_ensemble": 6.04, "ensemble": 5.31, "student_int8": 0.281,
               }.get(stage, 0.412)  # fmt: skip
    seconds = {"best_single": 3.6, "uniform_top_k": 18.9, "seeds_ensemble": 21.9,
               "ensemble": 17.2, "student_plain": 9.8}.get(stage, 19.4)  # fmt: skip
    small = {"student_int8": 91_004, "best_single_int8": 204_000}
    return StageCost(
        params=params, bytes=small.get(stage, 4 * params),
        latency_ms_batch1=latency, images_per_second=14_000 / latency, train_seconds=seconds,
    )  # fmt: skip
