"""Reports compile whatever text they contain, and leave no large gaps on pages."""

import io
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.facts.run_facts import load_facts
from analysis.figures.fonts import lettering
from analysis.report.blocks import Block, Figure, Report, Section, Table, Text
from analysis.report.typesetting import compiler_for
from search.space.sweep_files import load_spec
from tests.analysis.report.reading import composed, pairs
from tests.synthetic.predictions import SMALL
from tests.synthetic.run import write_run
from trainables.records import RunFolder

HOSTILE = (
    "*bold* _it_ #let x = 1",
    '"quote" \\ back $x^2$',
    "<label> @ref [x] // comment",
    "猫 日本語",
)


def test_hostile_names_are_shown_verbatim(tmp_path: Path) -> None:
    spec = load_spec("digits").with_values(description='#panic("no") $ \\ "', trials=12)
    folder = write_run(tmp_path / "#odd *name*", shape=SMALL, class_names=HOSTILE, spec=spec)
    facts = load_facts(folder)
    assert facts.class_names == HOSTILE
    report = composed(facts)
    assert report.title == "#odd *name*"
    assert HOSTILE[0] in pairs(report)["classes"]
    assert compiled(report).startswith(b"%PDF-")


@pytest.mark.parametrize(
    "missing",
    [
        ["student"],
        ["student", "ledger"],
        ["student", "ledger", "selection.json", "trials"],
    ],
)
def test_unfinished_runs_compile(copied: RunFolder, missing: list[str]) -> None:
    for name in missing:
        path = copied.root / name
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
    assert compiled(composed(load_facts(copied))).startswith(b"%PDF-")


@pytest.mark.parametrize(
    ("kinds", "pages", "filled"),
    [
        (["8.5", "8.5"], 1, 0.8),  # both fit
        (["10", "10"], 1, 0.95),  # the second is set a little smaller
        (["13", "13"], 2, 0.6),  # it would be too small
        (["13", "13", "text"], 2, 0.75),  # the text comes first
        (["13", "table", "13", "3"], 2, 0.85),  # or a figure that fits
        (["40"], 2, 0.05),  # taller than a page: as small as necessary, on its own page
    ],
)
def test_figures_leave_no_gaps(kinds: list[str], pages: int, filled: float, tmp_path: Path) -> None:
    """Figures are given by their height in cm; `filled` is the least share of page 1 in use."""
    shares = used_shares(report_of(kinds, tmp_path), tmp_path)
    assert len(shares) == pages
    assert filled <= shares[0] < filled + 0.2


def report_of(kinds: list[str], root: Path) -> Report:
    blocks: list[Block] = []
    (root / "figures").mkdir()
    for kind in kinds:
        if kind == "text":
            blocks.append(Text(text="word " * 150))
        elif kind == "table":
            rows = (("1", "2"),) * 4
            blocks.append(Table(header=("a", "b"), rows=rows, align="lr", caption="a table"))
        else:
            image = Image.new("L", (168, round(10 * float(kind))), 128)
            image.save(root / "figures" / f"{kind}.png")
            blocks.append(Figure(name=kind, caption="a figure"))
    return Report(
        title="t", description="", date="", fonts=(), summary=("Ship it.",), key_figures=(),
        sections=(Section(title="A section", blocks=tuple(blocks)),),
    )  # fmt: skip


def used_shares(report: Report, root: Path) -> list[float]:
    """Return how far down every page there is ink, as a share of its text height."""
    pages = compiler_for(report, root).compile(format="png", ppi=30)
    shares = []
    for png in pages if isinstance(pages, list) else [pages]:
        assert png is not None
        page = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
        top, bottom = (round(cm / 29.7 * len(page)) for cm in (2.0, 27.6))
        inked = np.flatnonzero((page[top:bottom] < 200).any(axis=1))
        shares.append((inked.max() + 1) / (bottom - top) if len(inked) else 0.0)
    return shares


def compiled(report: Report) -> bytes:
    """Return the PDF; a warning of the compiler is an error."""
    compiler = compiler_for(report, Path(), font_folders=lettering([]).folders)
    pdf, messages = compiler.compile_with_warnings(format="pdf")
    if messages:
        warnings.warn(str(messages[0].message), stacklevel=1)
    assert isinstance(pdf, bytes)
    return pdf
