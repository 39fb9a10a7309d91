"""Class names are one printable line, and different names stay different."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.class_names import clean_class_name, name_notes
from trainables.data.notes import printable


@pytest.mark.parametrize(
    "name",
    ["cat", "العربية", "עברית", "漢字かな", "👩\u200d👩\u200d👧", "a,b;c/d", "می\u200cخواهم",
     "[bold] $x^$ {0}", "\\x1b", "x" * 999],
)  # fmt: skip
def test_names_of_every_script_are_kept(name: str) -> None:
    assert clean_class_name(name) == name


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("cafe\u0301", "caf\u00e9"),
        ("line\nbreak\ttab\u2028end", "line break tab end"),
        ("\x1b[31mred", "[31mred"),
        (" spaces  inside ", "spaces inside"),
        ("p\udceache", "pêche"),
        ("p\udce8che", "pèche"),
        ("\udc81\udc93", "\\x81\u201c"),
        ("\ud800", "\\ud800"),
        ("\x01\n", "\\u0001\\u000a"),
    ],
)
def test_names_are_cleaned_for_display(raw: str, cleaned: str) -> None:
    assert clean_class_name(raw) == cleaned


@given(st.text(st.characters(exclude_categories=())))
def test_cleaned_names_are_one_printable_utf8_line(text: str) -> None:
    name = clean_class_name(text)
    assert clean_class_name(name) == name
    assert name.encode().decode() == name
    assert len(name.splitlines()) <= 1
    assert not {unicodedata.category(letter) for letter in name} & {"Cc", "Cs", "Zl", "Zp"}
    assert clean_class_name(unicodedata.normalize("NFD", text)) == name
    assert bool(name) == bool(text)


@given(st.sets(st.binary(min_size=1, max_size=3).filter(lambda name: not set(name) & {0, 0x2F})))
def test_names_of_files_stay_apart_where_only_bytes_differ(names: set[bytes]) -> None:
    """Bytes of an 8-bit encoding are never merged: only spaces and controls are."""
    visible = {name for name in names if min(name) > 0x20 and not set(name) & {0x7F, 0xA0}}
    latin = {name for name in visible if not _is_utf8(name)}
    assert len({clean_class_name(os.fsdecode(name)) for name in latin}) == len(
        {clean_class_name(_as_cp1252(name)) for name in latin}
    )


def _is_utf8(name: bytes) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in os.fsdecode(name))


def _as_cp1252(name: bytes) -> str:
    """Replace each byte that is not UTF-8 by Windows-1252, byte by byte."""
    return "".join(
        bytes([ord(letter) - 0xDC00]).decode("cp1252", "backslashreplace")
        if "\udc80" <= letter <= "\udcff"
        else letter
        for letter in os.fsdecode(name)
    )


def test_notes_name_merged_and_similar_names() -> None:
    names = ["caf\u00e9", "cafe\u0301", "Cat", "cat", "dog", "p\udceache", "dog"]
    notes = {note.topic: note for note in name_notes(names)}
    assert {topic: note.count for topic, note in notes.items()} == {
        "merged_names": 1,
        "not_utf8": 1,
        "similar_names": 1,
    }
    assert notes["merged_names"].examples == ("cafe\\u0301 = caf\u00e9",)
    assert notes["not_utf8"].examples == ("pêche",)
    assert notes["similar_names"].examples == ("Cat and cat",)
    assert list(name_notes(["a", "b", "a"])) == []


@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_printable_names_are_one_line_of_utf8(text: str) -> None:
    shown = printable(text)
    assert shown.encode().decode() == shown
    assert shown.isprintable()


def test_names_of_files_are_written_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(printable("p\udceache\x1b"), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "p\\xeache\\x1b"
