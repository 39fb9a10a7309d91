"""Groups of a folder's images come from a pattern, and stay in one split."""

from pathlib import Path

import pytest

from common.errors import DataError, SpecError
from tests.trainables.data.samples import write_images
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.group_names import groups_by_pattern
from trainables.data.splits import SPLITS, SplitSpec, make_splits


def test_the_first_parenthesis_or_the_match_names_the_group() -> None:
    paths = ["a/patient1_x.png", "b/patient1_y.png", "b/patient22.png", "c/other.png"]
    groups, notes = groups_by_pattern(r"patient(\d+)", paths, where="set")
    assert groups == ("1", "1", "22", "")
    assert [(note.topic, note.count, note.examples) for note in notes] == [
        ("ungrouped", 1, ("c/other.png",))
    ]
    groups, notes = groups_by_pattern(r"patient\d+", paths[:3], where="set")
    assert (groups, notes) == (("patient1", "patient1", "patient22"), ())


def test_patterns_that_group_nothing_or_everything_are_refused() -> None:
    with pytest.raises(DataError, match=r"matches none of the paths below set, such as a/1\.png"):
        groups_by_pattern("patient", ["a/1.png", "b/2.png"], where="set")
    with pytest.raises(DataError, match="puts all 2 images of set into one group, png"):
        groups_by_pattern("png", ["a/1.png", "b/2.png"], where="set")
    with pytest.raises(SpecError, match=r"regular expression .* got '\('"):
        DatasetSpec(name="images", groups="(")
    with pytest.raises(SpecError, match="groups needs a data set of files"):
        load_dataset(DatasetSpec(groups="a"))


def test_groups_of_a_folder_stay_in_one_split(tmp_path: Path, cache: Path) -> None:
    files = [
        f"{name}/video{10 * video + kind}_{frame}.png"
        for kind, name in enumerate(("cat", "dog"))
        for video in range(8)
        for frame in range(3)
    ]
    write_images(tmp_path / "set", files)
    spec = DatasetSpec(name="images", path=str(tmp_path / "set"), groups=r"video\d+")
    images = load_dataset(spec, cache=cache)
    assert images.groups is not None
    assert len(set(images.groups)) == 16
    splits = make_splits(images, SplitSpec())
    groups = [{images.groups[i] for i in getattr(splits, name)} for name in SPLITS]
    assert sum(map(len, groups)) == 16
    plain = load_dataset(DatasetSpec(name="images", path=str(tmp_path / "set")), cache=cache)
    assert plain.groups is None
