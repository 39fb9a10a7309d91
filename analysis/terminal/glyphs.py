"""The marks of a terminal screen, in Unicode or ASCII, and short texts for hyperparameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from common.formats import value_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyphs:
    """The marks of a screen, each one cell wide."""

    done: str = "✓"
    running: str = "●"
    waiting: str = "·"
    skipped: str = "–"
    interrupted: str = "○"
    best: str = "★"
    failed: str = "✗"
    full: str = "█"
    half: str = "▒"
    empty: str = "░"
    bar: str = "━"
    track: str = "─"
    dot: str = "·"
    overflow: Literal["ellipsis", "crop"] = "ellipsis"
    """Handling of lines that are too long."""

    def text(self, text: str) -> str:
        """Return `text`, converted to ASCII if these marks are ASCII."""
        return to_ascii(text) if self.overflow == "crop" else text

    def join(self, *parts: str) -> str:
        """Join the non-empty parts with dots."""
        return f" {self.dot} ".join(part for part in parts if part)


ASCII = Glyphs(
    done="+", running=">", waiting=".", skipped="-", interrupted="o", best="*", failed="x",
    full="#", half="=", empty=".", bar="=", track="-", dot="-", overflow="crop",
)  # fmt: skip


def hyperparameters(recipe: Mapping[str, Any], space: Mapping[str, Any]) -> str:
    """Return the searched values of a recipe that apply to it: `width 32, gelu, lr 0.1`.

    A name is left out if its value explains itself.
    """
    parts = []
    for name, axis in space.items():
        if name not in recipe or not _applies(axis, recipe):
            continue
        value = recipe[name]
        explains_itself = isinstance(value, str) and value != "none"
        parts.append(str(value) if explains_itself else f"{name} {value_text(value)}")
    return ", ".join(parts)


def to_ascii(text: str) -> str:
    """Replace typographic marks by ASCII ones, and other characters by `?`."""
    return text.translate(_ASCII_MARKS).encode("ascii", "replace").decode()


def _applies(axis: object, recipe: Mapping[str, Any]) -> bool:
    """Check an axis's condition, such as `when: {optimizer: [sgd, adamw]}`."""
    when = axis.get("when") if isinstance(axis, Mapping) else None
    return all(
        recipe.get(name) in (choices if isinstance(choices, list | tuple) else (choices,))
        for name, choices in (when or {}).items()
    )


_ASCII_MARKS = str.maketrans({"–": "-", "−": "-", "·": "-", "…": "~", "×": "x"})
