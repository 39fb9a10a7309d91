"""A stage runs on a worker that does not see the run's folder."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.errors import RunError
from search.timetable.capacity import Share
from search.tune.remote_stage import run_remotely
from search.tune.session import ray_session
from trainables.records import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ray_session(cpus=1, folder=tmp_path_factory.mktemp("cwd")):
        yield


def count_to_five(
    folder: RunFolder,
    *,
    images: str,
    splits: str,
    progress: Callable[[float, str], None],
    home: str,
    dies_at: int,
) -> list[int]:
    """Count on from the number in the folder; die once."""
    assert (images, splits) == ("images", "splits")
    assert str(folder.root) != home
    assert folder.selection.read_text() == "{}"
    assert not (folder.root / "secret").exists()
    path = folder.student / "count"
    counted = []
    number = int(path.read_text()) if path.exists() else 0
    while number < 5:
        number += 1
        counted.append(number)
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(number))
        if number == dies_at and len(counted) == number:
            os._exit(1)
        progress(number / 5, f"{number} of 5")
    return counted


def refuse(folder: RunFolder, **_: object) -> None:
    """Raise an error of ours."""
    raise RunError(f"{folder.name} is refused")


def run(folder: RunFolder, reports: list[str], *, dies_at: int) -> list[int]:
    counted: list[int] = run_remotely(
        count_to_five,
        folder,
        images="images",
        splits="splits",
        reads=[folder.selection.name, "missing"],
        writes=[folder.student.name],
        share=Share(cores=1.0),
        progress=lambda _, detail: reports.append(detail),
        home=str(folder.root),
        dies_at=dies_at,
    )
    return counted


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    home = RunFolder(tmp_path / "home")
    home.root.mkdir()
    home.selection.write_text("{}")
    (home.root / "secret").write_text("not asked for")
    return home


def test_files_and_progress_come_back(folder: RunFolder) -> None:
    reports: list[str] = []
    assert run(folder, reports, dies_at=0) == [1, 2, 3, 4, 5]
    assert reports == [f"{number} of 5" for number in range(1, 6)]
    assert (folder.student / "count").read_text() == "5"


def test_a_lost_worker_costs_at_most_one_step(folder: RunFolder) -> None:
    assert run(folder, [], dies_at=3) == [3, 4, 5]


def test_an_error_of_the_stage_is_raised_as_it_is(folder: RunFolder) -> None:
    with pytest.raises(RunError, match="home is refused"):
        run_remotely(
            refuse, folder, images=None, splits=None, reads=[], writes=[],
            share=Share(cores=1.0), progress=lambda *_: None,
        )  # fmt: skip
