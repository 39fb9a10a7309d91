"""Names of classes in any script, on one line."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.class_names import class_name


@pytest.mark.parametrize(
    "name",
    [
        "cat",
        "العربية",
        "עברית",
        "漢字かな",
        "👩\u200d👩\u200d👧",
        "a,b;c/d",
        "می\u200cخواهم",
        "x" * 999,
    ],
)
def test_names_of_every_script_stay_as_they_are(name: str) -> None:
    assert class_name(name) == name


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [
        ("cafe\u0301", "caf\u00e9"),
        ("line\nbreak\ttab\u2028end", "line break tab end"),
        ("\x1b[31mred", "[31mred"),
        (" spaces  inside ", "spaces inside"),
        ("no \udcff\udcfe UTF-8", "no \ufffd\ufffd UTF-8"),
    ],
)
def test_what_displays_cannot_bear_is_mended(given_name: str, expected: str) -> None:
    assert class_name(given_name) == expected


@given(st.text(st.characters(exclude_categories=())))
def test_a_name_can_be_shown_and_stored_and_is_mended_once(text: str) -> None:
    name = class_name(text)
    assert class_name(name) == name
    assert name.encode().decode() == name
    assert len(name.splitlines()) <= 1
    assert not {unicodedata.category(letter) for letter in name} & {"Cc", "Cs", "Zl", "Zp"}
    assert class_name(unicodedata.normalize("NFD", text)) == name
