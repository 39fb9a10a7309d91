"""Class names that are safe to print and store, whatever the folder's or column's text."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator

from trainables.data.notes import Note, listing, printable

_BREAKS = {"Cc", "Zl", "Zp"}
"""Unicode categories of control characters and line separators."""


def clean_class_name(text: str) -> str:
    r"""Return a class name on one line, in Unicode form NFC, without surrounding spaces.

    Without NFC, `é` as one character and as two would be two classes that look the same. Line
    breaks would break tables, and escape characters could control the terminal. A byte of a file
    name that is not UTF-8 becomes its character in Windows-1252, a superset of Latin-1, or an
    escape like `\x81` if it has none, so that different names stay different. A name without any
    visible character becomes its escapes.
    """
    letters = (_clean_letter(letter) for letter in text)
    cleaned = " ".join(unicodedata.normalize("NFC", "".join(letters)).split())
    return cleaned or "".join(
        f"\\u{ord(letter):04x}" for letter in unicodedata.normalize("NFC", text)
    )


def name_notes(names: Iterable[str]) -> Iterator[Note]:
    """Yield notes on names that are merged into one class, and on classes that look alike."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in dict.fromkeys(names):
        spellings[clean_class_name(name)].add(name)
    merged = {name: sorted(raw) for name, raw in spellings.items() if len(raw) > 1}
    if merged:
        pairs = [" = ".join(printable(raw) for raw in group) for group in merged.values()]
        yield Note(
            topic="merged_names",
            count=len(merged),
            text=f"folders or labels read as one class: {'; '.join(pairs[:3])}",
            examples=tuple(pairs[:3]),
        )
    not_utf8 = [name for name, raw in spellings.items() if any(map(_has_bytes, raw))]
    if not_utf8:
        yield Note(
            topic="not_utf8",
            count=len(not_utf8),
            text=f"class names that are not UTF-8, decoded as Windows-1252: {listing(not_utf8)}",
            examples=tuple(not_utf8[:3]),
        )
    alike: dict[str, list[str]] = defaultdict(list)
    for name in spellings:
        alike[unicodedata.normalize("NFKC", name).casefold()].append(name)
    similar = [" and ".join(sorted(group)) for group in alike.values() if len(group) > 1]
    if similar:
        yield Note(
            topic="similar_names",
            count=len(similar),
            text=f"classes that differ only in capitals or form stay apart: {listing(similar)}",
            examples=tuple(similar[:3]),
        )


def _clean_letter(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # Python's stand-in for a byte that is not UTF-8
        byte = bytes([ord(letter) - 0xDC00])
        decoded = byte.decode("cp1252", "replace")
        return f"\\x{byte.hex()}" if decoded == "\ufffd" else decoded
    category = unicodedata.category(letter)
    if category == "Cs":
        return f"\\u{ord(letter):04x}"
    return " " if category in _BREAKS else letter


def _has_bytes(name: str) -> bool:
    return any("\udc80" <= letter <= "\udcff" for letter in name)
