"""The output of a dry run: the data, the splits and the forecast of a run."""

from rich.console import Group, RenderableType
from rich.text import Text

from analysis.terminal.layout import DIM, bare_table, facts_grid, name_text
from analysis.text.sentences import source_sizes_text
from common.formats import plural, rounded_duration
from search.space.spec import SweepSpec
from search.timetable.preview import Preview

MOST_CLASSES = 30
"""Maximum number of classes listed."""


def plan_view(preview: Preview) -> RenderableType:
    """Return the data, the searched values, the schedules and the forecast of a run."""
    spec = preview.spec
    side = preview.image_size
    classes = plural(len(preview.classes), "class", "classes")
    images = plural(sum(preview.sizes.values()), "image")
    trials = "as many as the time allows" if preview.trials is None else str(preview.trials)
    epochs = "epoch" if preview.rungs == (1,) else "epochs"
    facts = [
        ("data", f"{preview.name}, {images} of {classes}, {side}×{side} pixels"),
        ("original", source_sizes_text(preview.source_sizes)),
        ("splits", " · ".join(f"{name} {size:,}" for name, size in preview.sizes.items())),
        *(("note", note) for note in preview.notes),
        ("trials", trials),
        ("rungs", f"{' → '.join(map(str, preview.rungs))} {epochs}"),
        *_searched(spec),
    ]
    if "seeds" in preview.seconds:
        short = "none: the time budget is too short for them"
        facts.append(("seeds", str(spec.members) if preview.seconds["seeds"] else short))
    if "distill" in preview.seconds:
        training = f"{plural(preview.student_epochs, 'epoch')}, with and without a teacher"
        facts.append(("student", training))
    facts.append(("forecast", _forecast(preview)))
    return Group(facts_grid(facts), Text(""), *_class_sizes(preview))


def _searched(spec: SweepSpec) -> list[tuple[str, str]]:
    """Return the searched values, those of each family in a row of its own."""
    shared = [", ".join(spec.space)] if spec.space else []
    families = [
        f"{name}: {', '.join(family.space) or 'nothing'}" for name, family in spec.families.items()
    ]
    rows = [*shared, *families] or ["nothing"]
    return [("" if number else "searched", row) for number, row in enumerate(rows)]


def _forecast(preview: Preview) -> str:
    total = rounded_duration(sum(preview.seconds.values()))
    stages = [
        f"{name} {rounded_duration(seconds)}"
        for name, seconds in preview.seconds.items()
        if seconds
    ]
    if not stages:
        return "nothing is left to do"
    return f"about {total}: {', '.join(stages)}"


def _class_sizes(preview: Preview) -> list[RenderableType]:
    """Return each class's images by split; with many classes, only the smallest classes."""
    by_size = sorted(preview.classes.items(), key=lambda item: sum(item[1]))
    many = len(by_size) > MOST_CLASSES
    table = bare_table("smallest classes" if many else "class", *preview.sizes, numbers=True)
    for name, counts in by_size[:MOST_CLASSES] if many else preview.classes.items():
        table.add_row(name_text(name), *(f"{count:,}" for count in counts))
    if not many:
        return [table]
    low, high = (sum(by_size[index][1]) for index in (MOST_CLASSES, -1))
    images = plural(high, "image") if low == high else f"{low:,} to {plural(high, 'image')}"
    others = plural(len(by_size) - MOST_CLASSES, "larger class", "larger classes")
    return [table, Text(f"and {others} of {images} each", style=DIM)]
