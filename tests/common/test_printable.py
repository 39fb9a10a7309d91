"""Texts from others, for terminals and for Markdown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from common.printable import (
    ascii_marks,
    markdown_block,
    markdown_code,
    markdown_text,
    printable,
    printable_line,
)
from tests.names import ODD_NAMES, controls_in


@given(ODD_NAMES)
def test_a_printable_name_has_no_controls_and_loses_nothing_else(name: str) -> None:
    shown = printable(name)
    assert not controls_in(shown, allowed="")
    assert printable(shown) == shown
    if not controls_in(name, allowed=""):
        assert shown == name
    assert shown.encode()  # no surrogates


@given(st.text())
def test_a_line_is_one_line(text: str) -> None:
    assert len(printable_line(text).splitlines()) <= 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\u202ecod.exe", r"\u202ecod.exe"),
        ("\udcff.png", r"\xff.png"),
        ("\U000e0041", r"\U000e0041"),
        ("👩\u200d🔬 خانه\u200cها", "👩\u200d🔬 خانه\u200cها"),
        (r"C:\new", r"C:\new"),
    ],
)
def test_controls_are_written_as_python_writes_them(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_characters_that_are_kept() -> None:
    assert printable("a\nb\x07", keep="\n") == "a\nb\\x07"


@given(ODD_NAMES)
def test_markdown_shows_a_name_and_never_obeys_it(name: str) -> None:
    """A parser reads the name as one paragraph of plain text, also in a cell of a table."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    text = markdown_text(name)
    assert "<" not in text
    for source in (text, f"| a |\n| --- |\n| {text} |\n"):
        tokens = parser.parse(source)
        *_, inline = [token for token in tokens if token.type == "inline"]
        assert inline.children is not None
        assert {child.type for child in inline.children} <= {"text", "text_special"}
        shown = "".join(child.content for child in inline.children)
        assert shown.split() == printable(name).split()
    assert [token.type for token in parser.parse(text)] == [
        "paragraph_open",
        "inline",
        "paragraph_close",
    ]


@pytest.mark.parametrize("text", ["val_nll 2.1 missed the cutoff", "cat", "New York (US)", "a-b"])
def test_markdown_leaves_plain_texts_alone(text: str) -> None:
    assert markdown_text(text) == text


@given(st.text(alphabet="`a \n|"))
def test_nothing_in_code_ends_it(text: str) -> None:
    code = markdown_code(text)
    fence = code[: len(code) - len(code.lstrip("`"))]
    assert code.endswith(fence)
    assert fence not in code[len(fence) : -len(fence)]
    block = markdown_block(text).split("\n")
    assert block[0] == block[-1]
    assert not any(line.startswith(block[0]) for line in block[1:-1])


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_can_be_written_in_ascii(text: str) -> None:
    replacement, end = ascii_marks(UnicodeEncodeError("ascii", text, 0, len(text), "ordinal"))
    assert replacement.isascii()
    assert end == len(text)


def test_the_handler_is_for_encoding_only() -> None:
    with pytest.raises(UnicodeDecodeError, match="invalid"):
        ascii_marks(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"))
