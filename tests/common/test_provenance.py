"""Descriptions of the machine and of the code that trains."""

import json
import subprocess
import sys
from pathlib import Path

from common.provenance import (
    TRAINING_PACKAGES,
    code_version,
    cpu_flags,
    machine_description,
    source_digest,
)
from tests.architecture import PACKAGES
from tests.docs import ROOT


def test_the_machines_description_is_plain_json() -> None:
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


def write_sources(root: Path) -> None:
    for name in ("common/errors.py", "trainables/nets/blocks/se.py", "search/space.py"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")


def test_a_change_at_any_depth_of_the_training_code_changes_the_digest(tmp_path: Path) -> None:
    write_sources(tmp_path)
    digests = [source_digest(tmp_path)]
    nested = tmp_path / "trainables" / "nets" / "blocks" / "se.py"
    nested.write_text("x = 2\n")
    digests.append(source_digest(tmp_path))
    nested.rename(nested.with_name("eca.py"))
    digests.append(source_digest(tmp_path))
    (tmp_path / "common" / "new.py").touch()
    digests.append(source_digest(tmp_path))
    assert len(set(digests)) == 4


def test_other_code_and_other_files_do_not_change_the_digest(tmp_path: Path) -> None:
    write_sources(tmp_path)
    before = source_digest(tmp_path)
    (tmp_path / "search" / "space.py").write_text("x = 2\n")
    (tmp_path / "trainables" / "notes.txt").write_text("x")
    assert source_digest(tmp_path) == before


def test_all_code_that_training_imports_is_part_of_the_digest() -> None:
    code = f"""
import sys, trainables.training.loop, trainables.trial
own = {set(PACKAGES)!r}
print(sorted({{name.split(".")[0] for name in sys.modules}} & own))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == str(sorted(TRAINING_PACKAGES))
