"""Fonts for class names in any script.

Figures and report use DejaVu Sans, which comes with matplotlib. A name in a script that it
lacks is drawn with an installed font that has it, or replaced by its number if none has.
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib import font_manager

from common.formats import shorten_all

BASE = "DejaVu Sans"
FOLDER = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
"""The fonts that come with matplotlib."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lettering:
    """The class names as they are shown, and the fonts that can draw them."""

    names: tuple[str, ...]
    """One line per class [K], drawable with `families`."""
    families: tuple[str, ...] = (BASE,)
    """Fonts in order of preference."""
    folders: tuple[Path, ...] = (FOLDER,)
    """Folders of the fonts."""
    renamed: int = 0
    """Number of names replaced because no font has their characters."""


def lettering(
    names: Sequence[str],
    *,
    width: int = 28,
    characters: Callable[[Path], Set[int]] | None = None,
) -> Lettering:
    """Cut class names [K] to `width` characters and find fonts to draw them.

    `characters` returns the code points that a font file has; by default it reads the file.
    The same names and the same installed fonts give the same result.
    """
    characters = characters or _characters
    lines = shorten_all([_printable(name) for name in names], width)
    base = characters(FOLDER / "DejaVuSans.ttf")
    missing = {ord(letter) for line in lines for letter in line} - base
    if not missing:
        return Lettering(names=_numbered(lines, set()))
    path, family = _best_fallback(missing, characters)
    lost = missing - characters(path) if path else missing
    bad = {i for i, line in enumerate(lines) if any(ord(letter) in lost for letter in line)}
    return Lettering(
        names=_numbered(lines, bad),
        families=(BASE, family) if path else (BASE,),
        folders=(FOLDER, path.parent) if path else (FOLDER,),
        renamed=len(bad),
    )


def _best_fallback(
    missing: Set[int], characters: Callable[[Path], Set[int]]
) -> tuple[Path | None, str]:
    """Return the installed font with most of the missing characters; ties go by path."""
    best: tuple[int, Path | None, str] = (0, None, "")
    entries = sorted(font_manager.fontManager.ttflist, key=lambda font: font.fname)
    for entry in entries:
        # This font draws a box for every character.
        if entry.name.startswith("Last Resort"):
            continue
        covered = len(missing & characters(Path(entry.fname)))
        if covered > best[0]:
            best = (covered, Path(entry.fname), entry.name)
    return best[1], best[2]


def _characters(path: Path) -> set[int]:
    return set(font_manager.get_font(str(path)).get_charmap())


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in name)


def _numbered(lines: list[str], bad: set[int]) -> tuple[str, ...]:
    return tuple(f"class {i}" if i in bad or not line else line for i, line in enumerate(lines))
