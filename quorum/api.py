"""The public functions of `import quorum`: plain values in, results out.

Every command of the command line calls one of these functions and prints what it returns.
Wherever a function takes a run, it accepts a run's name, its path, or what `run` returned.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from common.errors import DataError, SpecError
from quorum.inputs import (
    Sweep,
    default_name,
    find_run,
    path_of_run,
    prepare_run,
    resolve_ablation,
    resolve_sweep,
    run_to_resume,
    show_progress,
)
from quorum.options import (
    AblationOptions,
    BudgetOptions,
    PlanOptions,
    SearchOptions,
    with_options,
)
from quorum.outcome import AblationOutcome, AnyRun, Outcome
from quorum.process import prepares_process
from quorum.workspace.listing import Runs
from search.space.spec import SweepSpec
from search.space.sweep_files import load_spec, spec_of_run
from trainables.records import RunFolder

if TYPE_CHECKING:
    from analysis.facts.ladder import Level
    from analysis.facts.status import RunStatus
    from ensemble.deployment.conversion import Exported, Format
    from ensemble.deployment.onnx_model import Prediction
    from ensemble.selection.selection import Selection
    from journal.emitter import Observer
    from quorum.workspace.cleaning import Removable
    from search.ablation.ablation import Ablation
    from search.mlflow.mirror import SyncSummary
    from search.space.settings import Profile
    from search.timetable.preview import Preview
    from trainables.replay import Replay
    from trainables.trainer import EpochReport


@prepares_process
@with_options(SearchOptions)
def run(sweep: Sweep, options: SearchOptions) -> Outcome:
    """Turn labelled images into a released student: sweep, seeds, selection, student, report.

    `sweep` is a shipped sweep's name, the path of a YAML file, or a SweepSpec.

    Raises:
        QuorumError: an error that you can fix; finished work is kept, and `resume=True`
            continues it.
    """
    from quorum import pipeline

    spec, folder = prepare_run(sweep, options, default=default_name(sweep))
    with show_progress(spec, folder, options) as options:
        return pipeline.run(spec, folder, options)


@prepares_process
def demo(
    *, name: str | None = None, runs: str | Path | None = None, progress: bool = True
) -> Outcome:
    """Run everything on the bundled digits, in minutes; continue a demo that was interrupted."""
    from quorum import pipeline

    folder = Runs(runs).new(name, default="demo", resume_unfinished=True)
    spec = spec_of_run(folder) if folder.sweep.exists() else load_sweep("digits")
    options = SearchOptions(runs=runs, progress=progress, resume=folder.sweep.exists())
    with show_progress(spec, folder, options) as options:
        return pipeline.run(spec, folder, options)


@prepares_process
@with_options(SearchOptions)
def sweep(sweep: Sweep, options: SearchOptions) -> RunFolder:
    """Search only: train the sweep's trials and return the run's folder.

    `quorum.run` with `resume=True` and the same name continues from there.
    """
    from quorum import pipeline

    spec, folder = prepare_run(sweep, options, default=default_name(sweep))
    with show_progress(spec, folder, options) as options:
        return pipeline.sweep(spec, folder, options)


@prepares_process
@with_options(PlanOptions)
def plan(sweep: Sweep, options: PlanOptions) -> "Preview":
    """Check a sweep and its data, and forecast the run's trials, schedules and time.

    Nothing is trained or written, except for the cache of decoded images. With `resume`, the
    forecast covers the run's remaining stages and all of its trials.
    """
    from quorum.workspace.checks import stages_left
    from quorum.workspace.opening import site_at
    from search.timetable.preview import preview

    default = default_name(sweep)
    spec = resolve_sweep(sweep, options, name=default)
    stages: Sequence[str] = ("sweep",) if options.search_only else spec.stages
    resumed = run_to_resume(options, default=default)
    if resumed is not None:
        stages = stages_left(resumed, stages)
        spec = spec.with_values(trials=options.trials or spec.trials)
    with site_at(options.address) as site:
        return preview(
            spec,
            time_budget=options.budget_seconds,
            device=options.device,
            stages=stages,
            resumed=resumed is not None,
            site=site,
            workers=options.workers,
        )


@prepares_process
@with_options(AblationOptions)
def ablate(sweep: Sweep | None, options: AblationOptions) -> AblationOutcome:
    """Train a recipe without each of its factors in turn; measure each factor's effect on holdout.

    Every variant is trained from the same seeds. With `of`, the recipe is that of a run's best
    trial, and `sweep` may be None. The run's folder is called SWEEP-ablation by default.
    """
    from quorum import pipeline

    of = None if options.of is None else find_run(options.of, options.runs)
    sweep, default = resolve_ablation(sweep, of, options)
    spec, folder = prepare_run(sweep, options, default=default)
    with show_progress(spec, folder, options) as options:
        result = pipeline.ablate(spec, folder, options, of=of)
    return AblationOutcome(folder=folder, result=result)


@prepares_process
@with_options(AblationOptions)
def plan_ablation(sweep: Sweep | None, options: AblationOptions) -> "tuple[Preview, Ablation]":
    """Check an ablation and its data, and forecast its trainings and time; train nothing."""
    from quorum.workspace.opening import site_at
    from search.ablation.plan import preview_ablation

    of = None if options.of is None else find_run(options.of, options.runs)
    sweep, default = resolve_ablation(sweep, of, options)
    spec = resolve_sweep(sweep, options, name=default)
    with site_at(options.address) as site:
        return preview_ablation(
            spec,
            of=of,
            time_budget=options.budget_seconds,
            device=options.device,
            site=site,
            workers=options.workers,
            resumed=run_to_resume(options, default=default),
            **options.comparison,
        )


@prepares_process
def status(run: AnyRun, *, runs: str | Path | None = None) -> "RunStatus":
    """Return a run's progress and disk use, whether a process works on it or not."""
    from analysis.facts.status import read_status
    from quorum.workspace.cleaning import disk_usage

    folder = find_run(run, runs)
    return read_status(folder, disk_usage(folder))


@prepares_process
def select(
    pool: AnyRun,
    *,
    members: int | None = None,
    source: Literal["auto", "search", "seeds", "all"] | None = None,
    weighting: Literal["auto", "uniform", "learned"] | None = None,
    diversity: float | None = None,
    out: str | Path | None = None,
    runs: str | Path | None = None,
    progress: bool = True,
) -> "Selection":
    """Choose and weight an ensemble of at most `members` (default: the sweep's; 5 for a POOL.npz).

    `pool` is a run, or the path of a POOL.npz: `probs` float [M, N, K], `labels` int [N] and
    optionally `names` [M]. A run's selection is written to its folder, where it is frozen, or
    to the folder `out`; a pool's is written to `out` only. `source`, `weighting` and `diversity`
    restrict the ensembles that may be chosen, as the sweep's section `selection` does; by default
    they are the sweep's. On a terminal, `progress` shows steps that take longer than a second.
    """
    from analysis.terminal.progress_line import ProgressLine
    from quorum.selection import select_pool, select_run
    from quorum.trial_stages import end_search, has_unfinished

    given = {"members": members, "source": source, "weighting": weighting, "diversity": diversity}
    request = {name: value for name, value in given.items() if value is not None}
    target = None if out is None else Path(out)
    if isinstance(pool, str | Path) and str(pool).endswith(".npz"):
        with ProgressLine(sys.stderr if progress else None) as line:
            return select_pool(Path(pool), request, out=target, progress=line.report)
    folder = find_run(pool, runs)
    with ProgressLine(sys.stderr if progress else None) as line:
        if target is None and has_unfinished(folder):
            # Tried first, because to end paused trials, so that they can be selected, is final.
            with TemporaryDirectory() as elsewhere:
                select_run(folder, request, out=Path(elsewhere), progress=line.report)
            end_search(folder)
        return select_run(folder, request, out=target, progress=line.report)


@prepares_process
def distill(
    run: AnyRun,
    *,
    selection: str | Path | None = None,
    workers: int = 1,
    max_latency_ms: float | None = None,
    max_bytes: int | None = None,
    max_params: int | None = None,
    max_gflops: float | None = None,
    address: str | None = None,
    runs: str | Path | None = None,
    progress: bool = True,
    observers: "Sequence[Observer]" = (),
) -> Outcome:
    """Train another student on `workers` workers, quantize it, and evaluate it on test again.

    Its teacher is the run's ensemble, or that of the file `selection`, which `select` wrote for
    this run. The limits `max_…` on the released file's cost replace those of the run for this
    student. With the `address` of a Ray cluster, the workers run there.
    """
    from quorum import pipeline

    if workers < 1:
        raise SpecError(f"--workers must be at least 1, got {workers}")
    folder = find_run(run, runs)
    options = BudgetOptions(
        max_latency_ms=max_latency_ms,
        max_bytes=max_bytes,
        max_params=max_params,
        max_gflops=max_gflops,
        progress=progress,
        observers=observers,
        address=address,
    )
    with show_progress(spec_of_run(folder), folder, options) as options:
        return pipeline.distill(
            folder,
            options,
            workers=workers,
            budgets=options.budgets,
            selection=None if selection is None else Path(selection),
        )


@prepares_process
def replay(
    run: AnyRun,
    trial: str,
    *,
    runs: str | Path | None = None,
    on_report: "Callable[[EpochReport], None]" = lambda _: None,
) -> "Replay":
    """Train a trial again from its record and compare the weights; the run stays untouched.

    `on_report` is called after every epoch.
    """
    from quorum import pipeline

    return pipeline.replay(find_run(run, runs), trial, on_report=on_report)


@prepares_process
def report(run: AnyRun, *, pictures: bool | None = None, runs: str | Path | None = None) -> Path:
    """Draw a run's figures, typeset its report.pdf and return the path.

    `pictures` False leaves out the data set's images; None follows the run's specification.
    """
    from analysis.report.build import build_report

    return build_report(find_run(run, runs), pictures=pictures)


@prepares_process
def predict(
    model: AnyRun,
    images: str | Path | Sequence[str | Path],
    *,
    runs: str | Path | None = None,
    on_prediction: "Callable[[Prediction], None]" = lambda _: None,
    on_unreadable: "Callable[[Path, DataError], None] | None" = None,
) -> "tuple[Prediction, ...]":
    """Return class probabilities for image files of any size and format that Pillow reads.

    `model` is a run with a student, a student's folder, or an exported ONNX file. A folder among
    `images` stands for all images in it, at any depth. `on_prediction` is called with each
    prediction as soon as it is made. An unreadable image, or a folder without images, raises
    DataError, unless `on_unreadable` takes its path and the error.
    """
    from ensemble.deployment.onnx_model import classify
    from trainables.data.folder_tree import image_files

    if isinstance(images, str | Path):
        images = [images]
    file = Runs(runs).model(path_of_run(model))
    return classify(
        file,
        image_files(images, on_unreadable=on_unreadable),
        on_prediction=on_prediction,
        on_unreadable=on_unreadable,
    )


@prepares_process
def export(
    model: AnyRun,
    target: str | Path,
    *,
    format: "Format" = "onnx",
    images: str | Path | Sequence[str | Path] = (),
    runs: str | Path | None = None,
) -> "Exported":
    """Write a model in another format, and compare its predictions with the ONNX file's.

    `model` is as for `predict`; `images` are files or folders to compare on; without any, noise is
    used. Nothing is written if the predictions differ by more than 0.001 nats.
    """
    import numpy as np

    from ensemble.deployment.conversion import convert_model
    from ensemble.deployment.onnx_model import load_classifier
    from trainables.data.folder_tree import image_files
    from trainables.data.pixels import read_image

    classifier = load_classifier(Runs(runs).model(path_of_run(model)))
    about, size = classifier.describe(), classifier.input_size
    files = image_files([images] if isinstance(images, str | Path) else images)
    pixels = [read_image(file, size, about.resize_rule, about.grey_levels) for file in files]
    given = np.stack(pixels) if pixels else None
    return convert_model(classifier, Path(target), format=format, images=given)


@prepares_process
def serve(
    model: AnyRun,
    *,
    port: int = 8000,
    max_bytes: int = 20_000_000,
    runs: str | Path | None = None,
    on_start: "Callable[[str], None]" = lambda _: None,
) -> None:
    """Serve a page and JSON for a model on 127.0.0.1 until interrupted.

    `model` is as for `predict`. `on_start` is called with the page's address; `port` 0 takes a
    free port. Image files of more than `max_bytes` are refused.
    """
    from ensemble.deployment.onnx_model import load_classifier
    from quorum.serving.answers import Answers, Limits
    from quorum.serving.server import Server

    classifier = load_classifier(Runs(runs).model(path_of_run(model)))
    with Server(Answers(classifier, Limits(max_bytes=max_bytes)), port=port) as server:
        on_start(server.url)
        server.serve_forever()


@prepares_process
def ladder(*, data: str | Path | None = None, runs: str | Path | None = None) -> "list[Level]":
    """Return the levels of the reference problem, each with the result of its latest run.

    With `data`, only runs trained on this folder count.
    """
    from analysis.facts.ladder import ladder as levels

    found = Runs(runs)
    return levels(found, data=None if data is None else str(data), runs_folder=found.root)


@prepares_process
def sync(run: AnyRun, *, runs: str | Path | None = None) -> "SyncSummary":
    """Bring the MLflow view of a run up to date with its journal."""
    from quorum.workspace.mlflow_view import connect_described
    from search.mlflow.mirror import sync as sync_run

    return sync_run(find_run(run, runs), connect=connect_described)


@prepares_process
def clean(
    run: AnyRun,
    *,
    everything: bool = False,
    cache: bool = False,
    dry_run: bool = False,
    runs: str | Path | None = None,
) -> "list[Removable]":
    """Remove files that a run no longer needs or that can be made again; return what was removed.

    `everything` includes report.pdf and optuna.journal, `cache` this machine's decoded images.
    `dry_run` removes nothing.
    """
    from quorum.workspace.cleaning import clean as clean_run
    from quorum.workspace.cleaning import removable

    act = removable if dry_run else clean_run
    return act(find_run(run, runs), everything=everything, cache=cache)


@prepares_process
def load_run(run: AnyRun, *, runs: str | Path | None = None) -> Outcome:
    """Return the outcome of a run that is on disk."""
    from search.mlflow.mirror import tracking_uri

    folder = find_run(run, runs)
    return Outcome(folder=folder, tracking_uri=tracking_uri(folder))


@prepares_process
def load_sweep(
    sweep: str | Path,
    *,
    profile: "Profile | None" = None,
    set: "dict[str, Any] | Sequence[str]" = (),
) -> SweepSpec:
    """Load a shipped sweep by name, or a YAML file by path.

    `set` changes values, as in {"recipe.width": 64} or ["recipe.width=64"].
    """
    return load_spec(sweep, profile=profile, settings=set)
