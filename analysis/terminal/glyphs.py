"""The marks and the short forms that screens of text are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from common.formats import value_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyphs:
    """The marks of a screen, each one cell wide."""

    done: str = "✓"
    working: str = "●"
    waiting: str = "·"
    skipped: str = "–"
    halted: str = "○"
    best: str = "★"
    failed: str = "✗"
    full: str = "█"
    half: str = "▒"
    empty: str = "░"
    bar: str = "━"
    track: str = "─"
    dot: str = "·"
    overflow: Literal["ellipsis", "crop"] = "ellipsis"
    """What becomes of a line that is too long."""

    def text(self, text: str) -> str:
        """`text`, in ASCII if these marks are."""
        return to_ascii(text) if self.overflow == "crop" else text


ASCII = Glyphs(
    done="+", working=">", waiting=".", skipped="-", halted="o", best="*", failed="x",
    full="#", half="=", empty=".", bar="=", track="-", dot="-", overflow="crop",
)  # fmt: skip


def hyperparameters(recipe: Mapping[str, Any], space: Mapping[str, Any]) -> str:
    """The searched values of a recipe, without those that its own choices switch off."""
    parts = []
    for name, axis in space.items():
        if name not in recipe or not _applies(axis, recipe):
            continue
        value = recipe[name]
        plain = isinstance(value, str) and value != "none"
        parts.append(str(value) if plain else f"{name} {value_text(value)}")
    return ", ".join(parts)


def _applies(axis: object, recipe: Mapping[str, Any]) -> bool:
    """The axis's condition holds, e.g. `when: {optimizer: sgd}` or `{optimizer: [sgd, adamw]}`."""
    when = axis.get("when") if isinstance(axis, Mapping) else None
    return all(
        recipe.get(name) in (wanted if isinstance(wanted, list | tuple) else (wanted,))
        for name, wanted in (when or {}).items()
    )


def to_ascii(text: str) -> str:
    """`text` with its marks in ASCII, and ? for what has none."""
    return text.translate(_ASCII_LIKE).encode("ascii", "replace").decode()


_ASCII_LIKE = str.maketrans({"–": "-", "−": "-", "·": "-", "…": "~", "×": "x"})
