"""Measure and run stages on workers, prove their storage, and read the nodes of a cluster.

A private Ray of one node stands in for a cluster; `make test-cluster` runs real ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import RunError, SpecError
from search.timetable.capacity import Capacity, Node, Share
from search.tune.cluster import autoscales, call_everywhere, call_with_share, cluster_capacity
from search.tune.cluster_site import ClusterSite, profile_at
from search.tune.placement import is_cluster, placed
from search.tune.reach import require_reachable
from search.tune.served_folder import served
from search.tune.session import ray_session
from search.tune.storage import Location, Storage
from tests.drive_sweep import spec_of, sweep
from tests.simulated_tune import IMAGES, SPLITS
from trainables.device.kinds import machine_kind
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ray_session(cpus=2, folder=tmp_path_factory.mktemp("cwd")):
        yield


def node(name: str, *, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {
        "NodeID": name,
        "Alive": alive,
        "NodeManagerHostname": name,
        "NodeManagerAddress": "10.0.0.1",
        "Resources": resources,
    }


def test_nodes_are_read_from_rays_table() -> None:
    table = [node("a", CPU=4.0, memory=8e9), node("b", alive=False, CPU=9.0), node("c", GPU=1.0)]
    capacity = cluster_capacity(lambda: table)
    assert capacity.nodes == (
        Node(cores=4.0, name="a (10.0.0.1)", id="a", memory_bytes=8e9),
        Node(cores=0.0, gpus=1.0, name="c (10.0.0.1)", id="c", memory_bytes=0.0),
    )
    (here,) = cluster_capacity().nodes
    assert here.cores == 2
    assert 0 < here.store_bytes < here.memory_bytes


def test_a_ray_without_an_autoscaler_is_recognized() -> None:
    """Reads what Ray does not document: a change there must be noticed."""
    assert autoscales() is False


def test_one_node_is_no_cluster_unless_an_address_is_given() -> None:
    assert not is_cluster(None)
    assert is_cluster("auto")


def test_numerics_are_measured_on_a_worker_and_its_kind_is_known() -> None:
    site = ClusterSite()
    assert site.measured_on == ""
    recipe = Recipe(width=4, batch_size=8)
    numerics = site.probe(recipe, IMAGES, device=None, threads=1)
    assert (numerics.device, numerics.threads) == ("cpu", 1)
    assert site.measured_on == machine_kind("cpu")
    assert site.cores("cpu") == 2
    measured = site.rehearse(
        recipe, images=IMAGES, splits=SPLITS, numerics=numerics, workers=2, seconds=0.01
    )
    assert measured.train_seconds > 0


def test_a_gpu_that_no_node_has_is_one_clear_error() -> None:
    with pytest.raises(SpecError, match="--profile gpu: no node of the cluster has a GPU"):
        ClusterSite().cores("cuda")


def test_the_profile_follows_the_nodes() -> None:
    assert profile_at("auto") == "cpu"
    node = Node(id="a", name="a", cores=8.0, gpus=1.0)
    assert ClusterSite(capacity=lambda: Capacity(nodes=(node,))).device(None) == "cuda"


def refuse() -> None:
    """Raise an error of ours."""
    raise SpecError("impossible here")


def test_an_error_on_a_worker_is_raised_as_it_is() -> None:
    with pytest.raises(SpecError, match=r"^impossible here$"):
        call_with_share(refuse, share=Share(cores=1.0))


def copy_selection(
    folder: RunFolder, *, progress: Callable[[float, str], None], **_: Any
) -> list[str]:
    """Copy the selection into the student's folder."""
    folder.student.mkdir()
    (folder.student / "copy").write_text(folder.selection.read_text())
    progress(1.0, "copied")
    return sorted(path.name for path in folder.root.iterdir())


@pytest.mark.parametrize("leads", [False, True])
def test_a_stage_runs_on_a_worker(leads: bool, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    folder.selection.write_text("{}")
    (folder.root / "large").write_text("not needed")
    reports: list[str] = []
    names = ClusterSite().run_stage(
        copy_selection,
        folder,
        images=IMAGES,
        splits=SPLITS,
        numerics=Numerics(),
        reads=[folder.selection.name],
        writes=[folder.student.name],
        progress=lambda _, detail: reports.append(detail),
        leads=leads,
    )
    assert names == [folder.selection.name, folder.student.name]
    assert (folder.student / "copy").read_text() == "{}"
    assert reports == ["copied"]


def test_a_storage_that_all_nodes_reach_is_accepted_and_left_clean(tmp_path: Path) -> None:
    for storage in (Storage(tmp_path / "shared"), Storage(f"file://{tmp_path}/uri")):
        require_reachable(storage)
    with served(tmp_path) as filesystem:
        require_reachable(Storage(tmp_path / "served", workers=Location(filesystem, "/served")))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_node_that_sees_another_folder_is_named(tmp_path: Path) -> None:
    elsewhere = Storage(tmp_path / "theirs").here
    storage = Storage(tmp_path / "ours", workers=elsewhere)
    (name,) = (each.name for each in cluster_capacity().nodes)
    with pytest.raises(RunError) as caught:
        require_reachable(storage)
    assert name in str(caught.value)
    assert str(tmp_path / "ours") in str(caught.value)


def test_a_sweep_resumes_from_checkpoints_that_travel_through_ray(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    spec = spec_of(trials=3, concurrent=2)

    def run(**options: Any) -> Any:
        from journal.journal import read_state

        state = read_state(folder.journal) if folder.journal.exists() else None
        with placed(folder, state, root=None, on_cluster=True) as placement:  # type: ignore[arg-type]
            assert str(placement.storage.workers.path) != placement.storage.here.path
            return sweep(folder.root, spec, placement=placement, **options)

    ticks = iter([0.0] * 12)
    outcome = run(deadline=1.0, clock=lambda: next(ticks, 2.0))
    assert outcome.unfinished > 0
    finished = run()
    assert (finished.reason, finished.failed, finished.unfinished) == ("finished", 0, 0)
    assert len(list(folder.records())) == 3
    assert not list(folder.checkpoints.glob("*/*"))


def answer() -> int:
    return 42


def test_nodes_that_do_not_answer_are_left_out() -> None:
    """The second one stands for a node that is busy: it has not as many cores as it should."""
    (here,) = cluster_capacity().nodes
    shares = {here: Share(cores=1.0), replace(here, name="busy"): Share(cores=99.0)}
    assert call_everywhere(answer, shares=shares, patience=0.5) == {here: 42}


def test_an_error_on_any_node_is_raised_as_it_is() -> None:
    (here,) = cluster_capacity().nodes
    with pytest.raises(SpecError, match=r"^impossible here$"):
        call_everywhere(refuse, shares={here: Share(cores=1.0)})
