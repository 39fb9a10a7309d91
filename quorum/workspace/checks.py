"""What a run folder must agree with before work goes on there, and what is written first."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from common.errors import RunError
from common.files import file_sha256, write_arrays, write_bytes_atomically
from journal.journal import Event, read_events
from search.space.spec import SweepSpec, spec_from_mapping, spec_of_run
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.hyperparameters import HUB
from trainables.records import SCHEMA, RunFolder


def spec_to_resume(folder: RunFolder, spec: SweepSpec) -> SweepSpec:
    """The specification that the run in `folder` was started with, `spec` being the same.

    Pictures may be hidden, or shown, at any time: they touch no trial.

    Raises:
        RunError: `spec` is neither what was asked for nor what was planned from it.
    """
    first = spec_of_run(folder).with_values(pictures=spec.pictures)
    asked = (one.with_values(pictures=spec.pictures) for one in _asked_of(folder))
    if spec not in (first, *asked):
        raise RunError(
            f"{folder.root} was started with another specification; "
            "resume it with its own sweep.yaml, or choose another folder"
        )
    return first


def require_same_split(folder: RunFolder, events: Sequence[Event], split_id: str) -> None:
    """Refuse images that are not those the run was started with.

    Raises:
        RunError: the split has another name than in the journal.
    """
    for event in events:
        if event["event"] == "run_started" and event["split_id"] != split_id:
            raise RunError(
                f"{folder.root} is of split {event['split_id']}, the data now give "
                f"{split_id}: the images have changed since; bring back those that it was "
                "started with, or start a new run"
            )


def require_same_weights(folder: RunFolder, events: Sequence[Event], spec: SweepSpec) -> None:
    """Refuse weights to begin with that are not those the run was started with.

    Raises:
        RunError: the file, which is gone or has changed.
    """
    began = next((event for event in events if event["event"] == "run_started"), {})
    told = began.get("weights", {})  # of versions before, nothing is known
    for path, digest in weights_of(spec).items() if told else ():
        if told.get(path) != digest:
            raise RunError(
                f"the weights in {path} {'have changed' if digest else 'are gone'} since "
                f"{folder.root} was started; bring them back, or start a new run"
            )


def weights_of(spec: SweepSpec) -> dict[str, str | None]:
    """Files of weights that trials may begin with, and their SHA-256; None of one that is gone."""
    choices = spec.space.get("pretrained", {}).get("choices", ())
    named = {spec.base_recipe().architecture.pretrained, *choices} - {"", HUB}
    return {
        path: file_sha256(Path(path)) if Path(path).is_file() else None for path in sorted(named)
    }


def stages_left(folder: RunFolder, stages: Collection[str]) -> list[str]:
    """Those of `stages` whose result is not there yet."""
    done: set[str] = set()
    if folder.selection.exists():
        done |= {"sweep", "seeds", "select"}
        if (folder.student / "card.json").exists():
            done.add("distill")
    return [stage for stage in stages if stage not in done]


def write_labels(folder: RunFolder, images: ImageSet, splits: Splits) -> None:
    """Leave the labels of val and holdout, and the names of images left out, if not there."""
    if folder.labels.exists():
        return
    arrays = {"val": images.labels[splits.val], "holdout": images.labels[splits.holdout]}
    write_arrays(folder.labels, arrays)
    if images.skipped:
        names = "".join(f"{name}\n" for name in images.skipped)
        write_bytes_atomically(folder.skipped, names.encode(errors="surrogateescape"))


def started_event(spec: SweepSpec, images: ImageSet, splits: Splits, **about: Any) -> Event:
    """The journal's first event; `about` is what else it tells."""
    return {
        "event": "run_started",
        "schema": SCHEMA,
        "spec": spec.to_mapping(),
        "split_id": splits.split_id,
        "fingerprint": images.fingerprint,
        "sizes": splits.sizes,
        "class_names": list(images.class_names),
        "image_size": images.image_size,
        "skipped": len(images.skipped),
        "weights": weights_of(spec),
        **about,
    }


def _asked_of(folder: RunFolder) -> Iterator[SweepSpec]:
    """What the run was asked for, before its schedules were planned."""
    for event in read_events(folder.journal):
        if event["event"] == "run_started" and "asked" in event:
            yield spec_from_mapping(event["asked"])
