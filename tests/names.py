"""Names that others could give to classes, members and files to change what a reader sees."""

import unicodedata

from hypothesis import strategies as st

PIECES = [
    "cat", "net[18]", "[red]", "[/red]", "[/]", "[link=x]", ":smile:", "\x1b[31m", "\x1b]0;t\x07",
    "\x1b[2J", "\x9b31m", "\n", "\r", "\t", "\x00", "\x08", "\u202e", "\u2066", "\u2028", "\u200b",
    "\ufeff", "\udcff", "\ud83d", "\U000e0041", "猫", "é", "`", "|", "<b>", "</script>", "&lt;",
    "*", "_", "#", "$x_1$", "\\", "'", '"', "{", "%", "\xa0",
]  # fmt: skip
ODD_NAMES = st.lists(st.sampled_from(PIECES) | st.characters(), min_size=1, max_size=5).map(
    lambda parts: "".join(("n", *parts))
)


def controls_in(text: str, *, allowed: str = "\n") -> set[str]:
    """Return the characters of `text` that a terminal obeys or a reader cannot see."""
    return {
        letter
        for letter in text
        if letter not in allowed
        and (
            unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")
            or (unicodedata.category(letter) == "Cf" and letter not in "\u200c\u200d")
        )
    }
