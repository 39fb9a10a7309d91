"""Build report.pdf from a run's folder: load the facts, draw the figures, typeset the text.

The same folder gives the same bytes: the PDF is dated by the start of the run.
"""

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from analysis.explain.explain_run import explain_run
from analysis.explain.explanations import Explanations
from analysis.facts.importance import importances
from analysis.facts.run_facts import RunFacts, load_facts, with_data
from analysis.figures.draw import save_figures
from analysis.figures.fonts import Lettering, lettering
from analysis.report.blocks import Figure, Report, Section
from analysis.report.data_section import data_section
from analysis.report.ensemble_section import ensemble_section
from analysis.report.explanation_sections import (
    attention_section,
    confused_section,
    explained_section,
)
from analysis.report.forecast_section import forecast_section
from analysis.report.ledger_section import ledger_section
from analysis.report.methods_sections import methods_section, reproduction_section
from analysis.report.prediction_sections import calibration_section, classes_section
from analysis.report.robustness_section import robustness_section
from analysis.report.search_section import search_section
from analysis.report.student_section import student_section
from analysis.report.summary import key_figures, summary
from analysis.report.typesetting import typeset
from common.files import write_bytes_atomically
from common.seeds import numpy_generator
from trainables.data.image_set import ImageSet
from trainables.records import RunFolder


def build_report(
    folder: RunFolder, images: ImageSet | None = None, *, pictures: bool | None = None
) -> Path:
    """Draw the figures of a run and typeset its report; return the path of report.pdf.

    An unfinished run gives a shorter report that says what is missing. Without
    `images`, the data set of the run's specification is loaded; if it is gone or its images
    have changed, the report says so and leaves them out. `pictures` overrides
    the specification's setting of whether images of the data set may be shown.

    Raises:
        RunError: no run is there, or one of its files is damaged.
    """
    facts = load_facts(folder)
    if pictures is not None:
        facts = replace(facts, spec=facts.spec.with_values(pictures=pictures))
    letters = lettering(facts.class_names)
    facts, run_images = with_data(facts, images)
    explanations = explain_run(facts, folder, run_images)
    rng = numpy_generator(facts.spec.seed, "report", "importance")
    facts = replace(facts, importances=importances(facts.trials, facts.space, rng=rng))
    drawn = {path.stem for path in save_figures(facts, explanations, folder.figures)}
    report = compose_report(facts, explanations, letters, drawn)
    pdf = typeset(
        report, folder.root, font_folders=letters.folders, made_at=_whole_second(facts.started_at)
    )
    write_bytes_atomically(folder.report, pdf)
    return folder.report


def compose_report(
    facts: RunFacts, explanations: Explanations, letters: Lettering, drawn: Collection[str]
) -> Report:
    """Compose the report's texts, tables and drawn figures."""
    sections = (
        ledger_section(facts),
        search_section(facts),
        ensemble_section(facts),
        student_section(facts, letters),
        calibration_section(facts),
        robustness_section(facts, letters),
        classes_section(facts, letters),
        confused_section(facts, explanations, letters),
        explained_section(explanations, letters),
        attention_section(facts, explanations),
        data_section(facts, letters),
        forecast_section(facts),
        methods_section(facts),
        reproduction_section(facts),
    )
    shown = [_with_drawn_figures(part, drawn) for part in sections if part is not None]
    started = _whole_second(facts.started_at)
    return Report(
        title=facts.name,
        description=facts.spec.description,
        date=started.strftime("%-d %B %Y") if facts.started_at else "",
        fonts=tuple(letters.families),
        summary=tuple(summary(facts)),
        key_figures=tuple(key_figures(facts)),
        sections=tuple(part for part in shown if part.blocks),
    )


def _with_drawn_figures(section: Section, drawn: Collection[str]) -> Section:
    """Leave out the figures that the run has no data for."""
    blocks = (b for b in section.blocks if not isinstance(b, Figure) or b.name in drawn)
    return replace(section, blocks=tuple(blocks))


def _whole_second(seconds: float) -> datetime:
    """Return unix seconds as a time; typst accepts whole seconds only."""
    return datetime.fromtimestamp(int(seconds), tz=UTC)
