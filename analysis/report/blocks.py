"""The parts that a report is made of, as plain values: `report.typ` sets them in type.

Texts are shown as they are: no character in them is markup.
"""

from collections.abc import Iterable, Sequence
from typing import Any

Block = dict[str, Any]
Cell = str | dict[str, str]

TONES = {
    "pass": "good",
    "better": "good",
    "fail": "bad",
    "worse": "bad",
    "undecided": "open",
    "not distinguishable": "open",
}


def section(title: str, *blocks: Block | None) -> Block:
    """A section; blocks that are None are left out."""
    return {"title": title, "blocks": [block for block in blocks if block is not None]}


def text(*sentences: str) -> Block:
    """A paragraph of whole sentences; empty ones are left out."""
    return {"kind": "text", "text": " ".join(sentence for sentence in sentences if sentence)}


def bullets(items: Iterable[str]) -> Block:
    """A list."""
    return {"kind": "bullets", "items": list(items)}


def code(*lines: str) -> Block:
    """Commands, a line each."""
    return {"kind": "code", "text": "\n".join(lines)}


def figure(name: str, caption: str, *, drawn: Iterable[str]) -> Block | None:
    """A saved figure, if it was drawn."""
    if name not in drawn:
        return None
    return {"kind": "figure", "path": f"/figures/{name}.png", "caption": caption}


def table(
    header: Sequence[str], rows: Sequence[Sequence[Cell]], align: str, *, caption: str = ""
) -> Block | None:
    """A table, if it has rows; `align` has a letter for each column: l or r."""
    if not rows:
        return None
    return {
        "kind": "table", "header": list(header), "rows": [list(row) for row in rows],
        "align": list(align), "caption": caption,
    }  # fmt: skip


def pairs(items: Iterable[tuple[str, str]], *, caption: str = "") -> Block | None:
    """A table of two columns without a header: what, and its value."""
    rows = [list(item) for item in items if item[1]]
    if not rows:
        return None
    return {"kind": "pairs", "rows": rows, "caption": caption}


def toned(word: str) -> Cell:
    """A verdict in its colour."""
    return {"text": word, "tone": TONES.get(word, "plain")}
