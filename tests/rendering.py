"""Terminal output as lines of text."""

from rich.console import Console, RenderableType


def shown(view: RenderableType, width: int, *, height: int = 24) -> list[str]:
    """Return the lines that a terminal of this size shows, without colours."""
    console = Console(width=width, height=height, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(view)
    return capture.get().splitlines()
