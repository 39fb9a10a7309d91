"""The values of the report's sections."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from analysis.explain.confusions import confusion_matrix
from analysis.explain.explain_run import (
    attention_trial,
    best_single,
    confused_pairs,
    explained_stage,
)
from analysis.explain.explanations import AttentionWeights, LayerWeights
from analysis.facts.importance import FEWEST, Importance, Importances
from analysis.facts.run_facts import RunFacts, load_facts, with_data
from analysis.facts.trials import ENDINGS, best_by_family, totals_of
from analysis.figures.fonts import lettering
from analysis.report.blocks import Bullets, Figure, Table, Text
from analysis.report.data_section import data_section
from analysis.report.ensemble_section import ensemble_section
from analysis.report.evidence import evidence_of
from analysis.report.explanation_sections import attention_section, confused_section
from analysis.report.forecast_section import forecast_section, unequal_compute_note
from analysis.report.ledger_section import ledger_section
from analysis.report.methods_sections import methods_section, reproduction_section
from analysis.report.prediction_sections import calibration_section, classes_section
from analysis.report.robustness_section import robustness_section
from analysis.report.search_section import search_section
from analysis.report.student_section import student_section
from common.formats import DASH, duration
from common.stage_costs import StageCosts
from ensemble.ledger.robustness import Robustness
from journal.events import PlanMade
from search.space.sections import FamilySpec
from tests.analysis.report.reading import (
    blocks,
    code,
    composed,
    explained,
    pairs,
    prose,
    table,
    with_ledger,
)
from tests.synthetic.ledger_values import made_row
from trainables.data.source_sizes import SourceSizes
from trainables.records import RunFolder


def test_the_ledger_has_a_row_for_every_stage(facts: RunFacts) -> None:
    ledger = facts.ledger
    assert ledger is not None
    rows = table(ledger_section(facts), "stage", "accuracy")
    assert rows.column("accuracy") == tuple(f"{100 * r.accuracy:.1f}" for r in ledger.rows)
    assert rows.column("NLL") == tuple(f"{r.nll:.3f}" for r in ledger.rows)
    differences = table(ledger_section(facts), "a − b", "method")
    assert len(differences.rows) == len(ledger.differences)
    gates = table(ledger_section(facts), "gate", "verdict")
    assert gates.column("verdict") == tuple(gate.verdict for gate in ledger.gates)


def test_robustness_has_a_row_for_every_measured_stage(facts: RunFacts) -> None:
    ledger = facts.ledger
    assert ledger is not None
    assert ledger.robustness is not None
    part = robustness_section(facts, lettering(facts.class_names))
    measured = [row for row in ledger.robustness.rows if row.family == "all"]
    accuracies = table(part, "clean", "ECE")
    assert accuracies.column("all") == tuple(f"{100 * row.accuracy:.1f}" for row in measured)
    assert accuracies.column("NLL") == tuple(f"{row.nll:.3f}" for row in measured)
    sets = table(part, "stage", "coverage")
    assert sets.column("coverage") == tuple(f"{100 * row.coverage:.1f}" for row in ledger.conformal)
    classes = table(part, "class", "coverage")
    assert classes.column("class") == facts.class_names
    others = table(part, "stage", "AUROC")
    assert len(others.rows) == len(ledger.robustness.other_data)


def test_robustness_that_was_not_measured_is_left_out_or_explained(facts: RunFacts) -> None:
    letters = lettering(facts.class_names)
    assert facts.ledger is not None
    early = replace(facts, ledger=replace(facts.ledger, robustness=None, conformal=()))
    assert robustness_section(early, letters) is None
    late = replace(facts, ledger=replace(facts.ledger, robustness=Robustness(left_out="no time")))
    assert "no time" in prose(robustness_section(late, letters))


@pytest.mark.parametrize(
    ("missing", "rows", "chosen", "student"),
    [
        (["seeds_ensemble"], 7, True, True),
        (["student"], 5, True, False),
        (["student", "ledger"], 0, True, False),
        (["student", "ledger", "selection.json"], 0, False, False),
        (["student", "ledger", "selection.json", "trials"], 0, False, False),
    ],
)
def test_missing_parts_are_left_out(
    copied: RunFolder, missing: list[str], rows: int, chosen: bool, student: bool
) -> None:
    _remove(copied, missing)
    facts = load_facts(copied)
    members = len(facts.weights)
    assert bool(members) == chosen
    report = composed(facts)
    tables = [block for block in blocks(report) if isinstance(block, Table)]
    lengths = {block.header[0]: len(block.rows) for block in tables}
    assert sum("ECE (null)" in t.header and "params" in t.header for t in tables) == bool(rows)
    if rows:
        assert len(table(report, "stage", "params").rows) == rows
    assert lengths.get("member", 0) == members
    assert ("file", "size") in {t.header[:2] for t in tables} or not student
    assert len(facts.search_trials) == 12
    if missing == ["seeds_ensemble"]:
        assert "equal compute is missing" in prose(ledger_section(facts))


def test_too_few_trials_are_named_unless_a_budget_decided(facts: RunFacts) -> None:
    spec = facts.spec.with_values(members=50)
    for trials, named in ((12, True), (None, False)):
        plans = (PlanMade(at="sweep", seconds={}, trials=trials),)
        text = prose(search_section(replace(facts, plans=plans, spec=spec)))
        assert ("too few to choose 50 members from" in text) == named


def test_the_search_counts_how_trials_ended(facts: RunFacts) -> None:
    section = search_section(facts)
    rungs = table(section, "rung (epochs)", "promoted")
    assert rungs.column("rung (epochs)") == tuple(map(str, facts.spec.rungs))
    for rung, scored in zip(facts.spec.rungs, rungs.column("scored"), strict=True):
        assert int(scored) == sum(rung in trial.scores for trial in facts.search_trials)
    totals = totals_of(facts.search_trials)
    assert (totals.trials, facts.spec.trials) == (12, 12)
    assert sum(totals.by_ending.values()) == 12
    assert totals.by_ending["pruned"] == sum(map(int, rungs.column("stopped")))
    (counts, *_) = [block for block in blocks(section) if isinstance(block, Text)]
    numbers = [*totals.by_ending.values(), totals.trials, facts.spec.trials, facts.spec.rungs[-1]]
    shown = Counter(map(int, re.findall(r"\b\d+\b", counts.text)))
    assert not Counter(number for number in numbers if number) - shown
    assert f"{totals.epochs:,}" in counts.text
    assert duration(totals.seconds) in counts.text
    (failures,) = [block for block in blocks(section) if isinstance(block, Bullets)]
    failed = [trial for trial in facts.search_trials if trial.status == "failed"]
    assert len(failures.items) == len(failed)
    assert failures.items[0].startswith("t0007 failed: DivergedError")
    best = table(section, "searched value", "best")
    assert facts.best is not None
    active = facts.space.active(facts.best.recipe)
    assert set(best.column("searched value")) == {p.name for p in facts.space.parameters} & set(
        active
    )


def test_schedules_that_were_shortened_are_named(facts: RunFacts) -> None:
    last = facts.spec.rungs[-1]
    assert "shortened" not in prose(search_section(facts))
    late = next(trial for trial in facts.search_trials if trial.ending == "finished")
    epochs = tuple(replace(e, rung=last - 1) if e.rung == last else e for e in late.epochs)
    trials = tuple(
        replace(trial, epochs=epochs) if trial.trial == late.trial else trial
        for trial in facts.search_trials
    )
    told = prose(search_section(replace(facts, trials=trials)))
    assert f"for {late.trial} ({last - 1}) it was shortened to meet the deadline" in told


def test_families_are_compared_at_the_last_rung(facts: RunFacts) -> None:
    trials = tuple(
        replace(trial, recipe={**trial.recipe, "family": ("fast", "slow")[trial.number % 2]})
        for trial in facts.search_trials
    )
    families = {"fast": FamilySpec(), "slow": FamilySpec(), "unused": FamilySpec()}
    spec = replace(facts.spec, families=families)
    shown = table(search_section(replace(facts, spec=spec, trials=trials)), "family")
    assert shown.column("family") == tuple(families)
    assert sum(map(int, shown.column("trials"))) == len(trials)
    last = spec.rungs[-1]
    scores = [trial.scores[last] for trial in trials if last in trial.scores]
    assert sum(map(int, shown.column("finished"))) == len(scores)
    assert f"{min(scores):.4f}" in shown.column("best NLL on val")
    assert shown.column("best NLL on val")[-1] == shown.column("accuracy")[-1] == DASH
    with pytest.raises(ValueError):
        table(search_section(facts), "family")


def test_the_best_trials_of_families_are_compared_on_holdout_in_pairs(facts: RunFacts) -> None:
    trials = tuple(
        replace(trial, recipe={**trial.recipe, "family": ("fast", "slow")[trial.number % 2]})
        for trial in facts.search_trials
    )
    best = best_by_family(trials)
    winner = min(best, key=lambda name: best[name].scores[best[name].rung or 0])
    (other,) = set(best) - {winner}
    labels = np.arange(400) % 4
    good = np.log(np.where(np.eye(4)[labels] > 0, 0.7, 0.1)).astype(np.float32)
    worse = good.copy()
    worse[:40] = np.roll(good[:40], 1, axis=1)  # 40 of 400 images are wrong
    facts = replace(
        facts,
        spec=replace(facts.spec, families={"fast": FamilySpec(), "slow": FamilySpec()}),
        trials=trials,
        holdout_labels=labels,
        family_log_probs={winner: good, other: worse},
    )
    shown = table(search_section(facts), "family")
    rows = dict(zip(shown.column("family"), shown.rows, strict=True))
    *_, accuracy, points, nll = rows[other]
    assert accuracy == "90.0%"
    assert str(points).startswith("−10.0 (−1")
    assert str(nll).startswith("+0.195 (+0.1")
    assert rows[winner][-3:] == ("100.0%", DASH, DASH)
    assert f"Differences from {winner}" in shown.caption
    assert "longer" not in shown.caption


def test_families_whose_epochs_cost_more_are_named(facts: RunFacts) -> None:
    costs = {"fast": StageCosts(), "slow": StageCosts(epochs=(5.97,))}
    families = {name: FamilySpec() for name in costs}
    facts = replace(facts, spec=replace(facts.spec, families=families, resource="compute"))

    def told(**costs: StageCosts) -> str:
        plans = (PlanMade(at="sweep", seconds={}, family_costs=costs),)
        return table(search_section(replace(facts, plans=plans)), "family").caption

    assert "longer than one of the first." in told(fast=StageCosts(), slow=StageCosts())
    assert "except slow (6.0 times as long" in told(**costs)
    assert "longer" not in told()


def test_a_single_trial_is_described_alone(facts: RunFacts) -> None:
    assert facts.best is not None
    single = replace(facts, spec=replace(facts.spec, deliver="single"))
    alone = search_section(replace(single, trials=(facts.best,)))
    score = facts.best.scores[facts.spec.rungs[-1]]
    assert totals_of((facts.best,)).by_ending["finished"] == 1
    assert {str(facts.spec.rungs[-1]), f"{score:.4f}"} <= set(prose(alone).split())
    assert ENDINGS["pruned"] in prose(search_section(facts))
    assert ENDINGS["pruned"] not in prose(alone)
    assert not any(isinstance(b, Table) and "promoted" in b.header for b in blocks(alone))


def test_importance_is_only_estimated_from_enough_trials(facts: RunFacts) -> None:
    assert facts.importances is None
    assert str(FEWEST) in prose(search_section(facts)).split()
    values = (Importance(name="dropout", value=0.5, low=0.3, high=0.7),)
    enough = Importances(values=values, trials=31, rung=3, explained=(0.4, 0.1, 0.6))
    words = set(re.split(r"[ ,;.()]+", prose(search_section(replace(facts, importances=enough)))))
    assert {"31", "40%", "10%", "60%", "dropout"} <= words


def test_the_ensemble_lists_its_members(facts: RunFacts) -> None:
    selection = facts.selection
    assert selection is not None
    section = ensemble_section(facts)
    members = table(section, "member", "weight")
    assert members.column("member") == tuple(m.name for m in selection.members)
    assert members.column("weight") == tuple(f"{100 * m.weight:.1f}%" for m in selection.members)
    assert f"{selection.gap_pool:.2g}" in prose(section)
    scores = table(section, "stage", "ECE")
    assert scores.column("NLL")[0] == f"{selection.metrics.holdout.nll:.4f}"


def test_the_student_lists_its_files_and_recipe(facts: RunFacts) -> None:
    card = facts.card
    assert card is not None
    assert card.int8 is not None
    assert card.quantization is not None
    section = student_section(facts, lettering(facts.class_names))
    files = table(section, "file", "sha256")
    assert files.column("file") == (card.fp32.file, card.int8.file)
    assert files.column("sha256") == (card.fp32.sha256[:12], card.int8.sha256[:12])
    assert f"{card.quantization.qdq_nodes} quantize and dequantize nodes" in prose(section)
    assert pairs(section).keys() == {key for key, value in card.recipe.items() if value != ""}


def test_calibration_compares_the_ece_with_that_of_a_perfect_model(facts: RunFacts) -> None:
    rows = (made_row(ece=0.014, ece_null=0.010), made_row(ece=0.030, ece_null=0.010))
    changed = with_ledger(facts, rows=rows)
    calibration = table(calibration_section(changed), "ECE", "reading")
    assert calibration.column("ECE") == ("0.0140", "0.0300")
    calibrated, other = calibration.column("reading")
    assert "3.0 times" in other
    assert "times" not in calibrated


def test_the_weakest_class_is_named(facts: RunFacts) -> None:
    labels, log_probs = facts.test_labels, facts.test_log_probs["ensemble"]
    assert labels is not None
    correct = log_probs.argmax(axis=1) == labels
    shares = [correct[labels == c].mean() for c in range(4)]
    text = prose(classes_section(facts, lettering(facts.class_names)))
    assert f"“{np.argmin(shares)}”, with {100 * min(shares):.1f}%" in text.splitlines()[0]


def test_forecast_is_compared_with_actual_times(facts: RunFacts) -> None:
    assert forecast_section(facts) is None, "old journals have no forecast"
    seconds = {"sweep": 2 * facts.stage_seconds["sweep"], "select": 1.3, "report": 9.0}
    plan = PlanMade(at="sweep", rungs=(3, 9, 27), seeds=5, student_epochs=60, workers=2,
                    epoch_seconds=0.11, seconds=seconds, deadline=facts.started_at + 600,
                    time=0)  # fmt: skip
    revised = replace(plan, at="seeds", rungs=(3, 9, 20), seeds=3)
    changed = replace(facts, plans=(plan, revised))
    section = forecast_section(changed)
    times = table(section, "stage", "forecast", "actual")
    assert times.column("stage") == ("sweep", "select", "total")
    assert times.column("actual / forecast")[:2] == ("0.50", "1.00")
    assert "before the deadline" in prose(section)
    note, evidence = unequal_compute_note(changed), evidence_of(changed)
    assert evidence is not None
    assert not evidence.equal_compute
    assert re.findall(r"\d+", note) == ["20", "27"], "epochs of the seeds, and of the schedule"
    assert note in prose(ledger_section(changed))
    assert unequal_compute_note(facts) == ""


def test_confused_pairs_have_rates_and_intervals(facts: RunFacts) -> None:
    first, *others = confused_pairs(facts)
    labels = facts.test_labels
    assert labels is not None
    matrix = confusion_matrix(facts.test_log_probs["ensemble"], labels, 4)
    assert first.errors == (matrix - np.diag(np.diag(matrix))).max() >= 2
    assert len(others) <= 5
    section = confused_section(facts, explained(facts), lettering(facts.class_names))
    rows = table(section, "truth → prediction", "errors", "above chance")
    assert len(rows.rows) == 1 + len(others)
    assert rows.rows[0][:3] == (
        f"{first.truth} → {first.predicted}", str(first.errors), str(first.images)
    )  # fmt: skip
    low, high = 100 * first.interval.low, 100 * first.interval.high
    assert rows.column("95% interval")[0] == f"{low:.1f}–{high:.1f}%"
    assert f"{int(matrix.sum() - matrix.trace())} of 120 test images" in prose(section)


def test_confusions_that_occur_once_are_no_pattern(facts: RunFacts) -> None:
    labels = facts.test_labels
    assert labels is not None
    log_probs = np.log(np.full((120, 4), 0.1) + 0.6 * np.eye(4)[labels])
    log_probs[0] = np.roll(log_probs[0], 1)
    once = replace(facts, test_log_probs={"best_single": log_probs})
    section = confused_section(once, explained(once), lettering(facts.class_names))
    assert not any(isinstance(block, Table | Figure) for block in blocks(section))
    assert "1 of 120 test images" in prose(section)


def test_the_selection_names_the_network_to_explain(facts: RunFacts) -> None:
    assert facts.selection is not None
    assert explained_stage(facts) == "ensemble"
    assert best_single(facts) == facts.selection.best_single.name
    single = replace(facts, test_log_probs={"best_single": facts.test_log_probs["best_single"]})
    assert explained_stage(single) == "best_single"
    assert explained_stage(replace(facts, test_log_probs={})) is None
    assert best_single(replace(facts, selection=None)) is None


def test_attention_weights_are_shown_for_a_network_that_has_attention(facts: RunFacts) -> None:
    layer = LayerWeights(block="block 1", side=None, mean=np.full(4, 0.5), spread=np.zeros(4),
                         class_means=np.full((3, 4), 0.5))  # fmt: skip
    weights = AttentionWeights(trial="t0002", kind="se", images=6, layers=(layer,))
    squeezed = tuple(replace(t, recipe={**t.recipe, "attention": "se"}) for t in facts.trials)
    with_attention = replace(facts, trials=squeezed)
    assert attention_trial(with_attention) == (best_single(facts), "se")
    shown = attention_section(with_attention, replace(explained(facts), attention=weights))
    assert "SE attention" in prose(shown)
    captions = [block.caption for block in blocks(shown) if isinstance(block, Figure)]
    assert "t0002 over 6 val images" in captions[0]
    missing = replace(explained(facts), attention=None, attention_missing="weights are gone")
    assert "weights are gone" in prose(attention_section(with_attention, missing))


def test_without_attention_there_is_no_section_on_it(facts: RunFacts) -> None:
    plain = tuple(replace(t, recipe={**t.recipe, "attention": "none"}) for t in facts.trials)
    without = replace(facts, trials=plain)
    assert attention_trial(without) is None
    assert attention_section(without, explained(without)) is None


def test_the_data_card_counts_images_and_identifies_the_split(facts: RunFacts) -> None:
    originals = SourceSizes.from_counts({(640, 480, "RGB"): 3, (96, 64, "L"): 1})
    changed = replace(facts, data=replace(facts.data, source_sizes=originals))
    section = data_section(changed, lettering(facts.class_names))
    splits = table(section, "split", "images")
    assert dict(zip(splits.column("split"), splits.column("images"), strict=True)) == {
        name: str(size) for name, size in facts.sizes.items()
    }
    card = pairs(section)
    assert facts.started is not None
    assert card["fingerprint"] == facts.started.fingerprint
    assert card["split"] == facts.started.split_id
    assert card["originals"].startswith("from 96×64 to 640×480 pixels")


def test_other_images_are_refused_with_a_note(facts: RunFacts) -> None:
    changed, _ = with_data(facts, None)
    assert "fingerprint" in changed.data.missing
    assert set(changed.data.counts) == {"val", "holdout", "test"}
    note = prose(data_section(changed, lettering(facts.class_names)))
    assert changed.data.missing in note


def test_test_time_augmentation_is_explained_where_used(facts: RunFacts) -> None:
    assert "views" not in pairs(methods_section(facts))
    trials = tuple(replace(t, recipe={**t.recipe, "tta": "mirror"}) for t in facts.trials)
    views = pairs(methods_section(replace(facts, trials=trials)))["views"]
    assert views.startswith("All trials")
    assert "mirror image" in views
    some = (*trials[:-1], facts.trials[-1])
    assert pairs(methods_section(replace(facts, trials=some)))["views"].startswith("Some trials")


def test_the_original_command_is_listed(facts: RunFacts) -> None:
    command = "quorum run digits --time-budget 10m"
    section = reproduction_section(replace(facts, command=command))
    assert command in code(section)
    assert command not in code(reproduction_section(facts))
    assert pairs(section)["cores"] == "2"
    hidden = replace(facts, spec=facts.spec.with_values(pictures=False))
    default, elsewhere = replace(facts, runs="runs"), replace(hidden, runs="path/to/my runs")
    assert "quorum report runs/whole" in code(reproduction_section(default))
    assert "quorum report 'path/to/my runs/whole' --no-images" in code(
        reproduction_section(elsewhere)
    )


def _remove(folder: RunFolder, parts: list[str]) -> None:
    """Remove files, folders, and the ledger's stages whose names begin like a part."""
    for part in parts:
        path = folder.root / part
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
    path = folder.ledger / "ledger.json"
    if not path.is_file():
        return
    ledger = json.loads(path.read_text())
    gone = tuple(parts)
    ledger["rows"] = [row for row in ledger["rows"] if not row["stage"].startswith(gone)]
    ledger["differences"] = [
        item for item in ledger["differences"] if parts[0] not in item["a"] + " " + item["b"]
    ]
    ledger["gates"] = [] if "student" in parts else ledger["gates"]
    path.write_text(json.dumps(ledger))
