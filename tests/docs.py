"""The code blocks of a documentation page."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def python_blocks(page: str) -> dict[str, str]:
    """The Python blocks of docs/`page`: by the file that their first line names, else by number."""
    found = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.M | re.S)
    blocks = {}
    for number, code in enumerate(found):
        name = re.match(r"# (\w+\.py)\n", code)
        blocks[name[1] if name else str(number)] = code
    return blocks
