"""Reports of whole, partial, tiny and wide runs."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.explain.explain_run import explain_run
from analysis.facts.run_facts import RunFacts, load_facts, with_data
from analysis.figures.fonts import lettering
from analysis.report.blocks import Figure
from analysis.report.build import build_report
from analysis.report.explanation_sections import confused_section, explained_section
from analysis.text.labels import stage_label
from common.errors import RunError
from quorum import Outcome
from quorum.workspace.cleaning import clean
from search.space.sweep_files import load_spec
from tests.analysis.report.reading import ALL_FIGURES, blocks, code, composed, prose, table
from tests.synthetic.predictions import Shape
from tests.synthetic.run import write_run
from trainables.records import RunFolder


@pytest.mark.slow
def test_a_finished_run_gives_the_same_pdf_twice(whole: RunFolder) -> None:
    first = build_report(whole).read_bytes()
    with whole.journal.open("a") as journal:
        event = {"time": 2e9, "event": "stage", "stage": "report", "status": "finished"}
        journal.write(json.dumps(event) + "\n")
    assert build_report(whole).read_bytes() == first
    assert first.startswith(b"%PDF-")
    assert len(first) > 100_000


def test_a_run_without_trials_gives_a_report(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "bare")
    folder.root.mkdir()
    folder.sweep.write_text(load_spec("digits").to_yaml())
    assert build_report(folder).read_bytes().startswith(b"%PDF-")
    assert list(folder.figures.iterdir()) == []


def test_only_figures_that_were_drawn_are_shown(facts: RunFacts) -> None:
    names = [block.name for block in blocks(composed(facts, ["cost", "sweep"]))
             if isinstance(block, Figure)]  # fmt: skip
    assert names == ["cost", "sweep"]
    every = [b.name for b in blocks(composed(facts, ALL_FIGURES)) if isinstance(b, Figure)]
    assert len(every) == len(set(every))


def test_the_report_holds_no_path_of_this_machine(facts: RunFacts) -> None:
    dataset = replace(facts.spec.dataset, name="parquet", path="/home/someone/my data/cifar10-jpeg")
    report = composed(replace(facts, spec=facts.spec.with_values(dataset=dataset)))
    text = prose(report)
    commands = [shlex.split(line, comments=True) for line in code(report)]
    (trained,) = [command for command in commands if "--data" in command]
    assert trained[trained.index("--data") + 1] == "path/to/cifar10-jpeg"
    assert "someone" not in text
    assert str(Path.cwd()) not in text


@pytest.mark.slow
def test_images_give_the_data_card_and_explanations(finished_run: Outcome, tmp_path: Path) -> None:
    """Images are loaded again after `quorum clean`."""
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
    examples, maps = explanations.examples, explanations.heat_maps
    assert examples is not None
    assert len(examples.classes) == 10
    assert {"confused", "explained"} <= drawn
    assert [column.maps.shape for column in maps.columns()] == [examples.pixels.shape[:3]] * 4
    assert maps.skipped == {}


@pytest.mark.slow
def test_without_pictures_no_image_of_the_data_is_shown(finished_run: Outcome) -> None:
    facts = load_facts(finished_run.folder)
    hidden, images = with_data(replace(facts, spec=facts.spec.with_values(pictures=False)), None)
    explanations = explain_run(hidden, finished_run.folder, images)
    assert (hidden.data.sheet, explanations.examples, explanations.confused) == (None, None, None)
    assert explanations.heat_maps.columns() == []
    assert explanations.attention is not None, "weights by channel show no picture"
    assert explanations.attention.pixels is None
    report = composed(hidden, explanations=explanations)
    assert explanations.not_explained in prose(report)
    assert table(report, "truth → prediction", "errors").rows, "a table shows no picture"


@pytest.mark.slow
def test_a_single_network_is_explained_alone(finished_run: Outcome) -> None:
    facts = load_facts(finished_run.folder)
    kept = {"best_single": facts.test_log_probs["best_single"]}
    alone, images = with_data(replace(facts, test_log_probs=kept), None)
    explanations = explain_run(alone, finished_run.folder, images)
    assert [column.source for column in explanations.heat_maps.columns()] == ["best single"] * 2
    letters = lettering(alone.class_names)
    shown = blocks(explained_section(explanations, letters))
    (figure,) = [block for block in shown if isinstance(block, Figure)]
    assert stage_label("best_single") in figure.caption
    assert "ensemble" not in figure.caption
    assert "ensemble" not in prose(confused_section(alone, explanations, letters))


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
    assert (folder.figures / "importance.png").exists() == (shape.trials > 1)


def test_a_missing_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run at .*: it has no sweep\.yaml"):
        build_report(RunFolder(tmp_path / "nothing"))
