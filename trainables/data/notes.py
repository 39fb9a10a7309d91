"""Notes on a data set: what was left out, merged or read in part, counted and named.

A note is made where the loss happens: while a folder is listed, or while images are decoded. The
terminal, `quorum plan` and the report show the same notes.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from common.formats import plural

NAMED = 3
"""Largest number of examples that a note names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One thing about a data set that its user should know."""

    topic: str
    """A key for programs, e.g. `outside_classes`."""
    count: int
    """Number of images, files or folders concerned."""
    text: str
    """The note in words, with the count and some names; one line."""
    examples: tuple[str, ...] = ()
    """Names of the first things concerned, at most NAMED."""

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Restore a note from the output of `to_mapping`, read back from JSON.

        Raises:
            KeyError, TypeError, ValueError: a key is missing or a value is invalid.
        """
        return cls(
            topic=str(mapping["topic"]),
            count=int(mapping["count"]),
            text=str(mapping["text"]),
            examples=tuple(str(example) for example in mapping["examples"]),
        )

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def note(topic: str, names: Sequence[str], what: str, *, noun: str = "image") -> Note:
    """Return a note like `5 images WHAT: a.png, b.png, c.png, …` about the things in `names`."""
    return Note(
        topic=topic,
        count=len(names),
        text=f"{plural(len(names), noun)} {what}: {listing(names)}",
        examples=tuple(printable(name) for name in names[:NAMED]),
    )


def listing(names: Sequence[str], most: int = NAMED) -> str:
    """Return the first names, separated by commas, and an ellipsis if there are more."""
    shown = ", ".join(printable(name) for name in names[:most])
    return shown + (", …" if len(names) > most else "")


def kinds_text(kinds: Iterable[str]) -> str:
    """Return the number of each kind of file, the most common first: `3 .txt, 1 README`."""
    counts = sorted(Counter(kinds).items(), key=lambda kind: (-kind[1], kind[0]))
    shown = ", ".join(f"{count:,} {printable(kind)}" for kind, count in counts[: 2 * NAMED])
    more = len(counts) - 2 * NAMED
    return f"{shown} and {plural(more, 'more kind')}" if more > 0 else shown


def printable(name: str) -> str:
    r"""Return a name as one line of valid UTF-8; other characters become escapes like `\x1b`.

    Unlike `clean_class_name`, it keeps different names different.
    """
    if name.isprintable() and unicodedata.is_normalized("NFC", name):
        return name
    return "".join(_escaped(letter) for letter in name)


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # a byte of a file name that is not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    if letter.isprintable() and not unicodedata.combining(letter):
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode()
