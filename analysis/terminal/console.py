"""The console that prints every view: texts are shown verbatim, and never change the terminal.

Rich would read `[red]` in a name as markup and `:cat:` as an emoji, and passes escape codes on.
"""

from collections.abc import Iterable
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from common.printable import printable


class PlainConsole(Console):
    """A console without markup, whose texts keep no control characters but line breaks.

    If a reader such as `head` closes the pipe, it raises BrokenPipeError, where rich would exit
    with 1.
    """

    def __init__(
        self,
        file: IO[str] | None = None,
        *,
        highlight: bool = True,
        width: int | None = None,
        height: int | None = None,
        force_terminal: bool | None = None,
    ) -> None:
        """Print on `file`, standard output by default; the other options are rich's."""
        super().__init__(
            file=file,
            markup=False,
            emoji=False,
            highlight=highlight,
            width=width,
            height=height,
            force_terminal=force_terminal,
        )

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield segments whose texts are harmless; rich's own control codes are kept."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text, keep="\n"), segment.style)

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError."""
        raise BrokenPipeError("the reader of the output has closed it")
