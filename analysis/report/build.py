"""The report: figures, then report.pdf, from nothing but a run's folder.

The same folder gives the same bytes: the PDF bears the time at which the run started.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typst

from analysis.explain.explain_run import explain_run
from analysis.explain.explanations import Explanations
from analysis.facts.importance import importances
from analysis.facts.run_facts import RunFacts, load_facts, with_data
from analysis.figures.draw import save_figures
from analysis.figures.fonts import Lettering, lettering
from analysis.report.blocks import Block
from analysis.report.data_sections import data_section
from analysis.report.ensemble_sections import ensemble_section
from analysis.report.explain_sections import attention_section, confused_section, explained_section
from analysis.report.ledger_sections import ledger_section
from analysis.report.method_sections import methods_section, reproduction_section
from analysis.report.plan_sections import forecast_section
from analysis.report.prediction_sections import calibration_section, classes_section
from analysis.report.search_sections import search_section
from analysis.report.student_sections import student_section
from analysis.report.summary import key_figures, summary
from common.files import write_bytes_atomically
from common.seeds import numpy_generator
from trainables.data.image_set import ImageSet
from trainables.records import RunFolder

TEMPLATE = Path(__file__).with_name("report.typ")


def build_report(
    folder: RunFolder, images: ImageSet | None = None, *, pictures: bool | None = None
) -> Path:
    """Draw the figures of a run and set its report; returns the path of report.pdf.

    A run that has not come to its end gives a shorter report, which says what is missing.
    `images` saves reading the data set again from the place that the run's specification
    names; where it is gone or another one, the report says so and goes on without.
    `pictures` overrides the specification's: whether images of the data set may be shown.

    Raises:
        RunError: no run is there, or a file of it is damaged.
    """
    facts = load_facts(folder)
    if pictures is not None:
        facts = replace(facts, spec=facts.spec.with_values(pictures=pictures))
    letters = lettering(facts.class_names)
    facts, found = with_data(facts, images)
    explanations = explain_run(facts, folder, found)
    rng = numpy_generator(facts.spec.seed, "report", "importance")
    facts = replace(facts, importances=importances(facts.trials, facts.space, rng=rng))
    drawn = [path.stem for path in save_figures(facts, explanations, folder.figures)]
    document = report_content(facts, explanations, letters, drawn)
    write_bytes_atomically(folder.report, _typeset(document, folder.root, facts, letters))
    return folder.report


def report_content(
    facts: RunFacts, explanations: Explanations, letters: Lettering, drawn: list[str]
) -> dict[str, Any]:
    """All that the report says, as plain values: what `report.typ` sets in type."""
    sections: list[Block | None] = [
        ledger_section(facts, drawn),
        search_section(facts, drawn),
        ensemble_section(facts, drawn),
        student_section(facts, letters, drawn),
        calibration_section(facts, drawn),
        classes_section(facts, letters, drawn),
        confused_section(facts, explanations, letters, drawn),
        explained_section(explanations, letters, drawn),
        attention_section(facts, explanations, drawn),
        data_section(facts, letters, drawn),
        forecast_section(facts),
        methods_section(facts),
        reproduction_section(facts),
    ]
    return {
        "title": facts.name,
        "description": facts.spec.description,
        "date": _started(facts).strftime("%-d %B %Y") if facts.started_at else "",
        "fonts": list(letters.families),
        "summary": summary(facts),
        "figures": key_figures(facts),
        "sections": [section for section in sections if section is not None],
    }


def _typeset(document: dict[str, Any], root: Path, facts: RunFacts, letters: Lettering) -> bytes:
    """Compile with the fonts inside typst and matplotlib alone: no system fonts, no network.

    A script that these lack adds the folder of the one font that has it.
    """
    fonts = typst.Fonts(
        include_system_fonts=False,
        include_embedded_fonts=True,
        font_paths=[str(path) for path in letters.folders],
    )
    compiler = typst.Compiler(
        input=TEMPLATE.read_bytes(),
        root=str(root),
        font_paths=fonts,
        sys_inputs={"data": json.dumps(document)},
    )
    pdf = compiler.compile(format="pdf", timestamp=_started(facts))
    assert isinstance(pdf, bytes)
    return pdf


def _started(facts: RunFacts) -> datetime:
    # typst takes whole seconds only.
    return datetime.fromtimestamp(int(facts.started_at), tz=UTC)
