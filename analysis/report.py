"""The report: figures, then report.pdf, from nothing but a run's folder.

The same folder gives the same bytes: the PDF bears the time at which the run started.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typst

from analysis.blocks import Block
from analysis.facts import RunFacts, load_facts
from analysis.figures import save_figures
from analysis.fonts import Lettering, lettering
from analysis.method_sections import methods_section, reproduction_section
from analysis.model_sections import ensemble_section, student_section
from analysis.prediction_sections import calibration_section, classes_section
from analysis.sections import data_section, ledger_section, search_section
from analysis.summary import key_figures, summary
from trainables.records import RunFolder, write_bytes_atomically

TEMPLATE = Path(__file__).with_name("report.typ")


def build_report(folder: RunFolder) -> Path:
    """Draw the figures of a run and set its report; returns the path of report.pdf.

    A run that has not come to its end gives a shorter report, which says what is missing.

    Raises:
        RunError: no run is there, or a file of it is damaged.
    """
    facts = load_facts(folder)
    letters = lettering(facts.class_names)
    drawn = [path.stem for path in save_figures(facts, folder.figures)]
    document = report_content(facts, letters, drawn)
    write_bytes_atomically(folder.report, _typeset(document, folder.root, facts, letters))
    return folder.report


def report_content(facts: RunFacts, letters: Lettering, drawn: list[str]) -> dict[str, Any]:
    """All that the report says, as plain values: what `report.typ` sets in type."""
    sections: list[Block | None] = [
        ledger_section(facts, drawn),
        search_section(facts, drawn),
        ensemble_section(facts, drawn),
        student_section(facts),
        calibration_section(facts, drawn),
        classes_section(facts, letters, drawn),
        data_section(facts, letters),
        methods_section(),
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
