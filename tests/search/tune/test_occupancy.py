"""Trials that wait to run alone, on a simulated cluster that prefers every other trial."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from search.timetable.capacity import Capacity, Node, Share
from search.tune.occupancy import ANYWHERE, MOST_WAITING, Free, Occupancy, Place
from search.tune.packing import Packing
from trainables.recipe import Numerics, Recipe

GB = 1e9
LONGEST = 6
"""Steps of the longest trial."""

SMALL, LARGE = Recipe(width=16), Recipe(width=64)


@dataclass
class Running:
    """A trial in the simulated cluster."""

    recipe: Recipe
    share: Share
    place: Place
    steps: int
    node: str = ""
    """Empty while it waits for resources."""
    gpu: int = 0
    alone: bool = False


@dataclass
class Simulation:
    """Nodes, and trials that Ray places on them.

    Ray offers what is free to the trials that wait alone last, on a random node for others.
    """

    nodes: tuple[Node, ...]
    device: str = "cpu"
    gpu_bytes: float = 16 * GB
    seed: int = 0
    trials: dict[str, Running] = field(default_factory=dict)
    alone: dict[str, Share] = field(default_factory=dict)
    waits: dict[str, int] = field(default_factory=dict)
    """Steps that each trial waited to run alone."""

    def __post_init__(self) -> None:
        """Start with known peaks: a small kind and a large one."""
        trials = {
            str(number): SimpleNamespace(
                recipe=recipe.to_mapping(), peak_memory_bytes=int(peak), end=None
            )
            for number, (recipe, peak) in enumerate([(SMALL, 1 * GB), (LARGE, 6 * GB)])
        }
        state: Any = SimpleNamespace(trials=trials, count=1)
        self.capacity = Capacity(nodes=self.nodes)
        self.packing = Packing(Numerics(device=self.device), state, capacity=lambda: self.capacity)
        self.packing.observe({"device_memory_bytes": int(self.gpu_bytes)})
        self.occupancy = Occupancy(
            self.packing, lambda: self.capacity, waiting_alone=lambda: self.alone
        )
        self.rng = np.random.default_rng(self.seed)
        self.count = 0
        self.drawn: Recipe | None = None

    def run(self, steps: int, *, large: float, fails: float) -> None:
        """Start trials wherever possible; some fail and are retried alone."""
        for _ in range(steps):
            self.launch(large)
            self.settle()
            self.end(fails)
            for name in self.alone:
                self.waits[name] = self.waits.get(name, 0) + 1

    def launch(self, large: float) -> None:
        """Start trials until no place is left; then only the reserved node may have some."""
        count = self.count
        while True:
            recipe = self.drawn or (LARGE if self.rng.random() < large else SMALL)
            place = self.occupancy.place(recipe) if self.trials else ANYWHERE
            self.drawn = recipe if place is None else None
            if place is None:
                placed = all(t.node for name, t in self.trials.items() if name not in self.alone)
                if placed and count == self.count and len(self.alone) <= MOST_WAITING:
                    share = self.packing.share_of(recipe)
                    room = [node for node in self.nodes if self.free(node).places(share)]
                    assert len(room) <= bool(self.alone)
                return
            name, self.count = f"t{self.count}", self.count + 1
            share = self.packing.share_of(recipe)
            steps = int(self.rng.integers(1, LONGEST + 1))
            self.occupancy.launched(name, recipe, place)
            self.trials[name] = Running(recipe=recipe, share=share, place=place, steps=steps)

    def settle(self) -> None:
        """Place the trials that wait: those that run alone after all others."""
        waiting = [name for name, trial in self.trials.items() if not trial.node]
        for name in sorted(waiting, key=lambda name: self.trials[name].alone):
            trial = self.trials[name]
            able = [
                node.id
                for node in self.nodes
                if node.id != trial.place.avoid and self.free(node).places(trial.share)
            ]
            if not able:
                continue
            trial.node = str(self.rng.choice(able))
            (node,) = (node for node in self.nodes if node.id == trial.node)
            free = self.free(node, but=name).gpus
            if trial.share.gpus:  # as Ray does: the fullest that has it
                able_gpus = [i for i, gpu in enumerate(free) if gpu > trial.share.gpus - 1e-6]
                trial.gpu = min(able_gpus, key=lambda i: free[i])
            self.occupancy.started(name, self.alone.get(name))
            self.alone.pop(name, None)

    def free(self, node: Node, *, but: str = "") -> Free:
        free = Free.all_of(node)
        for name, trial in self.trials.items():
            if trial.node == node.id and name != but:
                free.cores -= trial.share.cores
                free.memory_bytes -= trial.share.memory_bytes
                if trial.share.gpus:
                    free.gpus[trial.gpu] -= trial.share.gpus
        return free

    def end(self, fails: float) -> None:
        for name, trial in list(self.trials.items()):
            if not trial.node:
                continue
            self.occupancy.reported(name, trial.node)
            trial.steps -= 1
            if not trial.alone and self.rng.random() < fails:
                self.alone[name] = self.packing.alone
                trial.node, trial.alone, trial.share = "", True, self.packing.alone
                trial.place = ANYWHERE
                trial.steps = int(self.rng.integers(1, LONGEST + 1))
            elif trial.steps <= 0:
                self.occupancy.ended(name)
                del self.trials[name]


def cpu_nodes(count: int) -> tuple[Node, ...]:
    return tuple(
        Node(id=f"n{i}", name=f"n{i}", cores=8, memory_bytes=16 * GB - 3e6 * i)
        for i in range(count)
    )


def gpu_nodes(count: int, *, gpus: int, cores: int) -> tuple[Node, ...]:
    return tuple(
        Node(id=f"n{i}", name=f"n{i}", cores=cores, gpus=gpus, memory_bytes=64 * GB)
        for i in range(count)
    )


CLUSTERS = st.one_of(
    st.integers(1, 4).map(lambda count: (cpu_nodes(count), "cpu")),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.sampled_from([4, 16])).map(
        lambda each: (gpu_nodes(each[0], gpus=each[1], cores=each[2]), "cuda")
    ),
)


@settings(max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    cluster=CLUSTERS,
    seed=st.integers(0, 10_000),
    large=st.sampled_from([0.0, 0.3, 1.0]),
    fails=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
)
def test_a_trial_waits_for_its_node_to_empty_and_for_those_that_waited_before(
    cluster: tuple[tuple[Node, ...], str], seed: int, large: float, fails: float
) -> None:
    """Ray prefers every other trial, and others never cease to start."""
    nodes, device = cluster
    simulation = Simulation(nodes, device=device, seed=seed)
    simulation.run(60, large=large, fails=fails)
    assert simulation.count > 10
    assert simulation.waits or not fails
    most = 8 * sum(max(1, int(node.gpus)) for node in nodes)
    assert max(simulation.waits.values(), default=0) <= (LONGEST + 1) * (most + 2)
    # Before it, MOST_WAITING - 1 others run alone; each may have to wait for ordinary trials.
    simulation.run(2 * (LONGEST + 1) * (len(simulation.alone) + 1), large=large, fails=0.0)
    assert not simulation.alone


def test_the_other_gpus_of_a_node_stay_in_use() -> None:
    """Two GPUs have four small trials each: one empties, and the other one is filled again."""
    simulation = Simulation(gpu_nodes(1, gpus=2, cores=16), device="cuda")
    occupancy = simulation.occupancy
    for number in range(8):
        assert occupancy.place(SMALL) == ANYWHERE
        occupancy.launched(str(number), SMALL, ANYWHERE)
        occupancy.reported(str(number), "n0")
    assert occupancy.place(SMALL) is None
    simulation.alone["0"] = simulation.packing.alone
    for number in (1, 2, 3):
        assert occupancy.place(SMALL) is None
        occupancy.ended(str(number))
    assert occupancy.place(SMALL) is None
    occupancy.ended("4")
    assert occupancy.place(SMALL) == ANYWHERE


def test_a_reservation_ends_with_its_node() -> None:
    simulation = Simulation(cpu_nodes(3))
    simulation.occupancy.launched("t", SMALL, ANYWHERE)
    simulation.alone["t"] = simulation.packing.alone
    first = simulation.occupancy.place(SMALL)
    assert first is not None
    assert first.avoid
    left = tuple(node for node in simulation.nodes if node.id != first.avoid)
    simulation.capacity = Capacity(nodes=left)
    second = simulation.occupancy.place(SMALL)
    assert second is not None
    assert second.avoid in {node.id for node in left}
    simulation.capacity = Capacity(nodes=left[:1])
    assert simulation.occupancy.place(SMALL) is None
    assert simulation.occupancy.retried("t") == ANYWHERE
    simulation.alone.clear()
    assert simulation.occupancy.place(SMALL) == ANYWHERE


def test_small_trials_run_beside_large_ones_as_their_memory_allows() -> None:
    simulation = Simulation(cpu_nodes(1))
    simulation.run(1, large=1.0, fails=0.0)
    assert [trial.recipe for trial in simulation.trials.values()] == [LARGE, LARGE]
    simulation = Simulation(cpu_nodes(1))
    simulation.run(1, large=0.0, fails=0.0)
    assert len(simulation.trials) == 8
