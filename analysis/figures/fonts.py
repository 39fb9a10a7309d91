"""Fonts for text that users wrote: class names in any script.

Figures and report use DejaVu Sans, which comes with matplotlib. A name in a script that it
lacks is drawn with an installed font that has it, and shown by its number where none has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib import font_manager

from common.formats import shorten_all

BASE = "DejaVu Sans"
FOLDER = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
"""Where matplotlib keeps the fonts that it brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lettering:
    """How the class names are shown."""

    names: tuple[str, ...]
    """One a class [K], on one line, drawable with `families`."""
    families: tuple[str, ...] = (BASE,)
    """Fonts in order of preference."""
    folders: tuple[Path, ...] = (FOLDER,)
    """Where the fonts lie."""
    renamed: int = 0
    """How many names no font could show, so that their number stands instead."""


def lettering(names: Sequence[str], *, width: int = 28) -> Lettering:
    """Names [K] cut to `width` characters, and the fonts to draw them with.

    Axes: K classes. The same names and the same installed fonts give the same answer.
    """
    lines = shorten_all([_printable(name) for name in names], width)
    base = _characters(FOLDER / "DejaVuSans.ttf")
    missing = {ord(letter) for line in lines for letter in line} - base
    if not missing:
        return Lettering(names=_numbered(lines, set()))
    path, family = _best_fallback(missing)
    lost = missing - _characters(path) if path else missing
    bad = {i for i, line in enumerate(lines) if any(ord(letter) in lost for letter in line)}
    return Lettering(
        names=_numbered(lines, bad),
        families=(BASE, family) if path else (BASE,),
        folders=(FOLDER, path.parent) if path else (FOLDER,),
        renamed=len(bad),
    )


def _best_fallback(missing: set[int]) -> tuple[Path | None, str]:
    """The installed font with most of the missing characters; by path among equals."""
    best: tuple[int, Path | None, str] = (0, None, "")
    entries = sorted(font_manager.fontManager.ttflist, key=lambda font: font.fname)
    for entry in entries:
        # The last resort has a box for every character, a letter for none.
        if entry.name.startswith("Last Resort"):
            continue
        covered = len(missing & _characters(Path(entry.fname)))
        if covered > best[0]:
            best = (covered, Path(entry.fname), entry.name)
    return best[1], best[2]


def _characters(path: Path) -> set[int]:
    return set(font_manager.get_font(str(path)).get_charmap())


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in name)


def _numbered(lines: list[str], bad: set[int]) -> tuple[str, ...]:
    return tuple(f"class {i}" if i in bad or not line else line for i, line in enumerate(lines))
