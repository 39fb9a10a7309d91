"""Compile a report with Typst: the same report and figures give the same bytes."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import typst

from analysis.report.blocks import Report, report_json
from common.printable import printable

TEMPLATE = Path(__file__).with_name("report.typ")


def typeset(
    report: Report,
    root: Path,
    *,
    font_folders: Sequence[Path] = (),
    made_at: datetime | None = None,
) -> bytes:
    """Return the report as a PDF, with the figures in `root`/figures.

    Only fonts bundled with typst and those in `font_folders` are used, never the system's,
    and nothing is downloaded. `made_at` is the creation time that the PDF records.
    """
    pdf = compiler_for(report, root, font_folders=font_folders).compile(
        format="pdf", timestamp=made_at
    )
    assert isinstance(pdf, bytes)
    return pdf


def compiler_for(
    report: Report, root: Path, *, font_folders: Sequence[Path] = ()
) -> typst.Compiler:
    """Return a compiler of the report, for formats other than PDF and for warnings."""
    fonts = typst.Fonts(
        include_system_fonts=False,
        include_embedded_fonts=True,
        font_paths=[str(folder) for folder in font_folders],
    )
    return typst.Compiler(
        input=TEMPLATE.read_bytes(),
        root=str(root),
        font_paths=fonts,
        sys_inputs={"data": json.dumps(_without_controls(report_json(report)))},
    )


def _without_controls(value: Any) -> Any:
    """Replace control characters in all texts of a JSON value, except line breaks, by escapes."""
    if isinstance(value, str):
        return printable(value, keep="\n")
    if isinstance(value, list | tuple):
        return [_without_controls(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_controls(item) for key, item in value.items()}
    return value
