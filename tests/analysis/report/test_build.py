"""The report: whatever the run's state, whatever the names, and always the same bytes."""

import io
import json
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typst
from PIL import Image

from analysis.explain.confusions import confusion_matrix
from analysis.explain.explain_run import (
    attention_trial,
    best_single,
    confused_pairs,
    explain_run,
    explained_stage,
)
from analysis.explain.explanations import AttentionWeights, Explanations, LayerWeights
from analysis.facts.run_facts import RunFacts, load_facts, with_data
from analysis.figures.fonts import lettering
from analysis.report.build import TEMPLATE, build_report, report_content
from analysis.report.plan_sections import forecast_section, seeds_note
from analysis.report.search_sections import search_section
from analysis.report.summary import key_figures, summary
from common.errors import RunError
from quorum import Outcome
from quorum.workspace.cleaning import clean
from search.space.spec import load_spec
from tests.synthetic.predictions import SMALL, Shape
from tests.synthetic.run import write_run
from trainables.data.source_sizes import SourceSizes
from trainables.records import RunFolder

HOSTILE = (
    "*bold* _it_ #let x = 1",
    '"quote" \\ back $x^2$',
    "<label> @ref [x] // comment",
    "猫 日本語",
)


def content(
    facts: RunFacts,
    explanations: Explanations | None = None,
    drawn: Sequence[str] = (),
) -> dict[str, Any]:
    explanations = explanations or explain_run(facts, RunFolder("."), None)
    return report_content(facts, explanations, lettering(facts.class_names), list(drawn))


def words(document: object) -> str:
    """All texts of a report, one after another."""
    if isinstance(document, dict):
        return " ".join(words(value) for value in document.values())
    if isinstance(document, list | tuple):
        return " ".join(words(value) for value in document)
    return str(document)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("runs") / "whole", shape=SMALL)


@pytest.fixture
def copied(whole: RunFolder, tmp_path: Path) -> RunFolder:
    """The whole run, to be damaged."""
    shutil.copytree(whole.root, tmp_path / "copied")
    return RunFolder(tmp_path / "copied")


@pytest.fixture(scope="module")
def facts(whole: RunFolder) -> RunFacts:
    return load_facts(whole)


@pytest.mark.slow
def test_a_whole_run_gives_the_same_pdf_twice(whole: RunFolder) -> None:
    first = build_report(whole).read_bytes()
    with whole.journal.open("a") as journal:
        event = {"time": 2e9, "event": "stage", "stage": "report", "status": "finished"}
        journal.write(json.dumps(event) + "\n")
    assert build_report(whole).read_bytes() == first
    assert first.startswith(b"%PDF-")
    assert len(first) > 100_000


def test_the_content_tells_what_the_files_say(facts: RunFacts) -> None:
    text = words(content(facts))
    ledger, selection = facts.ledger or {}, facts.selection or {}
    for row in ledger["rows"]:
        assert f"{100 * row['accuracy']:.1f}" in text
    assert all(str(member["name"]) in text for member in selection["members"])
    assert f"{selection['gap_pool']:.2g} nats" in text or f"{selection['gap_pool']:.2g}" in text
    assert facts.card is not None
    assert facts.card.quantization is not None
    assert f"{facts.card.quantization.qdq_nodes} quantize and dequantize nodes" in text
    assert facts.started["fingerprint"] in text
    assert facts.started["split_id"] in text
    assert "12 trials of 12 planned" in text
    assert "t0007 failed: DivergedError" in text
    assert "Test has been read once" in text
    assert str(Path.cwd()) not in text, "no path of this machine"


@pytest.mark.parametrize(
    ("lost", "sentence"),
    [
        (["seeds_ensemble"], "There is no seeds ensemble"),
        (["student"], "There is no student yet, so there is nothing to ship"),
        (["student", "ledger"], "This run has not reached its ledger"),
        (["student", "ledger", "selection.json"], "No ensemble has been chosen yet"),
        (["student", "ledger", "selection.json", "trials"], "12 trials of 12 planned"),
    ],
)
def test_what_is_missing_is_said_not_made_up(
    copied: RunFolder, lost: list[str], sentence: str
) -> None:
    _lose(copied, lost)
    document = content(load_facts(copied))
    assert sentence in words(document)
    assert _compiled(document).startswith(b"%PDF-")


def test_a_test_set_read_twice_is_said(facts: RunFacts) -> None:
    again = _with_ledger(facts, {**(facts.ledger or {}), "test_reads": 2})
    assert "Test has been read 2 times in this run" in summary(again)[-1]


def test_a_run_that_has_only_its_specification(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "bare")
    folder.root.mkdir()
    folder.sweep.write_text(load_spec("digits").to_yaml())
    path = build_report(folder)
    assert path.read_bytes().startswith(b"%PDF-")
    assert "No trial of this run has been scored yet" in summary(load_facts(folder))[0]
    assert list(folder.figures.iterdir()) == []


def test_hostile_names_are_shown_as_they_are(tmp_path: Path) -> None:
    spec = load_spec("digits").with_values(description='#panic("no") $ \\ "', trials=12)
    folder = write_run(tmp_path / "#odd *name*", shape=SMALL, class_names=HOSTILE, spec=spec)
    found = load_facts(folder)
    assert found.class_names == HOSTILE
    document = content(found)
    assert document["title"] == "#odd *name*"
    assert HOSTILE[0] in words(document)
    assert _compiled(document).startswith(b"%PDF-")


def test_ships_int8_only_if_every_gate_passes(facts: RunFacts) -> None:
    ledger = dict(facts.ledger or {})
    for verdicts, stage in (
        (["pass", "pass"], "student int8"),
        (["pass", "undecided"], "student fp32"),
        (["fail", "pass"], "student fp32"),
        ([], "student fp32"),
    ):
        ledger["gates"] = [
            {"name": "speedup", "value": 1.0, "bound": 1.0, "limit": 1.0, "verdict": verdict}
            for verdict in verdicts
        ]
        changed = _with_ledger(facts, ledger)
        assert key_figures(changed)[0]["value"] == stage
        assert f"The {stage} names the right class" in summary(changed)[0]


def test_an_ensemble_of_seeds_is_not_compared_with_itself(facts: RunFacts) -> None:
    chosen = replace(facts, selection={**(facts.selection or {}), "source": "seeds"})
    searched = replace(facts, selection={**(facts.selection or {}), "source": "search"})
    assert "The ensemble is the seeds of the best configuration" in summary(chosen)[-1]
    assert "the rival at equal cost" not in " ".join(summary(chosen))
    assert "seeds of the best configuration (" in " ".join(summary(searched))


def test_the_summary_claims_no_gain_that_is_not_there(facts: RunFacts) -> None:
    ledger = dict(facts.ledger or {})
    ledger["differences"] = [
        {"a": a, "b": b, "metric": "accuracy", "value": 0.01, "interval": [-0.01, 0.03],
         "method": "mcnemar-exact"}
        for a, b in (("ensemble", "best_single"), ("student_fp32", "student_plain"))
    ]  # fmt: skip
    text = " ".join(summary(_with_ledger(facts, ledger)))
    assert "Distillation bought nothing that this test could show in accuracy" in text
    assert "The ensemble is not distinguishable from the best single trial" in text
    assert "better" not in text


def test_every_metric_has_its_own_verdict(facts: RunFacts) -> None:
    ledger = dict(facts.ledger or {})
    ledger["differences"] = [
        {"a": "student_fp32", "b": "student_plain", "metric": metric, "value": value,
         "interval": interval, "method": "paired-bootstrap"}
        for metric, value, interval in (
            ("accuracy", 0.0, [-0.01, 0.01]), ("nll", -0.1, [-0.2, -0.05])
        )
    ]  # fmt: skip
    text = " ".join(summary(_with_ledger(facts, ledger)))
    assert "Distillation paid in NLL, and bought nothing that this test could show in acc" in text
    assert "better in NLL (−0.1000, 95% interval −0.2000 to −0.0500)" in text


def test_the_search_is_told_by_how_many_there_were(facts: RunFacts) -> None:
    assert facts.best is not None
    several = str(search_section(facts, ()))
    assert "and only these may join the ensemble" in several
    single = replace(facts, spec=replace(facts.spec, deliver="single"))
    assert "and only these may be delivered" in str(search_section(single, ()))
    one = search_section(replace(single, trials=(facts.best,)), ())
    told = one["blocks"][0]["text"]
    score = facts.best.scores[facts.spec.rungs[-1]]
    assert f"It finished the whole schedule of {facts.spec.rungs[-1]} epochs" in told
    assert f"an NLL of {score:.4f} on val" in told
    assert "stopped at a rung" not in told


def test_forecast_is_held_against_what_happened(facts: RunFacts) -> None:
    assert forecast_section(facts) is None, "old journals have none"
    seconds = {"sweep": 2 * facts.stage_seconds["sweep"], "select": 1.3, "report": 9.0}
    plan = {"at": "sweep", "rungs": [3, 9, 27], "trials": None, "seeds": 5, "student_epochs": 60,
            "workers": 2, "epoch_seconds": 0.11, "seconds": seconds,
            "deadline": facts.started_at + 600}  # fmt: skip
    revised = {**plan, "at": "seeds", "rungs": [3, 9, 20], "seeds": 3}
    changed = replace(facts, plans=(plan, revised))
    block = forecast_section(changed)
    assert block is not None
    (table,) = [part for part in block["blocks"] if part["kind"] == "table"]
    assert [row[0] for row in table["rows"]] == ["sweep", "select", "together"]
    assert [row[3] for row in table["rows"][:2]] == ["0.50", "1.00"]
    assert "before the deadline" in words(block)
    assert "schedules of 20 instead of 27 epochs" in seeds_note(changed)
    assert "schedules of 20" in words(content(changed))


def test_the_command_is_quoted_as_it_was_given(facts: RunFacts) -> None:
    asked = "quorum run digits --time-budget 10m"
    assert asked in words(content(replace(facts, command=asked)))
    assert "as it was asked for" not in words(content(replace(facts, command="")))


def test_paths_of_the_machine_stay_out_of_the_commands(facts: RunFacts) -> None:
    dataset = replace(facts.spec.dataset, name="parquet", path="/home/someone/my data/cifar10-jpeg")
    text = words(content(replace(facts, spec=facts.spec.with_values(dataset=dataset))))
    assert "--data path/to/cifar10-jpeg" in text
    assert "someone" not in text


def test_other_images_are_refused_and_said(facts: RunFacts, whole: RunFolder) -> None:
    changed, _ = with_data(facts, None)
    assert "the images of digits have the fingerprint" in changed.data.missing
    assert set(changed.data.counts) == {"val", "holdout", "test"}
    assert "The images were not at hand for this report" in words(content(changed))


@pytest.mark.slow
def test_images_give_the_data_card_and_explanations(finished_run: Outcome, tmp_path: Path) -> None:
    """Also where `quorum clean` has removed what it may."""
    shutil.copytree(finished_run.folder.root, tmp_path / "run", symlinks=True)
    folder = RunFolder(tmp_path / "run")
    clean(folder, everything=True)
    assert build_report(folder).is_file()
    drawn = {path.stem for path in folder.figures.iterdir()}
    assert {"contact_sheet", "class_sizes", "training_curves", "student_classes"} <= drawn
    facts, images = with_data(load_facts(folder), None)
    explanations = explain_run(facts, folder, images)
    assert facts.data.missing == ""
    assert facts.data.duplicates is not None
    assert {name: int(v.sum()) for name, v in facts.data.counts.items()} == dict(facts.sizes)
    chosen, maps = explanations.examples, explanations.heat_maps
    assert chosen is not None
    assert len(chosen.classes) == 10
    assert {"confused", "explained"} <= drawn
    assert [column.maps.shape for column in maps.columns()] == [chosen.pixels.shape[:3]] * 4
    assert maps.skipped == {}
    hidden = replace(facts, spec=facts.spec.with_values(pictures=False))
    hidden, images = with_data(hidden, None)
    found = explain_run(hidden, folder, images)
    assert (hidden.data.sheet, found.examples, found.confused) == (None, None, None)
    assert found.heat_maps.columns() == []
    assert found.attention is not None, "weights by channel show no picture"
    assert found.attention.pixels is None
    assert "pictures are switched off" in words(content(hidden, found))
    assert "most confused pairs" in words(content(hidden, found)), "a table shows no picture"
    kept = {"best_single": facts.test_log_probs["best_single"]}
    alone, images = with_data(replace(facts, test_log_probs=kept), None)
    found = explain_run(alone, folder, images)
    assert [column.source for column in found.heat_maps.columns()] == ["best single"] * 2
    told = words(content(alone, found, ["explained"]))
    assert "confidence of the best single on test" in told
    assert "ensemble is wrong on" not in told


def test_confused_pairs_are_told_with_their_intervals(facts: RunFacts) -> None:
    (pair, *others) = confused_pairs(facts)
    matrix = confusion_matrix(facts.test_log_probs["ensemble"], facts.test_labels, 4)  # type: ignore[arg-type]
    assert pair.errors == (matrix - np.diag(np.diag(matrix))).max() >= 2
    text = words(content(facts))
    wrong = int(matrix.sum() - matrix.trace())
    assert f"The ensemble is wrong on {wrong} of 120 images of test" in text
    assert f"{pair.truth} → {pair.answer} {pair.errors} {pair.images}" in text
    assert f"{100 * pair.interval.low:.1f}–{100 * pair.interval.high:.1f}%" in text
    assert len(others) <= 5
    labels = facts.test_labels
    assert labels is not None
    log_probs = np.log(np.full((120, 4), 0.1) + 0.6 * np.eye(4)[labels])
    log_probs[0] = np.roll(log_probs[0], 1)
    once = replace(facts, test_log_probs={"best_single": log_probs})
    assert "takes no class for the same other class twice" in words(content(once))


def test_the_net_that_is_explained_is_named_by_the_selection(facts: RunFacts) -> None:
    selection = facts.selection or {}
    assert explained_stage(facts) == "ensemble"
    assert best_single(facts) == selection["best_single"]["name"]
    single = replace(facts, test_log_probs={"best_single": facts.test_log_probs["best_single"]})
    assert explained_stage(single) == "best_single"
    assert explained_stage(replace(facts, test_log_probs={})) is None
    named = replace(facts, selection={"members": selection["members"]})
    assert best_single(named) == selection["members"][0]["name"]
    assert best_single(replace(facts, selection=None)) is None


def test_attention_weights_are_shown_for_a_net_that_has_attention(facts: RunFacts) -> None:
    layer = LayerWeights(block="block 1", side=None, mean=np.full(4, 0.5), spread=np.zeros(4),
                         class_means=np.full((3, 4), 0.5))  # fmt: skip
    weights = AttentionWeights(trial="t0002", kind="se", images=6, layers=(layer,))
    explanations = replace(explain_run(facts, RunFolder("."), None), attention=weights)
    squeezed = tuple(replace(t, recipe={**t.recipe, "attention": "se"}) for t in facts.trials)
    having = replace(facts, trials=squeezed)
    assert attention_trial(having) == (best_single(facts), "se")
    assert "SE attention" in words(content(having, explanations))
    failed = replace(explanations, attention=None, attention_missing="weights are gone")
    assert "weights are gone" in words(content(having, failed))
    plain = tuple(replace(t, recipe={**t.recipe, "attention": "none"}) for t in facts.trials)
    without = replace(facts, trials=plain)
    assert attention_trial(without) is None
    assert "Attention weights" not in words(content(without))


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        Shape(classes=2, val=40, holdout=60, test=40, trials=1, seeds=False),
        Shape(classes=200, val=400, holdout=800, test=800, trials=12),
    ],
)
def test_tiny_and_wide_runs_are_reported(tmp_path: Path, shape: Shape) -> None:
    folder = write_run(tmp_path / "odd", shape=shape)
    assert build_report(folder).read_bytes().startswith(b"%PDF-")
    facts = load_facts(folder)
    if shape.trials == 1:
        assert "Which values mattered is not estimated" in words(content(facts))
        assert not (folder.figures / "importance.png").exists()


# ------------------------------------------------------------------ how pages are filled


@pytest.mark.parametrize(
    ("kinds", "pages", "filled"),
    [
        (["8.5", "8.5"], 1, 0.8),  # both fit
        (["10", "10"], 1, 0.95),  # the second is set a little smaller
        (["13", "13"], 2, 0.6),  # which would be too small
        (["13", "13", "text"], 2, 0.75),  # so the text comes first
        (["13", "table", "13", "3"], 2, 0.85),  # or a figure that fits
        (["40"], 2, 0.05),  # taller than a page: as small as it must be, on its own
    ],
)
def test_figures_leave_no_gaps(kinds: list[str], pages: int, filled: float, tmp_path: Path) -> None:
    """Figures by their height in cm; `filled` is how far down the first page is used, at least."""
    found = _used(_document(kinds, tmp_path), tmp_path)
    assert len(found) == pages
    assert filled <= found[0] < filled + 0.2


def _document(kinds: list[str], root: Path) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = []
    for kind in kinds:
        if kind == "text":
            blocks.append({"kind": "text", "text": "word " * 150})
        elif kind == "table":
            blocks.append({"kind": "table", "header": ["a", "b"], "rows": [["1", "2"]] * 4,
                           "align": ["l", "r"], "caption": "a table"})  # fmt: skip
        else:
            Image.new("L", (168, round(10 * float(kind))), 128).save(root / f"{kind}.png")
            blocks.append({"kind": "figure", "path": f"/{kind}.png", "caption": "a figure"})
    return {"title": "t", "description": "", "date": "", "fonts": [], "summary": ["Ship it."],
            "figures": [], "sections": [{"title": "A section", "blocks": blocks}]}  # fmt: skip


def _used(document: dict[str, Any], root: Path) -> list[float]:
    """How far down every page there is ink, as a share of the height of its text."""
    compiler = typst.Compiler(
        input=TEMPLATE.read_bytes(),
        root=str(root),
        font_paths=typst.Fonts(include_system_fonts=False),
        sys_inputs={"data": json.dumps(document)},
    )
    drawn = compiler.compile(format="png", ppi=30)
    shares = []
    for png in drawn if isinstance(drawn, list) else [drawn]:
        assert png is not None
        page = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
        top, bottom = (round(cm / 29.7 * len(page)) for cm in (2.0, 27.6))
        inked = np.flatnonzero((page[top:bottom] < 200).any(axis=1))
        shares.append((inked.max() + 1) / (bottom - top) if len(inked) else 0.0)
    return shares


def test_views_that_are_averaged_are_told(facts: RunFacts) -> None:
    assert "average the logits" not in words(content(facts))
    trials = tuple(replace(t, recipe={**t.recipe, "tta": "mirror"}) for t in facts.trials)
    told = words(content(replace(facts, trials=trials)))
    assert (
        "All trials average the logits of several views when they predict (the image and its "
        "mirror image), and their latencies and images/s are those of all views together; the "
        "student looks once." in told
    )


def test_the_data_card_tells_what_the_images_were(facts: RunFacts) -> None:
    originals = SourceSizes.from_counts({(640, 480, "RGB"): 3, (96, 64, "L"): 1})
    told = words(content(replace(facts, data=replace(facts.data, source_sizes=originals))))
    assert "from 96×64 to 640×480 pixels, median 640×480, 2 different sizes; 3 RGB, 1 grey" in told


def test_fp32_is_compared_with_its_teacher_too(facts: RunFacts) -> None:
    """The ledger compares the int8 student alone; the kept predictions give the other."""
    ledger = {**(facts.ledger or {}), "gates": []}
    labels = facts.test_labels
    assert labels is not None
    gain = np.mean(facts.test_log_probs["student_fp32"].argmax(1) == labels) - np.mean(
        facts.test_log_probs["ensemble"].argmax(1) == labels
    )
    text = " ".join(summary(_with_ledger(facts, ledger)))
    assert f"{100 * abs(gain):.1f} points" in text.split("Distillation")[0]


def test_wall_time_ends_with_the_ledger(facts: RunFacts) -> None:
    assert facts.wall_seconds == pytest.approx(sum(facts.stage_seconds.values()), abs=0.01)
    assert "report" not in facts.stage_seconds


def test_trials_are_those_of_the_journal(facts: RunFacts) -> None:
    assert [trial.number for trial in facts.search_trials] == list(range(12))
    assert [trial.trial for trial in facts.seed_trials] == [f"s0{i}" for i in range(5)]
    assert facts.best is not None
    assert facts.best.scores[27] == min(t.scores.get(27, np.inf) for t in facts.search_trials)
    assert facts.best.params is not None
    assert {t.status for t in facts.search_trials} == {"completed", "pruned", "failed"}


@pytest.mark.parametrize("damage", [b"not an archive", b"", b"PK\x03\x04 cut off"])
def test_damaged_predictions_are_refused(copied: RunFolder, damage: bytes) -> None:
    (copied.ledger / "test_logprobs.npz").write_bytes(damage)
    with pytest.raises(RunError, match="cannot be read as arrays"):
        load_facts(copied)


def test_predictions_must_fit_the_labels(copied: RunFolder) -> None:
    path = copied.ledger / "test_logprobs.npz"
    np.savez(path, labels=np.zeros(5, int), ensemble=np.zeros((4, 2)))
    with pytest.raises(RunError, match=r"'ensemble' has shape \(4, 2\).*5 labels"):
        load_facts(copied)


def test_no_run_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run at .*: it has no sweep\.yaml"):
        build_report(RunFolder(tmp_path / "nothing"))


def _with_ledger(facts: RunFacts, ledger: dict[str, Any]) -> RunFacts:
    return replace(facts, ledger=ledger)


def _lose(folder: RunFolder, parts: list[str]) -> None:
    """Take away files, folders, or the stages of the ledger whose names begin like this."""
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
        item for item in ledger["differences"] if not (item["a"] + " " + item["b"]).count(parts[0])
    ]
    ledger["gates"] = [] if "student" in parts else ledger["gates"]
    path.write_text(json.dumps(ledger))


def _compiled(document: dict[str, Any]) -> bytes:
    """The PDF, without system fonts; a warning of the compiler is an error."""
    compiler = typst.Compiler(
        input=TEMPLATE.read_bytes(),
        root=".",
        font_paths=typst.Fonts(
            include_system_fonts=False, font_paths=[str(p) for p in lettering([]).folders]
        ),
        sys_inputs={"data": json.dumps(document)},
    )
    pdf, found = compiler.compile_with_warnings(format="pdf")
    if found:
        warnings.warn(str(found[0].message), stacklevel=1)
    assert isinstance(pdf, bytes)
    return pdf
