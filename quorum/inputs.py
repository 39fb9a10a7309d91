"""Turn the plain values of the public functions into specifications, folders and displays."""

import dataclasses
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import SpecError
from quorum.options import AnyOptions, RunOptions, SearchOptions
from quorum.outcome import AnyRun, Outcome
from quorum.resuming import resumed_sweep
from quorum.workspace.listing import Runs
from search.space.settings import ProfileChoice, with_settings
from search.space.spec import SweepSpec
from search.space.sweep_files import load_spec, spec_from_mapping
from trainables.records import RunFolder

Sweep = str | Path | SweepSpec


def prepare_run(sweep: Sweep, options: RunOptions, *, default: str) -> tuple[SweepSpec, RunFolder]:
    """Return the specification and the folder of a run to start or resume."""
    spec = resolve_sweep(sweep, options, name=default)
    name = default if options.resume and options.name is None else options.name
    return spec, Runs(options.runs).new(name, default=default, resume=options.resume)


def resolve_sweep(sweep: Sweep, options: RunOptions, *, name: str) -> SweepSpec:
    """Return the sweep with the options applied, or the sweep of the run to resume.

    Raises:
        SpecError: there is no such sweep, it has an impossible value, or an option would change
            the run to resume.
        RunError: there is no run to resume, or it was started with another sweep.
    """
    if options.device == "cuda" and options.address is None:
        from trainables.device.gpus import require_gpu  # imports torch

        require_gpu()  # before the data are read, which may take long
    folder = run_to_resume(options, default=name)
    if folder is not None:
        return resumed_sweep(sweep, options, folder)
    if not isinstance(sweep, SweepSpec):
        spec = load_spec(sweep, profile=_profile(options), settings=options.set)
    elif options.set:
        spec = spec_from_mapping(with_settings(sweep.to_mapping(), options.set))
    else:
        spec = sweep
    dataset = _given(path=None if options.data is None else str(options.data))
    if options.skip_unreadable:
        dataset["skip_unreadable"] = True
    changes = _given(
        pictures=options.pictures,
        disk_gb=options.disk_gb,
        storage=None if options.storage is None else str(options.storage),
        trials=getattr(options, "trials", None),
        members=getattr(options, "members", None),
    )
    known = spec.to_mapping()
    changes["dataset"] = {**known["dataset"], **dataset}
    if isinstance(options, SearchOptions):
        changes["gates"] = {**known["gates"], **options.budgets}
        changes["selection"] = {**known["selection"], **options.selection}
    # Values from Python may have any type; they are checked like those of a file.
    return spec_from_mapping({**known, **changes})


def run_to_resume(options: RunOptions, *, default: str) -> RunFolder | None:
    """Return the folder of the run to resume, called `default` without a name; None for a new run.

    Raises:
        RunError: there is no such run.
    """
    if not options.resume:
        return None
    return Runs(options.runs).new(options.name, default=default, resume=True)


@contextmanager
def show_progress(spec: SweepSpec, folder: RunFolder, options: AnyOptions) -> Iterator[AnyOptions]:
    """Show a run's progress on standard error; yield the options with it as observer."""
    if not options.progress:
        yield options
        return
    from analysis.terminal.live_display import LiveDisplay

    with LiveDisplay(sys.stderr, spec, journal=folder.journal) as display:
        yield dataclasses.replace(options, observers=(display.apply, *options.observers))


def resolve_ablation(
    sweep: Sweep | None, of: RunFolder | None, options: RunOptions
) -> tuple[Sweep, str]:
    """Return the sweep of an ablation and the default name of its run."""
    if sweep is None and of is None and options.resume and options.name is not None:
        return Runs(options.runs).existing(options.name).sweep, options.name
    if sweep is None and of is None:
        raise SpecError("name the SWEEP to ablate, or a run with --of")
    if sweep is not None:
        return sweep, f"{default_name(sweep)}-ablation"
    assert of is not None
    return of.sweep, f"{of.name}-ablation"


def find_run(run: AnyRun, runs: str | Path | None) -> RunFolder:
    """Return the folder of a run that exists.

    Raises:
        RunError: there is no such run.
    """
    return Runs(runs).existing(path_of_run(run))


def path_of_run(run: AnyRun) -> str:
    """Return a run's path or name."""
    if isinstance(run, Outcome):
        run = run.folder
    return str(run.root if isinstance(run, RunFolder) else run)


def default_name(sweep: Sweep) -> str:
    """Return the name that a sweep's runs get by default."""
    return sweep.name if isinstance(sweep, SweepSpec) else Path(sweep).stem


def _profile(options: RunOptions) -> ProfileChoice:
    """Return the profile of the machines that train: this one, or the nodes of the cluster."""
    if options.profile is not None or options.address is None:
        return options.profile
    from search.tune.cluster_site import profile_at  # imports Ray

    return functools.cache(functools.partial(profile_at, options.address))


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
