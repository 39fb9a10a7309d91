"""A resumed run honours or refuses what it is given, and never ignores it."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.errors import RunError, SpecError
from journal.events import RunResumed
from journal.journal import moved_data, read_events
from quorum.inputs import resolve_sweep
from quorum.options import AblationOptions, RunOptions, SearchOptions
from quorum.resuming import settings_of
from search.space.paths import with_absolute_paths
from search.space.spec import SweepSpec, load_spec, spec_from_mapping, spec_of_run
from tests.events import of_type, trial_started
from tests.opening import quick_run
from tests.quorum.workspace.test_run import folder_of_noise
from tests.tiny import TINY, tiny_spec
from trainables.data.dataset import DatasetSpec
from trainables.data.splits import SplitSpec
from trainables.records import RunFolder


def write(path: Path, **changes: Any) -> Path:
    """Write the tiny sweep to a file, with some values changed."""
    path.write_text(yaml.safe_dump({**TINY, **changes}))
    return path


def start(sweep: Path, runs: Path, **options: Any) -> RunFolder:
    """Start a run of a sweep's file, without training anything."""
    given = SearchOptions(runs=runs, **options)
    folder = RunFolder(runs / "tiny")
    spec = resolve_sweep(sweep, given, name="tiny")
    with quick_run(folder, spec, settings=settings_of(given)):
        return folder


def resumed(sweep: str | Path | SweepSpec, runs: Path, **options: Any) -> SweepSpec:
    """Return the specification with which a run named `tiny` is resumed."""
    given = SearchOptions(runs=runs, name="tiny", resume=True, **options)
    return resolve_sweep(sweep, given, name="tiny")


def test_the_same_file_resumes_its_run(tmp_path: Path) -> None:
    sweep = write(tmp_path / "tiny.yaml")
    folder = start(sweep, tmp_path)
    assert resumed(sweep, tmp_path) == spec_of_run(folder)
    assert resumed(folder.sweep, tmp_path) == spec_of_run(folder)
    assert resumed(tiny_spec(), tmp_path) == spec_of_run(folder)


def test_options_of_the_start_stay_in_force(tmp_path: Path) -> None:
    """They are recorded, so that the same file resumes the run without them."""
    sweep = write(tmp_path / "tiny.yaml")
    folder = start(sweep, tmp_path, set=["recipe.width=16", "space.attention=null"], trials=9)
    assert resumed(sweep, tmp_path) == spec_of_run(folder)
    assert spec_of_run(folder).trials == 9


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"trials": 9}, r"trials=9; resume it with .*sweep\.yaml \(--trials may"),
        ({"rungs": [1, 3]}, r"rungs=\[1, 3\]"),
        ({"recipe": {**TINY["recipe"], "width": 16}}, r"recipe\.width=16"),  # type: ignore[dict-item]
        ({"seed": 1}, "seed=1"),
        ({"splits": {"counts": [300, 300, 300]}}, r"splits\.counts"),
    ],
)
def test_an_edited_file_is_refused_by_name(
    changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    sweep = write(tmp_path / "tiny.yaml")
    start(sweep, tmp_path)
    write(sweep, **changes)
    with pytest.raises(RunError, match=rf"tiny\.yaml differs from the sweep .*{named}"):
        resumed(sweep, tmp_path)


def test_a_file_that_names_the_same_values_otherwise_is_the_same(tmp_path: Path) -> None:
    sweep = write(tmp_path / "tiny.yaml")
    start(sweep, tmp_path)
    resumed(write(tmp_path / "other.yaml", name="other", description="the same"), tmp_path)


def test_a_shipped_sweep_that_differs_is_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have changed in a new version; the run keeps its own."""
    folder = start(write(tmp_path / "tiny.yaml"), tmp_path)
    with caplog.at_level(logging.WARNING):
        assert resumed("digits", tmp_path) == spec_of_run(folder)
    assert "keeps its own sweep.yaml, which differs from the sweep digits" in caplog.text


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"set": ["recipe.width=64"]}, "--set"),
        ({"members": 7}, "--members"),
        ({"skip_unreadable": True}, "--skip-unreadable"),
    ],
)
def test_options_that_change_a_run_are_refused(
    options: dict[str, Any], flag: str, tmp_path: Path
) -> None:
    sweep = write(tmp_path / "tiny.yaml")
    start(sweep, tmp_path)
    with pytest.raises(SpecError, match=f"{flag} changes a new run"):
        resumed(sweep, tmp_path, **options)


@pytest.mark.parametrize("option", [{"of": "x"}, {"factors": "flip"}, {"epochs": 7}])
def test_a_resumed_ablation_keeps_its_comparison(option: dict[str, Any], tmp_path: Path) -> None:
    start(write(tmp_path / "tiny.yaml"), tmp_path)
    given = AblationOptions(runs=tmp_path, name="tiny", resume=True, **option)
    with pytest.raises(SpecError, match=f"--{next(iter(option))} changes a new run"):
        resolve_sweep("digits", given, name="tiny")


def test_after_the_selection_no_trial_can_be_added(tmp_path: Path) -> None:
    sweep = write(tmp_path / "tiny.yaml")
    folder = start(sweep, tmp_path)
    with quick_run(folder, tiny_spec(), resume=True) as run:
        run.emit(trial_started("t0000"))
    assert resumed(sweep, tmp_path, trials=500)
    folder.selection.touch()
    with pytest.raises(RunError, match=r"--trials 500: .* from its 1 trials and is frozen"):
        resumed(sweep, tmp_path, trials=500)
    assert resumed(sweep, tmp_path, trials=1)


def photos(path: Path) -> SweepSpec:
    dataset = DatasetSpec(name="images", path=str(path), image_size=8)
    return tiny_spec().with_values(dataset=dataset, splits=SplitSpec())


def test_moved_data_are_found_with_data_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUORUM_CACHE", str(tmp_path / "cache"))
    folder_of_noise(tmp_path / "old", side=8)
    folder = RunFolder(tmp_path / "tiny")
    with quick_run(folder, photos(tmp_path / "old")):
        pass
    (tmp_path / "old").rename(tmp_path / "new")
    given = RunOptions(runs=tmp_path, name="tiny", resume=True, data=tmp_path / "new")
    spec = resolve_sweep(folder.sweep, given, name="tiny")
    with quick_run(folder, spec, resume=True) as run:
        assert run.spec.dataset.path == str(tmp_path / "new")
    assert spec_of_run(folder).dataset.path == moved_data(folder.journal) == str(tmp_path / "new")
    with quick_run(folder, spec_of_run(folder), resume=True):
        pass
    moves = [event.data for event in of_type(read_events(folder.journal), RunResumed)]
    assert moves == [str(tmp_path / "new"), None]


def test_other_images_are_refused_wherever_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUORUM_CACHE", str(tmp_path / "cache"))
    folder_of_noise(tmp_path / "old", side=8)
    folder_of_noise(tmp_path / "other", side=9)
    folder = RunFolder(tmp_path / "tiny")
    with quick_run(folder, photos(tmp_path / "old")):
        pass
    with (
        pytest.raises(RunError, match="the images have changed"),
        quick_run(folder, photos(tmp_path / "other"), resume=True),
    ):
        pass


def test_a_run_can_be_resumed_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths are those of the start."""
    monkeypatch.setenv("QUORUM_CACHE", str(tmp_path / "cache"))
    folder_of_noise(tmp_path / "data", side=8)
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "tiny")
    with quick_run(folder, photos(Path("data"))):
        pass
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with quick_run(folder, spec_of_run(folder), resume=True) as run:
        assert run.images.images.shape[0] == 180


def test_files_of_weights_become_absolute_at_any_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = "timm:resnet18"
    spec = spec_from_mapping(
        {
            **TINY,
            "recipe": {"model": model, "pretrained": "a.safetensors"},
            "space": {},
            "families": {
                "one": {"recipe": {"pretrained": "hub"}},
                "two": {"recipe": {"pretrained": "~/b.pth"}},
            },
        }
    )
    absolute = with_absolute_paths(spec)
    assert absolute.recipe["pretrained"] == str(tmp_path / "a.safetensors")
    assert absolute.families["one"].recipe["pretrained"] == "hub"
    assert absolute.families["two"].recipe["pretrained"] == str(Path.home() / "b.pth")
    assert with_absolute_paths(absolute) is absolute
    assert with_absolute_paths(load_spec("images")) == load_spec("images")
    searched = replace(
        tiny_spec(), space={"pretrained": {"type": "categorical", "choices": ["", "a.pth"]}},
        recipe={"model": model},
    )  # fmt: skip
    choices = with_absolute_paths(searched).space["pretrained"]["choices"]
    assert choices == ["", str(tmp_path / "a.pth")]
