"""A sweep's specification: what the YAML says, checked, with every default in one place."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from search.space import Space
from trainables.datasets import DatasetSpec
from trainables.errors import SpecError
from trainables.parsing import from_mapping, to_mapping
from trainables.recipe import Recipe
from trainables.records import RunFolder
from trainables.splits import SplitSpec

SHIPPED = Path(__file__).parent / "sweeps"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentSpec:
    """The net that ships, and how it is taught."""

    recipe: dict[str, Any] = field(default_factory=dict)
    """Recipe values; what is not given comes from the sweep's `recipe`."""
    alpha: float = 0.9
    """Weight of the teacher's loss; the labels have the rest."""
    tau: float = 4.0
    """Temperature of the teacher's loss."""

    def with_recipe(self, **values: Any) -> "StudentSpec":
        """A copy with some recipe values replaced."""
        return replace(self, recipe={**self.recipe, **values})


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """Margins of the release gates, decided on holdout."""

    max_accuracy_loss: float = 0.02
    """Student int8 may be at most this much less accurate than the ensemble."""
    max_nll_gain: float = 0.10
    """Student int8 may have at most this much more NLL than the student in fp32."""
    min_speedup: float = 1.0
    """The int8 student must be at least this much faster than in fp32, batch 1."""
    min_shrink: float = 1.5
    """The int8 file must be at least this much smaller than the fp32 file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """A whole run: data, search, ensemble, student, gates."""

    name: str
    description: str = ""
    dataset: DatasetSpec = field(default_factory=DatasetSpec)
    splits: SplitSpec = field(default_factory=SplitSpec)
    seed: int = 0
    """Root of every random stream of the run."""
    trials: int = 24
    rungs: tuple[int, ...] = (3, 9, 27)
    """Epoch budgets at which trials are scored and the worse ones stopped."""
    reduction_factor: int = 3
    """ASHA keeps about one in this many at each rung."""
    startup_trials: int = 8
    """Random trials before TPE models the space."""
    concurrent: int | None = None
    """Trials at a time; null uses one per core (CPU) or per GPU."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """Recipe values that all trials share."""
    space: dict[str, Any] = field(default_factory=dict)
    """Recipe values that are searched: see search/space.py."""
    members: int = 5
    """Most members of the ensemble; also how many seeds of the best are trained."""
    student: StudentSpec = field(default_factory=StudentSpec)
    gates: GateSpec = field(default_factory=GateSpec)
    pictures: bool = True
    """Show images of the data set in reports and artifacts."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming the value and the mend."""
        if self.trials < 1:
            raise SpecError(f"trials must be at least 1, got {self.trials}")
        if not self.rungs or list(self.rungs) != sorted(set(self.rungs)) or self.rungs[0] < 1:
            raise SpecError(f"rungs must be rising epoch counts, got {list(self.rungs)}")
        if self.reduction_factor < 2:
            raise SpecError(f"reduction_factor must be at least 2, got {self.reduction_factor}")
        if self.members < 1:
            raise SpecError(f"members must be at least 1, got {self.members}")
        if self.concurrent is not None and self.concurrent < 1:
            raise SpecError(f"concurrent must be at least 1, got {self.concurrent}")
        both = sorted(set(self.recipe) & set(self.space))
        if both:
            raise SpecError(f"{both[0]!r} stands both in recipe and in space; keep one")
        if "epochs" in self.recipe or "epochs" in self.space:
            raise SpecError("epochs is the last of `rungs`; set it there")
        self.base_recipe()

    def base_recipe(self) -> Recipe:
        """The recipe that all trials start from, before the searched values."""
        values = {**self.recipe, "epochs": self.rungs[-1]}
        return Recipe.from_mapping(values, where="recipe")

    def student_recipe(self) -> Recipe:
        """The student's recipe."""
        values = {**self.base_recipe().to_mapping(), **self.student.recipe}
        return Recipe.from_mapping(values, where="student: recipe")

    def with_values(self, **values: Any) -> "SweepSpec":
        """A copy with some fields replaced."""
        return replace(self, **values)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, ready for YAML."""
        mapping: dict[str, Any] = to_mapping(self)
        return mapping

    def to_yaml(self) -> str:
        """The resolved specification, as it stands in a run's sweep.yaml."""
        return yaml.safe_dump(self.to_mapping(), sort_keys=False, allow_unicode=True)


def load_spec(sweep: str | Path) -> SweepSpec:
    """Load a shipped sweep by name, or a YAML file by path.

    Raises:
        SpecError: no such sweep, broken YAML, an unknown key or an impossible value.
    """
    path = _find(sweep)
    try:
        mapping = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise SpecError(f"{path}{place}: {problem}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read: {error}") from None
    return spec_from_mapping(mapping, where=str(sweep), default_name=path.stem)


def spec_from_mapping(
    mapping: object, *, where: str = "sweep", default_name: str = "sweep"
) -> SweepSpec:
    """A specification from plain values, with its space checked."""
    if isinstance(mapping, Mapping) and "name" not in mapping:
        mapping = {"name": default_name, **mapping}
    spec = from_mapping(SweepSpec, mapping, where=where)
    Space.from_mapping(spec.space, base=spec.base_recipe(), where=f"{where}: space")
    spec.student_recipe()
    return spec


def spec_of_run(folder: RunFolder) -> SweepSpec:
    """The specification that a run was started with."""
    return load_spec(folder.require().sweep)


def parse_duration(text: str | None) -> float | None:
    """Seconds in a duration like `45s`, `90m`, `2h` or `1h30m`; None stays None."""
    if text is None:
        return None
    match = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text.strip())
    try:
        parts = [float(part or 0) for part in match.groups()] if match and text.strip() else []
    except ValueError:
        parts = []
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not seconds > 0:
        raise SpecError(f"{text!r} is not a duration; write it like 45s, 90m, 2h or 1h30m")
    return seconds


def shipped_names() -> list[str]:
    """The names of the sweeps that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def _find(sweep: str | Path) -> Path:
    shipped = SHIPPED / f"{sweep}.yaml"
    if str(sweep) in shipped_names():
        return shipped
    path = Path(sweep)
    if path.is_file():
        return path
    names = ", ".join(shipped_names())
    raise SpecError(f"no sweep {str(sweep)!r}: neither a YAML file nor a shipped sweep ({names})")
