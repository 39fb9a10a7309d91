"""Which machine, which code."""

import json

from common.provenance import code_version, cpu_flags, machine_description


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


def test_cpu_flags_are_read_on_x86_and_on_arm() -> None:
    x86 = ["processor\t: 0", "model name\t: X", "flags\t\t: fpu avx2 avx512_vnni", "bugs\t: x"]
    arm = ["processor\t: 0", "Features\t: fp asimd asimddp", "CPU part\t: 0xd40"]
    assert cpu_flags(x86) == {"fpu", "avx2", "avx512_vnni"}
    assert cpu_flags(arm) == {"fp", "asimd", "asimddp"}
    assert cpu_flags([]) == frozenset()
