"""The report as values: sections of typed blocks, and their JSON for `report.typ`.

Texts are shown verbatim: no character in them is markup.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.text.labels import Tone, tone


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A coloured cell of a table."""

    text: str
    tone: Tone


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bullets:
    """A bulleted list."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Commands, one per line."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A saved figure with its caption; left out where the run has no such figure."""

    name: str
    """File name in the run's figures folder, without `.png`."""
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with a header row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    align: str
    """One letter per column: `l` or `r`."""
    caption: str = ""

    def __post_init__(self) -> None:
        """Check that every row has the header's columns.

        Raises:
            ValueError: a row or `align` has a different number of columns.
        """
        for columns in (len(self.align), *map(len, self.rows)):
            if columns != len(self.header):
                raise ValueError(
                    f"a row or `align` has {columns} columns, the header has {len(self.header)}"
                )

    def column(self, name: str) -> tuple[str, ...]:
        """Return the texts of one column."""
        index = self.header.index(name)
        cells = (row[index] for row in self.rows)
        return tuple(cell.text if isinstance(cell, Cell) else cell for cell in cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Names with their values, without a header."""

    rows: tuple[tuple[str, str], ...]
    caption: str = ""


Block = Text | Bullets | Code | Figure | Table | Pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section: its title and its blocks, in order."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFigure:
    """A number at the head of the report."""

    title: str
    value: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole report."""

    title: str
    description: str
    date: str
    fonts: tuple[str, ...]
    """Font families for scripts that the report's own fonts lack."""
    summary: tuple[str, ...]
    """A first paragraph, then one bullet for each reason."""
    key_figures: tuple[KeyFigure, ...]
    sections: tuple[Section, ...]


def section(title: str, *blocks: Block | None) -> Section:
    """Build a section from the blocks that are not None."""
    return Section(title=title, blocks=tuple(block for block in blocks if block is not None))


def text(*sentences: str) -> Text | None:
    """Join the non-empty sentences; None if all are empty."""
    joined = " ".join(sentence for sentence in sentences if sentence)
    return Text(text=joined) if joined else None


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str | Cell]],
    align: str,
    *,
    caption: str = "",
) -> Table | None:
    """Build a table; None without rows."""
    lines = tuple(tuple(row) for row in rows)
    if not lines:
        return None
    return Table(header=tuple(header), rows=lines, align=align, caption=caption)


def pairs(items: Iterable[tuple[str, str]], *, caption: str = "") -> Pairs | None:
    """Build pairs from the items that have a value; None if no item has."""
    rows = tuple(item for item in items if item[1])
    return Pairs(rows=rows, caption=caption) if rows else None


def verdict_cell(verdict: str) -> Cell:
    """Colour a verdict."""
    return Cell(text=verdict, tone=tone(verdict))


def report_json(report: Report) -> dict[str, Any]:
    """Return the values that `report.typ` reads."""
    return {
        "title": report.title,
        "description": report.description,
        "date": report.date,
        "fonts": list(report.fonts),
        "summary": list(report.summary),
        "key_figures": [
            {"title": figure.title, "value": figure.value, "note": figure.note}
            for figure in report.key_figures
        ],
        "sections": [
            {"title": part.title, "blocks": [_block_json(block) for block in part.blocks]}
            for part in report.sections
        ],
    }


def _block_json(block: Block) -> Mapping[str, Any]:
    match block:
        case Text():
            return {"kind": "text", "text": block.text}
        case Bullets():
            return {"kind": "bullets", "items": list(block.items)}
        case Code():
            return {"kind": "code", "text": "\n".join(block.lines)}
        case Figure():
            path = f"/figures/{block.name}.png"
            return {"kind": "figure", "path": path, "caption": block.caption}
        case Table():
            rows = [[_cell_json(cell) for cell in row] for row in block.rows]
            return {"kind": "table", "header": list(block.header), "rows": rows,
                    "align": list(block.align), "caption": block.caption}  # fmt: skip
        case Pairs():
            rows = [list(row) for row in block.rows]
            return {"kind": "pairs", "rows": rows, "caption": block.caption}


def _cell_json(cell: str | Cell) -> str | dict[str, str]:
    return cell if isinstance(cell, str) else {"text": cell.text, "tone": cell.tone}
