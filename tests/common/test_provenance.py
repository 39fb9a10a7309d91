"""Which machine, which code."""

import json

from common.provenance import code_version, machine_description


def test_the_machine_is_described_in_json() -> None:
    machine = machine_description()
    assert json.loads(json.dumps(machine)) == machine
    assert machine["cores"] >= 1
    assert machine["memory_gib"] > 0
    assert machine["python"].startswith("3.")


def test_the_code_version_is_stable_within_a_checkout() -> None:
    number, _, digest = code_version().partition("+")
    assert number
    assert len(digest) == 12
    assert code_version() == f"{number}+{digest}"
