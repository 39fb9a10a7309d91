r"""Show text that others wrote, such as names of classes and files, without its control characters.

A name may hold escape codes that change a terminal, line breaks that forge a line of output, or
marks that reverse the text after them. Such characters are shown as Python would write them:
`\x1b`, `\n`, `\u202e`. Undecodable bytes of a file's name are shown as `\xff`.
"""

import re
import unicodedata

from common.formats import one_line

JOINERS = "\u200c\u200d"
"""Format characters that words and emoji need."""

ASCII_MARKS = {
    "–": "-", "−": "-", "·": "-", "…": "~", "×": "x", "→": "->", "←": "<-", "≥": ">=", "≤": "<=",
    "±": "+-", "█": "#", "▒": "=", "░": ".", "━": "=", "─": "-", "✓": "+", "✗": "x", "●": ">",
    "○": "o", "★": "*", "“": '"', "”": '"', "‘": "'", "’": "'", "µ": "u", "²": "2", "\xa0": " ",
}  # fmt: skip
"""Typographic marks, and their replacements where only ASCII can be printed."""


def printable(text: str, *, keep: str = "") -> str:
    """Return `text` with escapes for control characters, except those in `keep`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character in keep or _harmless(character) else _escaped(character)
        for character in text
    )


def printable_line(text: str) -> str:
    """Return `text` on one line: runs of white space become a space, other controls escapes."""
    return printable(one_line(text))


def markdown_text(text: str) -> str:
    """Return one line that Markdown and the HTML made from it show as `text`.

    Only what could be markup is escaped: `val_nll 2.1` stays as it is.
    """
    line = _MARKDOWN.sub(r"\\\g<0>", printable(text).strip())
    line = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", line)  # a numbered list
    return line.replace("&", "&amp;").replace("<", "&lt;")


def markdown_code(text: str) -> str:
    """Return `text` as a span of Markdown code, fenced by more backticks than it contains."""
    line = printable(text)
    fence = _fence(line, 1)
    pad = " " if line.startswith("`") or line.endswith("`") or not line.strip() else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def markdown_block(text: str) -> str:
    """Return lines of text as a block of Markdown code that nothing in them ends."""
    lines = printable(text, keep="\n\t")
    fence = _fence(lines, 3)
    return f"{fence}\n{lines}\n{fence}"


def ascii_marks(error: UnicodeError) -> tuple[str, int]:
    """Replace what a stream cannot encode: an error handler for `codecs.register_error`.

    Typographic marks become ASCII; other characters become escapes.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unencodable = error.object[error.start : error.end]
    return "".join(ASCII_MARKS.get(c) or _escaped(c) for c in unencodable), error.end


def _fence(text: str, least: int) -> str:
    """Return more backticks than `text` has in a row, and at least `least`."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)


def _harmless(character: str) -> bool:
    category = unicodedata.category(character)
    if category == "Cf":
        return character in JOINERS
    return category not in ("Cc", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that Python could not decode, see PEP 383
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()


_MARKDOWN = re.compile(
    r"[\\`*\[\]|~$]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # not within words
    r"|^[#+\-=>]"  # headings, lists and quotes
    r"|:(?=//)|(?<=www)\.|@",  # what would become a link
    re.IGNORECASE,
)
