"""A resumed run honours or refuses what it is given, and never ignores it."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.errors import RunError, SpecError
from journal.events import RunResumed
from journal.journal import Journal, changed_on_resume, read_events
from quorum.inputs import resolve_sweep
from quorum.options import AblationOptions, RunOptions, SearchOptions
from quorum.resuming import settings_of
from quorum.workspace.checks import spec_to_resume
from search.space.paths import with_absolute_paths
from search.space.sections import RobustnessSpec
from search.space.spec import SweepSpec
from search.space.sweep_files import load_spec, spec_from_mapping, spec_of_run
from tests.events import of_type, run_started, trial_started
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
        ({"space": {"adamw_lr": TINY["space"]["adamw_lr"]}}, r"space\.attention.*null"),  # type: ignore[index]
        (
            {"recipe": {"batch_size": 64, "flip": False, "optimizer": "adamw"}},
            r"recipe\.width=null",
        ),
        ({"student": {}}, r"student\.recipe.*"),
        ({"space": {}}, r"space\.adamw_lr.*null"),
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
    other = write(tmp_path / "other.yaml", name="other", description="the same")
    assert resumed(other, tmp_path).name == "tiny"


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
    with pytest.raises(SpecError, match=f"{flag} applies to new runs"):
        resumed(sweep, tmp_path, **options)


@pytest.mark.parametrize("option", [{"factors": "flip"}, {"epochs": 7}])
def test_a_resumed_ablation_keeps_its_comparison(option: dict[str, Any], tmp_path: Path) -> None:
    start(write(tmp_path / "tiny.yaml"), tmp_path)
    given = AblationOptions(runs=tmp_path, name="tiny", resume=True, **option)
    with pytest.raises(SpecError, match=f"--{next(iter(option))} applies to new runs"):
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
    assert resumed(sweep, tmp_path, trials=tiny_spec().trials), "as many as at the start"


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
    assert spec_of_run(folder).dataset.path == str(tmp_path / "new")
    assert changed_on_resume(folder.journal) == {"data": str(tmp_path / "new")}
    with quick_run(folder, spec_of_run(folder), resume=True):
        pass
    moves = [event.data for event in of_type(read_events(folder.journal), RunResumed)]
    assert moves == [str(tmp_path / "new"), None]


def test_disk_space_given_to_a_resume_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUORUM_CACHE", str(tmp_path / "cache"))
    folder_of_noise(tmp_path / "images", side=8)
    folder = RunFolder(tmp_path / "tiny")
    with quick_run(folder, photos(tmp_path / "images")):
        pass
    given = RunOptions(runs=tmp_path, name="tiny", resume=True, disk="7GB")
    with quick_run(folder, resolve_sweep(folder.sweep, given, name="tiny"), resume=True):
        pass
    assert spec_of_run(folder).disk_gb == 7
    with quick_run(folder, spec_of_run(folder), resume=True) as run:
        assert run.spec.disk_gb == 7
    assert changed_on_resume(folder.journal) == {"disk_gb": 7}


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


def test_a_folder_of_other_data_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = tiny_spec().with_values(robustness=RobustnessSpec(ood="others"))
    absolute = with_absolute_paths(spec)
    assert absolute.robustness.ood == str(tmp_path / "others")
    assert with_absolute_paths(absolute) is absolute


def test_a_relative_file_of_weights_is_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = {"model": "timm:resnet18", "pretrained": "a.safetensors"}
    sweep = write(tmp_path / "tiny.yaml", recipe=recipe, space={})
    folder = RunFolder(tmp_path / "tiny")
    folder.root.mkdir()
    asked = load_spec(sweep)
    folder.sweep.write_text(asked.to_yaml())  # as earlier versions stored it
    for stored in (asked, with_absolute_paths(asked)):
        with Journal(folder.journal) as journal:
            mapping = stored.to_mapping()
            journal.append(run_started(spec=mapping, asked=mapping, settings=()))
        assert resumed(sweep, tmp_path) == asked
        assert spec_to_resume(folder, with_absolute_paths(asked)) == asked
        folder.journal.unlink()


def test_a_start_that_is_a_file_of_weights_becomes_absolute_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    choices = {"type": "categorical", "choices": ["a.pth", "b.pth"], "start": "b.pth"}
    spec = spec_from_mapping(
        {**TINY, "recipe": {"model": "timm:resnet18"}, "space": {"pretrained": choices}}
    )
    searched = with_absolute_paths(spec).space["pretrained"]
    assert searched["start"] == str(tmp_path / "b.pth")


@pytest.mark.parametrize("content", ["", "[1, 2]", "tiny"])
def test_a_file_without_values_is_one_clear_error(content: str, tmp_path: Path) -> None:
    start(write(tmp_path / "tiny.yaml"), tmp_path)
    (tmp_path / "tiny.yaml").write_text(content)
    with pytest.raises(SpecError, match=r"tiny\.yaml"):
        resumed(tmp_path / "tiny.yaml", tmp_path)


def test_a_run_of_an_earlier_version_is_told_of_a_difference(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It recorded no options, so an edit and an earlier --set look the same."""
    sweep = write(tmp_path / "tiny.yaml")
    folder = start(sweep, tmp_path)
    lines = folder.journal.read_text().replace('"settings":[],', "")
    folder.journal.write_text(lines)
    assert resumed(write(sweep, trials=9), tmp_path) == spec_of_run(folder)
    assert "tiny.yaml: trials=9" in caplog.text


def test_a_request_for_the_ensemble_is_part_of_the_run(tmp_path: Path) -> None:
    sweep = write(tmp_path / "tiny.yaml")
    folder = start(sweep, tmp_path, source="search", diversity=0.5)
    spec = spec_of_run(folder)
    assert (spec.selection.source, spec.selection.diversity) == ("search", 0.5)
    assert resumed(sweep, tmp_path) == spec
    assert resumed(sweep, tmp_path, source="search") == spec
    with pytest.raises(SpecError, match="--weighting applies to new runs"):
        resumed(sweep, tmp_path, weighting="learned")
