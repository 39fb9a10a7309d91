"""Fonts: class names in any script are drawn, or replaced by their numbers."""

from pathlib import Path

from analysis.figures.fonts import FOLDER, lettering


def test_plain_names_are_kept_and_undrawable_ones_numbered() -> None:
    hostile = ["$a_1$ and $b^2$", "*bold* #let", "Щука", "line\nbreak", "", "\U000f0000", "x" * 90]
    letters = lettering(hostile)
    assert letters.names[:4] == ("$a_1$ and $b^2$", "*bold* #let", "Щука", "line break")
    assert letters.names[4] == "class 4"
    assert letters.names[5] in ("class 5", "\U000f0000")
    assert len(letters.names[6]) == 28
    assert letters.families[0] == "DejaVu Sans"


def test_a_font_that_has_the_script_is_found() -> None:
    """STIXGeneral is made the only font with λ, like a CJK font for its characters."""
    alphabet = {ord(letter) for letter in "abcdefghijklmnopqrstuvwxyz"}

    def characters(path: Path) -> set[int]:
        if path == FOLDER / "DejaVuSans.ttf":
            return alphabet
        return alphabet | {ord("λ")} if "STIXGeneral" in path.name else set()

    letters = lettering(["λ", "b"], characters=characters)
    assert letters.names == ("λ", "b")
    assert letters.families == ("DejaVu Sans", "STIXGeneral")
    assert letters.renamed == 0
