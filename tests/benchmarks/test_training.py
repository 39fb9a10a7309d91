"""benchmarks/training.py: loops that take turns, each in its own process."""

import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


def log_turns(connection: Connection, name: str, log: Path) -> None:
    """Note the beginning of every turn, and answer with its number."""
    turns = 0
    while connection.recv():
        turns += 1
        with log.open("a") as lines:
            lines.write(f"{name} {time.time()}\n")
        connection.send(turns)


def test_a_loop_with_a_loader_is_given_a_pause_after_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import training_turns

    monkeypatch.setattr(training_turns, "PAUSE", 0.5)
    log = tmp_path / "log"
    speeds = training_turns.speeds_in_turns(
        {name: (log_turns, name, log) for name in ("usual", "ours")}, 2, with_loader=["usual"]
    )
    assert speeds == {"usual": [2.0, 3.0], "ours": [2.0, 3.0]}  # the first turn warms up
    turns = [line.split() for line in log.read_text().splitlines()]
    assert [name for name, _ in turns] == 3 * ["usual", "ours"]
    begun = [float(moment) for _, moment in turns]
    assert all(ours - usual >= 0.5 for usual, ours in zip(begun[::2], begun[1::2], strict=True))
