"""The options of an unfinished student, and those that a later command may have."""

from pathlib import Path

import pytest

from common.errors import RunError
from ensemble.deployment.gates import GateMargins
from quorum.student_request import Request, read_request, require_same_request, write_request
from trainables.records import RunFolder

MARGINS = GateMargins(max_accuracy_loss=0.01, max_bytes=200_000, max_latency_ms=2.5)


def test_a_request_gives_the_margins_back(tmp_path: Path) -> None:
    write_request(tmp_path / "student", Request.of(MARGINS))
    request = read_request(tmp_path / "student")
    assert request is not None
    others = GateMargins(max_accuracy_loss=0.01, max_params=7)
    assert request.margins(others) == MARGINS
    assert isinstance(request.margins(others).max_bytes, int)
    assert read_request(tmp_path) is None


@pytest.mark.parametrize(
    ("asked", "limits", "refused"),
    [
        (MARGINS, {"max_bytes": 200_000}, False),
        (GateMargins(), {}, False),  # without options, it is simply continued
        (GateMargins(max_bytes=200_000), {"max_bytes": 200_000}, True),
        (GateMargins(max_bytes=1), {"max_bytes": 1}, True),
    ],
)
def test_a_student_is_continued_with_its_own_options_only(
    asked: GateMargins, limits: dict[str, float], refused: bool, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    write_request(folder.student, Request.of(MARGINS))
    if not refused:
        require_same_request(folder, asked, limits=limits, selection=None)
        return
    with pytest.raises(RunError, match=r"unfinished student .*quorum distill .*delete that folder"):
        require_same_request(folder, asked, limits=limits, selection=None)
