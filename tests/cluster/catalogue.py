"""Every scenario, in the order in which they run."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.cluster import faults, scenarios, strangers
from tests.cluster.bench import Bench
from tests.cluster.results import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One scenario; its name is that of its function."""

    run: Callable[[Bench], Finding]
    fault: str = ""
    """The fault that it injects, in words."""
    long: bool = False
    """Left out unless asked for."""
    needs_cluster: bool = True
    """The cluster is repaired before it."""

    @property
    def name(self) -> str:
        """Its name on the command line."""
        return self.run.__name__

    @property
    def summary(self) -> str:
        """Its name and the first line of its function's docstring."""
        text = (self.run.__doc__ or "").splitlines()[0]
        return f"{self.name:24}{'long   ' if self.long else '       '}{text}"


SCENARIOS = (
    Scenario(run=scenarios.ray_up, needs_cluster=False),
    Scenario(run=scenarios.sweep_alone),
    Scenario(run=scenarios.sweep_shared, long=True),
    Scenario(run=scenarios.sweep_s3),
    Scenario(run=scenarios.chain_alone),
    Scenario(run=scenarios.chain_shared, long=True),
    Scenario(run=scenarios.chain_s3, long=True),
    Scenario(run=scenarios.distill_on_workers, long=True),
    Scenario(run=scenarios.small_data_on_head, long=True),
    Scenario(run=scenarios.large_data_on_head),
    Scenario(run=strangers.strangers_refused),
    Scenario(run=faults.mlflow_killed, fault="MLflow killed for 10 s", long=True),
    Scenario(run=faults.storage_full),
    Scenario(run=faults.driver_killed, fault="driver killed, resumed on its host"),
    Scenario(run=faults.driver_moved, fault="driver killed, resumed on another host", long=True),
    Scenario(run=faults.lost_host, fault="worker host lost"),
    Scenario(run=faults.student_host_lost, fault="host lost that trains the student", long=True),
    Scenario(run=faults.spot_loss, fault="worker told of spot loss, then lost", long=True),
    Scenario(run=faults.cut_off, fault="worker host cut off for 60 s", long=True),
    Scenario(run=faults.head_restarted, fault="head and driver lost, head restarted", long=True),
    Scenario(run=scenarios.ray_down),
)


def choose(names: Sequence[str] = (), *, everything: bool = False) -> tuple[Scenario, ...]:
    """Return the scenarios of these names in their usual order, by default the short ones.

    Raises:
        ValueError: there is no scenario of a name.
    """
    known = {scenario.name: scenario for scenario in SCENARIOS}
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise ValueError(f"there is no scenario {name!r}; did you mean {nearest!r}?")
    if names:
        return tuple(scenario for scenario in SCENARIOS if scenario.name in names)
    return tuple(scenario for scenario in SCENARIOS if everything or not scenario.long)
