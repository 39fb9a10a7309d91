"""Names of classes, as people gave them, in a form that every display and file can bear."""

import unicodedata

_BREAKS = {"Cc", "Zl", "Zp"}
"""Unicode's categories of control characters and of separators of lines."""


def class_name(text: str) -> str:
    """The name on one line, composed (NFC), without spaces at its ends.

    `é` may be one character or two, and of what looks the same the second class would be
    nobody's intention. A line break would tear tables apart, and an escape character steer
    terminals. Bytes that are no UTF-8 in the name of a file become U+FFFD.
    """
    letters = (_letter(letter) for letter in unicodedata.normalize("NFC", text))
    return " ".join("".join(letters).split())


def _letter(letter: str) -> str:
    category = unicodedata.category(letter)
    if category == "Cs":
        return "\ufffd"
    return " " if category in _BREAKS else letter
