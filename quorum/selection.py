"""Select an ensemble, from a run's finished trials or from a file of predictions."""

from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import PoolError, RunError
from common.files import dump_json, write_bytes_atomically, write_json_once
from common.parsing import to_mapping
from search.space.spec import spec_of_run
from trainables.records import RunFolder

if TYPE_CHECKING:
    from ensemble.selection.selection import Selection

DEFAULT_MEMBERS = 5
"""Default for the largest ensemble selected from a file of predictions."""


def select_run(
    folder: RunFolder, *, members: int | None = None, out: Path | None = None
) -> "Selection":
    """Select at most `members` of a run's finished trials; write selection.json and return it.

    The selection in the run's own folder is frozen: a different one must go elsewhere, to the
    folder `out`. `members` defaults to the sweep's.

    Raises:
        RunError: the run has a different selection already, and `out` is None.
        PoolError: no trial of the run can be selected.
    """
    from ensemble.selection.decision import select_ensemble
    from ensemble.selection.run_pool import pool_from_run

    if out is not None:
        _check_folder(out)
    spec = spec_of_run(folder)
    most = spec.most_members if members is None else members
    selection = select_ensemble(pool_from_run(folder), members=most, seed=spec.seed)
    if out is not None:
        _write(selection, out)
        return selection
    try:
        write_json_once(folder.selection, to_mapping(selection))
    except RunError:
        raise RunError(
            f"{folder.selection} is frozen and differs from this selection; "
            "write the new one elsewhere with --out DIR"
        ) from None
    return selection


def select_pool(pool: Path, *, members: int | None = None, out: Path | None = None) -> "Selection":
    """Select at most `members` (5) models of POOL.npz; write selection.json to `out` if given.

    Raises:
        PoolError: the file holds no usable predictions.
    """
    from ensemble.selection.decision import select_ensemble
    from ensemble.selection.pool_file import load_pool

    if out is not None:
        _check_folder(out)
    try:
        loaded = load_pool(pool)
    except UnicodeDecodeError as error:
        raise PoolError(f"{pool}: names must be UTF-8, got {error.object!r}") from None
    selection = select_ensemble(loaded, members=DEFAULT_MEMBERS if members is None else members)
    if out is not None:
        _write(selection, out)
    return selection


def _check_folder(folder: Path) -> None:
    """Refuse a folder to write to that is a file, or lies below one."""
    for path in (folder, *folder.parents):
        if path.is_dir():
            return
        if path.exists():
            raise RunError(f"{path} is a file; give --out a folder to write selection.json to")


def _write(selection: "Selection", folder: Path) -> None:
    write_bytes_atomically(folder / "selection.json", dump_json(to_mapping(selection)).encode())
