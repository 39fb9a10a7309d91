"""Extract the code blocks of a documentation page."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def python_blocks(page: str) -> dict[str, str]:
    """Return the Python blocks of docs/`page`, keyed by the file that line 1 names, or a number."""
    blocks = {}
    for number, code in enumerate(_blocks(page, "python")):
        name = re.match(r"# (\w+\.py)\n", code)
        blocks[name[1] if name else str(number)] = code
    return blocks


def yaml_blocks(page: str) -> list[str]:
    """Return the YAML blocks of docs/`page`."""
    return _blocks(page, "yaml")


def _blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)
