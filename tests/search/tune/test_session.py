"""A private Ray session: on loopback, with a token, silent, and gone afterwards."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from search.tune.session import ray_session
from tests.docs import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return values seen inside a session, and the processes that it started."""
    neutral = tmp_path_factory.mktemp("neutral")
    before, cwd = dict(os.environ), Path.cwd()
    # Other tests' helpers, such as multiprocessing's resource tracker, live as long as we do.
    others = set(psutil.Process().children(recursive=True))
    with ray_session(cpus=1, folder=neutral):
        seen: dict[str, Any] = ray.get(ray.remote(look).remote())
        seen["cwd here"] = Path.cwd()
        seen["environment here"] = dict(os.environ)
        with ray_session():
            assert ray.is_initialized()
        assert ray.is_initialized()
        children = [p for p in psutil.Process().children(recursive=True) if p not in others]
        connections = [
            connection
            for process in [psutil.Process(), *children]
            for connection in process.net_connections("tcp")
        ]
        seen["addresses"] = {connection.laddr.ip for connection in connections}
        seen["partners"] = {connection.raddr.ip for connection in connections if connection.raddr}
        seen["resources"] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    assert not ray.is_initialized()
    seen["environment after"] = dict(os.environ)
    seen |= {"neutral": neutral, "children": children, "environment before": before, "cwd": cwd}
    return seen


def look() -> dict[str, Any]:
    """Return values that a worker sees."""
    import search
    import trainables

    return {
        "packages": [Path(str(module.__file__)).parent.parent for module in (search, trainables)],
        "worker's cwd": Path.cwd(),
        "worker's environment": dict(os.environ),
    }


def test_ray_listens_on_loopback_only(session: dict[str, Any]) -> None:
    """No server or client of the session, Ray's included, connects to another machine."""
    for place in ("addresses", "partners"):
        assert session[place]
        assert session[place] <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_the_token_is_in_no_file(session: dict[str, Any]) -> None:
    inside = session["worker's environment"]
    assert inside["RAY_AUTH_MODE"] == "token"
    assert len(inside["RAY_AUTH_TOKEN"]) == 64
    files = Path.home().glob(".ray/*")
    assert all(inside["RAY_AUTH_TOKEN"] not in path.read_text() for path in files)


def test_workers_import_our_packages_from_a_neutral_folder(session: dict[str, Any]) -> None:
    assert session["packages"] == [ROOT, ROOT]
    assert session["worker's cwd"] == session["neutral"]
    assert session["cwd here"] == session["cwd"]


def test_ray_reports_no_usage_and_has_the_requested_resources(session: dict[str, Any]) -> None:
    assert session["environment here"]["RAY_USAGE_STATS_ENABLED"] == "0"
    assert session["resources"]["CPU"] == 1


def test_a_session_leaves_nothing_behind(session: dict[str, Any]) -> None:
    assert session["environment after"] == session["environment before"]
    assert Path.cwd() == session["cwd"]
    _, alive = psutil.wait_procs(session["children"], timeout=60)
    assert alive == []


def test_a_second_session_in_one_process_starts_too(
    session: dict[str, Any], tmp_path: Path
) -> None:
    with ray_session(cpus=1, folder=tmp_path):
        assert ray.get(ray.remote(look).remote())["packages"] == [ROOT, ROOT]


def test_importing_the_module_changes_nothing() -> None:
    code = (
        "import os; before = dict(os.environ); import search.tune.session\n"
        "print(before == os.environ)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "True"
