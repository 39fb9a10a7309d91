"""Find blocks in a report by their content."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from analysis.explain.explain_run import explain_run
from analysis.explain.explanations import Explanations
from analysis.facts.run_facts import RunFacts
from analysis.figures.draw import FIGURES
from analysis.figures.fonts import lettering
from analysis.report.blocks import Block, Bullets, Code, Pairs, Report, Section, Table, Text
from analysis.report.build import compose_report
from trainables.records import RunFolder


def composed(
    facts: RunFacts, drawn: Iterable[str] = (), explanations: Explanations | None = None
) -> Report:
    """Compose a report without drawing its figures."""
    explanations = explanations or explained(facts)
    return compose_report(facts, explanations, lettering(facts.class_names), set(drawn))


def explained(facts: RunFacts) -> Explanations:
    """Explain a run's predictions without its images."""
    return explain_run(facts, RunFolder("."), None)


def blocks(part: Report | Section | None) -> Iterator[Block]:
    """Yield the blocks of a section, or of all sections."""
    sections = part.sections if isinstance(part, Report) else [part] if part else []
    for section in sections:
        yield from section.blocks


def table(part: Report | Section | None, *columns: str) -> Table:
    """Return the one table that has all of these columns."""
    (match,) = (
        block
        for block in blocks(part)
        if isinstance(block, Table) and set(columns) <= set(block.header)
    )
    return match


def pairs(part: Report | Section | None) -> dict[str, str]:
    """Return the names and values of all pairs."""
    return {
        name: value
        for block in blocks(part)
        if isinstance(block, Pairs)
        for name, value in block.rows
    }


def code(part: Report | Section | None) -> tuple[str, ...]:
    """Return the lines of all commands."""
    return tuple(line for block in blocks(part) if isinstance(block, Code) for line in block.lines)


def prose(part: Report | Section | None) -> str:
    """Return all paragraphs, lists and commands."""
    texts = []
    for block in blocks(part):
        match block:
            case Text():
                texts.append(block.text)
            case Bullets():
                texts += block.items
            case Code():
                texts += block.lines
    return "\n".join(texts)


ALL_FIGURES = frozenset(FIGURES)


def with_ledger(facts: RunFacts, **values: Any) -> RunFacts:
    """Return the facts with other values in the ledger."""
    assert facts.ledger is not None
    return replace(facts, ledger=replace(facts.ledger, **values))
