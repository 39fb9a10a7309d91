"""Select an ensemble, from a run's finished trials or from a file of predictions."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import PoolError, RunError
from common.files import dump_json, write_bytes_atomically, write_json_once
from common.parsing import to_mapping
from ensemble.selection.progress import Progress, silent
from search.space.sections import BUDGETS
from search.space.sweep_files import spec_of_run
from trainables.records import RunFolder

if TYPE_CHECKING:
    from ensemble.selection.candidates import Request
    from ensemble.selection.pool import Pool
    from ensemble.selection.selection import Selection

log = logging.getLogger(__name__)


def select_run(
    folder: RunFolder,
    request: Mapping[str, Any] | None = None,
    *,
    out: Path | None = None,
    progress: Progress = silent,
) -> "Selection":
    """Select from a run's finished trials; write selection.json and return it.

    The selection in the run's own folder is frozen: a different one must go elsewhere, to the
    folder `out`. `request` sets fields of `ensemble.selection.candidates.Request`; the other fields
    come from the sweep.

    Raises:
        RunError: the run has a different selection already, and `out` is None.
        PoolError: no trial of the run can be selected.
    """
    from ensemble.selection.candidates import Request
    from ensemble.selection.decision import select_ensemble
    from ensemble.selection.front import read_costs, with_front
    from ensemble.selection.run_pool import pool_from_run

    if out is not None:
        _check_folder(out)
    spec = spec_of_run(folder)
    given = dict(request or {})
    wanted = Request(**{"members": spec.most_members, **asdict(spec.selection), **given})
    pool = pool_from_run(folder, progress=progress)
    if "source" not in given:
        wanted = _possible(wanted, pool)
    gates = spec.gates
    selection = with_front(
        select_ensemble(pool, wanted, seed=spec.seed, progress=progress),
        pool,
        read_costs(folder.costs),
        {name.removeprefix("max_"): getattr(gates, name) for name in BUDGETS},
    )
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


def select_pool(
    pool: Path,
    request: Mapping[str, Any] | None = None,
    *,
    out: Path | None = None,
    progress: Progress = silent,
) -> "Selection":
    """Select models of POOL.npz; write selection.json to `out` if given.

    Raises:
        PoolError: the file holds no usable predictions, or none that `request` allows.
    """
    from ensemble.selection.candidates import Request
    from ensemble.selection.decision import select_ensemble
    from ensemble.selection.pool_file import load_pool

    if out is not None:
        _check_folder(out)
    try:
        loaded = load_pool(pool, progress=progress)
    except UnicodeDecodeError as error:
        raise PoolError(f"{pool}: names must be UTF-8, got {error.object!r}") from None
    selection = select_ensemble(loaded, Request(**(request or {})), progress=progress)
    if out is not None:
        _write(selection, out)
    return selection


def _check_folder(folder: Path) -> None:
    """Refuse an output folder that is a file, or lies below one."""
    for path in (folder, *folder.parents):
        if path.is_dir():
            return
        if path.exists():
            raise RunError(f"{path} is a file; give --out a folder to write selection.json to")


def _possible(request: "Request", pool: "Pool") -> "Request":
    """Replace the sweep's source `seeds` if the run's time budget left no time for seeds."""
    if request.source == "seeds" and "seed" not in pool.kinds:
        log.warning("no seed of the best recipe was trained; the source of the members is auto")
        return replace(request, source="auto")
    return request


def _write(selection: "Selection", folder: Path) -> None:
    write_bytes_atomically(folder / "selection.json", dump_json(to_mapping(selection)).encode())
