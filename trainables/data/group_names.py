"""Find the groups of a folder's images in their paths, e.g. `vid12` in `vid12_frame5.jpg`."""

import re
from collections.abc import Sequence

from common.errors import DataError, SpecError
from common.formats import plural
from trainables.data.notes import Note, note, printable


def check_pattern(pattern: str) -> None:
    """Refuse a pattern that is no regular expression.

    Raises:
        SpecError: the message has the reason.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise SpecError(
            f"groups must be a regular expression like 'patient\\d+', got {pattern!r}: {error}"
        ) from None


def groups_by_pattern(
    pattern: str, paths: Sequence[str], *, where: str
) -> tuple[tuple[str, ...], tuple[Note, ...]]:
    """Return the group of each path, and a note on those without one.

    A group's name is the pattern's first capture group, or the whole match if it has none, wherever
    it first occurs in the path. Paths that do not match have an empty name: they are in no group.

    Raises:
        DataError: no path matches, or all are in one group. `where` names the folder.
    """
    matches = [re.search(pattern, path) for path in paths]
    groups = tuple(
        "" if match is None else (match.group(1) if match.re.groups else match.group()) or ""
        for match in matches
    )
    names = {group for group in groups if group}
    if not names:
        raise DataError(
            f"groups: {pattern!r} matches none of the paths below {where}, such as "
            f"{printable(paths[0])}; it is searched in paths relative to that folder"
        )
    if len(names) == 1 and "" not in groups:
        raise DataError(
            f"groups: {pattern!r} puts all {plural(len(paths), 'image')} of {where} into one "
            f"group, {printable(groups[0])}; a group stays in one split: use a pattern that "
            "forms more"
        )
    alone = [path for path, group in zip(paths, groups, strict=True) if not group]
    if not alone:
        return groups, ()
    return groups, (note("ungrouped", alone, "in no group, because `groups` does not match"),)
