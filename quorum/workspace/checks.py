"""Check that a run's folder matches its specification and data; write its first files."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import RunError
from common.files import write_arrays, write_bytes_atomically
from common.provenance import code_version, machine_description
from journal.events import RunStarted
from journal.journal import read_state
from journal.state import RunState
from search.space.initial_networks import initial_networks
from search.space.paths import with_absolute_paths
from search.space.spec import SweepSpec
from search.space.sweep_files import spec_from_mapping, spec_of_run
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits, notes_on
from trainables.hyperparameters import Architecture
from trainables.initial_weights import weights_identity
from trainables.lineage import SeenSplit, require_unseen
from trainables.records import SCHEMA, RunFolder


def spec_to_resume(folder: RunFolder, spec: SweepSpec) -> SweepSpec:
    """Return the specification that the run in `folder` started with; `spec` must equal it.

    Pictures may be hidden or shown and the disk space changed at any time, because no trial depends
    on them. The folder of the data may have moved: the images are compared.

    Raises:
        RunError: `spec` is neither what the user asked for nor what was planned from it.
    """

    def updated(known: SweepSpec) -> SweepSpec:
        dataset = replace(known.dataset, path=spec.dataset.path or known.dataset.path)
        return known.with_values(pictures=spec.pictures, disk_gb=spec.disk_gb, dataset=dataset)

    first, asked = updated(spec_of_run(folder)), _asked_of(folder)
    accepted = [first] if asked is None else [first, updated(asked)]
    # Earlier versions stored relative paths as they were given.
    if with_absolute_paths(spec) not in map(with_absolute_paths, accepted):
        raise RunError(
            f"{folder.root} was started with another specification; "
            "resume it with its own sweep.yaml, or choose another folder"
        )
    return first


def require_other_data(spec: SweepSpec) -> None:
    """Refuse a missing or empty folder of out-of-distribution images before hours of training.

    Raises:
        DataError: there is no such folder, or it has fewer than two images.
    """
    from ensemble.robustness.other_data import image_paths

    if spec.robustness.enabled and spec.robustness.ood is not None:
        image_paths(Path(spec.robustness.ood), most=2)


def require_same_split(folder: RunFolder, state: RunState, split_id: str) -> None:
    """Refuse images other than those the run started with.

    Raises:
        RunError: `split_id` differs from that of the journal.
    """
    started = state.started
    if started is not None and started.split_id != split_id:
        raise RunError(
            f"{folder.root} has split {started.split_id}, the data now give {split_id}: the images "
            "have changed, or an earlier version divided them by another rule; restore the images, "
            "or start a new run"
        )


def require_same_weights(folder: RunFolder, state: RunState, spec: SweepSpec) -> None:
    """Refuse files of initial weights other than those the run started with.

    Raises:
        RunError: a file is missing or has changed; the message names it.
    """
    started = state.started
    recorded = {} if started is None else started.weights  # empty in journals of old versions
    for path, digest in weights_of(spec).items():
        if path in recorded and recorded[path] != digest:
            raise RunError(
                f"the weights in {path} {'have changed' if digest else 'are missing'} since "
                f"{folder.root} started; restore them, or start a new run"
            )


def require_unseen_splits(spec: SweepSpec, images: ImageSet, splits: Splits) -> None:
    """Refuse initial weights that were trained with another split of these images.

    Raises:
        SpecError: the message names the file.
    """
    present = SeenSplit(fingerprint=images.fingerprint, split_id=splits.split_id)
    for architecture in _architectures(spec):
        require_unseen(architecture, present)


def weights_of(spec: SweepSpec) -> dict[str, str | None]:
    """Return the initial weights by name with their SHA-256; None for those that are missing."""
    weights = weights_identity(spec.student_recipe().architecture)
    for architecture in _architectures(spec):
        weights |= weights_identity(architecture)
    return weights


def _architectures(spec: SweepSpec) -> list[Architecture]:
    """Return the networks with initial weights that trials of any family may have."""
    return [network for name in (spec.families or [""]) for network in initial_networks(spec, name)]


def stages_left(folder: RunFolder, stages: Collection[str]) -> list[str]:
    """Return the stages, among `stages`, whose result is missing."""
    done: set[str] = set()
    if folder.selection.exists():
        done |= {"sweep", "seeds", "select"}
        if (folder.student / "card.json").exists():
            done.add("distill")
            if (folder.ledger / "ledger.json").exists():
                done.add("ledger")
    return [stage for stage in stages if stage not in done]


def seeds_left_out(folder: RunFolder) -> bool:
    """Return whether the run's last plan had no time for seeds."""
    state = read_state(folder.journal)
    plan = state.plan
    if plan is None or plan.deadline is None or state.trials.of_kind("seed"):
        return False
    return not plan.seconds.get("seeds", 0.0)


def write_labels(folder: RunFolder, images: ImageSet, splits: Splits) -> None:
    """Write the labels of val and holdout and the names of skipped images, unless present."""
    if folder.labels.exists():
        return
    arrays = {"val": images.labels[splits.val], "holdout": images.labels[splits.holdout]}
    write_arrays(folder.labels, arrays)
    if images.skipped:
        names = "".join(f"{name}\n" for name in images.skipped)
        write_bytes_atomically(folder.skipped, names.encode(errors="surrogateescape"))


def started_event(
    folder: RunFolder,
    spec: SweepSpec,
    images: ImageSet,
    splits: Splits,
    *,
    asked: SweepSpec,
    settings: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
) -> RunStarted:
    """Return the journal's first event; `asked` is the specification before planning.

    `settings` are the changes that options made to the sweep; `notes` are kept beside those on
    the images.
    """
    return RunStarted(
        schema=SCHEMA,
        spec=spec.to_mapping(),
        split_id=splits.split_id,
        fingerprint=images.fingerprint,
        sizes=splits.sizes,
        class_names=tuple(images.class_names),
        image_size=images.image_size,
        skipped=len(images.skipped),
        notes=(*notes, *notes_on(images, splits)) or None,
        weights=weights_of(spec),
        asked=asked.to_mapping(),
        settings=tuple(settings),
        run=folder.name,
        machine=machine_description(),
        code_version=code_version(),
    )


def _asked_of(folder: RunFolder) -> SweepSpec | None:
    """Return the specification that the user gave, before its schedules were planned."""
    started = read_state(folder.journal).started
    if started is None or started.asked is None:
        return None
    return spec_from_mapping(started.asked)
