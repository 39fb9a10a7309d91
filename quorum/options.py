"""The options that run, sweep, plan, distill and ablate share.

Each option is defined once, here: its type, its default, its help and how the command line
reads it. `with_options` turns the fields into keyword arguments of a public function;
`quorum.cli.arguments` turns them into options of a command.
"""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

from search.space.sections import BUDGETS

if TYPE_CHECKING:
    from journal.emitter import Observer
    from quorum.outcome import AnyRun

DEVICES = {"cpu": "cpu", "gpu": "cuda"}
"""The name that torch gives to each profile's device."""

Values = ParamSpec("Values")
AnyOptions = TypeVar("AnyOptions", bound="RunOptions")
Subject = TypeVar("Subject")
Result = TypeVar("Result")


def cli(help: str, *, python: str = "", **argparse_settings: Any) -> Mapping[str, Any]:
    """Return the metadata of an option: its help and how argparse reads it.

    `python` replaces the help in Python's documentation. `flag` names the option on the command
    line (by default --FIELD-NAME), or its names; `flag=None` keeps it out of the command line.
    """
    return {"help": help, "python": python or help, **argparse_settings}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options of every command that trains."""

    name: str | None = field(
        default=None,
        metadata=cli(
            "name of the run's folder (default: that of the sweep or its file; -2, -3 … if taken)"
        ),
    )
    data: str | Path | None = field(
        default=None, metadata=cli("folder of the data set", metavar="PATH")
    )
    skip_unreadable: bool = field(
        default=False, metadata=cli("leave out images that cannot be read", action="store_true")
    )
    resume: bool = field(
        default=False, metadata=cli("resume the run of this name", action="store_true")
    )
    time_budget: str | float | None = field(
        default=None,
        metadata=cli(
            "deadline of the whole command: 45s, 90m, 1h30m",
            python="deadline of the whole call: '45s', '90m', '1h30m', or a number of seconds",
            metavar="2h",
        ),
    )
    disk: str | float | None = field(
        default=None,
        metadata=cli(
            "disk space that the run's folder may take before new trials stop "
            "(default: 50GB, or the sweep's disk_gb)",
            python="disk space that the run's folder may take before new trials stop: "
            "'500MB', '50GB', or a number of GB",
            metavar="50GB",
        ),
    )
    address: str | None = field(
        default=None,
        metadata=cli(
            "join a running Ray cluster: auto for the one on this machine", metavar="HOST:PORT"
        ),
    )
    storage: str | Path | None = field(
        default=None,
        metadata=cli(
            "folder that all nodes share, or s3://bucket/prefix, for checkpoints "
            "(default: the run's folder)",
            metavar="PLACE",
        ),
    )
    workers: int | None = field(
        default=None,
        metadata=cli(
            "largest number of trials at a time (default: as many as fit)", type=int, metavar="N"
        ),
    )
    profile: Literal["cpu", "gpu"] | None = field(
        default=None,
        metadata=cli("device to train on, with the sweep's values for it", choices=["cpu", "gpu"]),
    )
    set: Mapping[str, Any] | Sequence[str] = field(
        default=(),
        metadata=cli(
            "change a value of the sweep, such as recipe.width=64; may be repeated",
            python="values of the sweep to change, such as {'recipe.width': 64}",
            metavar="KEY=VALUE",
            action="append",
        ),
    )
    pictures: bool | None = field(
        default=None,
        metadata=cli(
            "show no image of the data set in reports and artifacts",
            python="show images of the data set in reports (default: as the sweep says)",
            flag="--no-images",
            action="store_const",
            const=False,
        ),
    )
    runs: str | Path | None = field(
        default=None,
        metadata=cli("folder of all runs (default: $QUORUM_RUNS, else ./runs)", metavar="DIR"),
    )
    register: bool = field(
        default=True, metadata=cli("add the released student to MLflow's registry", flag=None)
    )
    report: bool = field(default=True, metadata=cli("typeset report.pdf", flag=None))
    mirror: bool = field(
        default=True, metadata=cli("show the run in MLflow while it runs", flag=None)
    )
    progress: bool = field(default=True, metadata=cli("show progress on standard error", flag=None))
    observers: "Sequence[Observer]" = field(
        default=(), metadata=cli("functions called with every event", flag=None)
    )
    began: float | None = field(
        default=None,
        metadata=cli("start of the time budget in unix seconds (default: now)", flag=None),
    )

    def __post_init__(self) -> None:
        """Refuse an unknown profile or an impossible number of workers."""
        if self.workers is not None and self.workers < 1:
            from common.errors import SpecError

            raise SpecError(f"--workers must be at least 1, got {self.workers}")
        if self.profile not in (None, *DEVICES):
            from common.errors import SpecError

            raise SpecError(f"profile must be cpu or gpu, got {self.profile!r}")

    @property
    def budget_seconds(self) -> float | None:
        """The time budget in seconds; None without one."""
        from common.parsing import parse_duration

        return parse_duration(self.time_budget)

    @property
    def disk_gb(self) -> float | None:
        """The disk space in GB; None for the sweep's."""
        from common.parsing import parse_size

        return None if self.disk is None else parse_size(self.disk)

    @property
    def device(self) -> str | None:
        """The profile's device by its torch name; None for a GPU if there is one."""
        return DEVICES.get(self.profile or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetOptions(RunOptions):
    """Limits on the cost of the file that ships, for run, sweep, plan and distill.

    They set the margins of the same names in the sweep's `gates`.
    """

    max_latency_ms: float | None = field(
        default=None,
        metadata=cli(
            "largest latency of the student for one image, in milliseconds on one core",
            flag=("--max-latency-ms", "--latency-ms"),
            type=float,
            metavar="MS",
        ),
    )
    max_bytes: int | None = field(
        default=None,
        metadata=cli("largest size of the student's file, in bytes", type=int, metavar="N"),
    )
    max_params: int | None = field(
        default=None,
        metadata=cli("largest number of parameters of the student", type=int, metavar="N"),
    )
    max_gflops: float | None = field(
        default=None,
        metadata=cli(
            "largest number of the student's floating-point operations per image, in billions",
            type=float,
            metavar="G",
        ),
    )

    @property
    def budgets(self) -> dict[str, Any]:
        """The limits that are given, by their names in the sweep's `gates`."""
        given = {name: getattr(self, name) for name in BUDGETS}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions(BudgetOptions):
    """Options of the commands that search: run, sweep and plan."""

    trials: int | None = field(
        default=None, metadata=cli("number of trials in the search", type=int, metavar="K")
    )
    members: int | None = field(
        default=None, metadata=cli("largest ensemble, in members", type=int, metavar="K")
    )

    source: Literal["auto", "search", "seeds", "all"] | None = field(
        default=None,
        metadata=cli(
            "members to choose from: trials of the search, seeds of the best recipe, both, or "
            "whichever wins (auto)",
            choices=["auto", "search", "seeds", "all"],
        ),
    )
    weighting: Literal["auto", "uniform", "learned"] | None = field(
        default=None,
        metadata=cli(
            "weights of the members (auto: learned ones where they win out of fold)",
            choices=["auto", "uniform", "learned"],
        ),
    )
    diversity: float | None = field(
        default=None,
        metadata=cli(
            "among members tied within SE standard errors, prefer those that disagree; 0 for never "
            "(default: 1, if that wins out of fold)",
            type=float,
            metavar="SE",
        ),
    )

    @property
    def selection(self) -> dict[str, Any]:
        """The given values of the sweep's section `selection`."""
        given = {
            "source": self.source, "weighting": self.weighting, "diversity": self.diversity,
        }  # fmt: skip
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions(SearchOptions):
    """Options of plan."""

    search_only: bool = field(
        default=False, metadata=cli("forecast the search only, without later stages", flag=None)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationOptions(RunOptions):
    """Options of ablate."""

    of: "AnyRun | None" = field(
        default=None, metadata=cli("take the recipe of this run's best trial", metavar="RUN")
    )
    seeds: int | None = field(
        default=None, metadata=cli("seeds of every variant (5)", type=int, metavar="N")
    )
    factors: str | Sequence[str] | None = field(
        default=None,
        metadata=cli("remove only these factors (default: all of the recipe's)", metavar="A,B,C"),
    )
    epochs: int | None = field(
        default=None,
        metadata=cli("length of every training (default: the recipe's)", type=int, metavar="N"),
    )

    @property
    def comparison(self) -> dict[str, Any]:
        """The arguments of a new ablation: `factors` as names, `seeds` and `epochs`."""
        factors = self.factors
        if isinstance(factors, str):
            factors = factors.replace(" ", "").split(",")
        return {"factors": factors, "seeds": self.seeds, "epochs": self.epochs}


def with_options(
    options: Callable[Values, AnyOptions],
) -> Callable[
    [Callable[[Subject, AnyOptions], Result]], Callable[Concatenate[Subject, Values], Result]
]:
    """Let a function of a subject and an options object take the options as keyword arguments.

    The decorated function shows every option in its signature and in its docstring.
    """

    def decorate(
        function: Callable[[Subject, AnyOptions], Result],
    ) -> Callable[Concatenate[Subject, Values], Result]:
        @functools.wraps(function)
        def call(subject: Subject, /, *args: Values.args, **values: Values.kwargs) -> Result:
            for name in values:
                if name not in known:
                    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
                    raise TypeError(
                        f"{function.__name__}() has no option {name!r}; did you mean {nearest!r}?"
                    )
            return function(subject, options(*args, **values))

        known = inspect.signature(options).parameters
        first = next(iter(inspect.signature(function).parameters.values()))
        first = first.replace(kind=inspect.Parameter.POSITIONAL_ONLY)
        signature = inspect.signature(function).replace(parameters=[first, *known.values()])
        call.__dict__["__signature__"] = signature
        call.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n{_described(options)}"
        return call

    return decorate


def _described(options: Any) -> str:
    lines = [f"    {item.name}: {item.metadata['python']}" for item in fields(options)]
    return "\n".join(["Options:", *lines])
