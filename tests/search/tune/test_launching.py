"""A launched trial records the hash of its initial weights, wherever they come from."""

import hashlib
from pathlib import Path

import pytest

from journal.events import TrialStarted
from journal.journal import read_events
from search.space.sweep_files import spec_from_mapping
from tests.events import of_type
from tests.simulated_tune import SPEC, Sweep
from trainables.initial_weights import PACKAGED
from trainables.records import RunFolder, read_start

LITE0 = PACKAGED[0]


@pytest.mark.parametrize("source", ["package", "file", "none"])
def test_the_hash_of_the_initial_weights_is_in_every_record(source: str, tmp_path: Path) -> None:
    """In start.json, with which the trial is resumed and replayed, and only where there are any."""
    file = tmp_path / "backbone.safetensors"
    file.write_bytes(b"weights")
    recipe, weights = {
        "package": (
            {"model": LITE0.model, "pretrained": "package"},
            {LITE0.label: LITE0.sha256},
        ),
        "file": (
            {"pretrained": str(file)},
            {str(file): hashlib.sha256(b"weights").hexdigest()},
        ),
        "none": ({}, {}),
    }[source]
    spec = spec_from_mapping({**SPEC.to_mapping(), "trials": 2, "recipe": recipe})
    folder = RunFolder(tmp_path / "run")
    Sweep(folder, spec).run()
    started = of_type(read_events(folder.journal), TrialStarted)
    assert len(started) == 2
    for event in started:
        start = read_start(folder.trial(event.trial) / "start.json")
        assert start.weights == weights
        assert start.recipe.architecture.pretrained == recipe.get("pretrained", "")
