"""Keep the options of the student in `student/`: request.json, written before it is trained.

A command that resumes the student of a killed command must ask for the same limits and teacher. The
teacher is in the same folder; see ensemble/selection/teacher_file.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.commands import command
from common.errors import RunError
from common.files import dump_json, read_versioned, write_bytes_atomically
from common.parsing import to_mapping
from ensemble.deployment.gates import GateMargins, budgets
from ensemble.ledger.predictions import StageCost
from ensemble.selection.selection import read_selection
from ensemble.selection.teacher_file import teacher_of
from ensemble.student.design import read_design
from trainables.records import RunFolder

SCHEMA = 1
FILE = "request.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The limits on the cost of the file that ships, by gate."""

    schema: int = SCHEMA
    limits: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, margins: GateMargins) -> "Request":
        """Return the request for a student that is judged by these margins."""
        costs = budgets(StageCost(), margins)
        return cls(limits={name: limit for name, (_, limit) in costs.items()})

    def margins(self, others: GateMargins) -> GateMargins:
        """Return the margins that the student is judged by; `others` has all but the costs."""
        whole = {name: self.limits.get(name) for name in ("bytes", "params")}
        return replace(
            others,
            max_latency_ms=self.limits.get("latency_ms"),
            max_bytes=None if whole["bytes"] is None else int(whole["bytes"]),
            max_params=None if whole["params"] is None else int(whole["params"]),
            max_gflops=self.limits.get("gflops"),
        )


def write_request(student: Path, request: Request) -> None:
    """Write a student's request, before anything else in its folder."""
    student.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(student / FILE, dump_json(to_mapping(request)).encode())


def read_request(student: Path) -> Request | None:
    """Return a student's request; None for a folder without one.

    For students of early versions it is read from design.json.

    Raises:
        RunError: the file is damaged or of another schema.
    """
    if (student / FILE).is_file():
        return read_versioned(Request, student / FILE, schema=SCHEMA)
    design = read_design(student)
    return None if design is None else Request(limits=design.budgets)


def require_same_request(
    folder: RunFolder,
    asked: GateMargins,
    *,
    limits: Mapping[str, float] | None,
    selection: Path | None,
) -> None:
    """Refuse to continue a student with other options than it was started with.

    `limits` and `selection` are those of the command, if it has any, and `asked` are the margins
    with these limits.

    Raises:
        RunError: they differ; the message says how to go on.
    """
    known = read_request(folder.student)
    differs = bool(limits) and known is not None and known != Request.of(asked)
    if selection is not None and read_selection(selection) != teacher_of(folder):
        differs = True
    if differs:
        raise RunError(
            f"an earlier command with other options left an unfinished student in "
            f"{folder.student}; finish it first ({command('distill', folder.root)}), or delete "
            "that folder to train another one"
        )
