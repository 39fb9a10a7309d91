"""cluster.yaml and cluster.local.yaml: Ray accepts them, and they open nothing but SSH.

Three tests call private functions of Ray, to notice when a trap that the files avoid is mended.
"""

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
from ray.autoscaler._private.aws import config
from ray.autoscaler._private.local.config import prepare_local

from tests.cluster_files import (
    commands,
    excluded,
    open_to_the_world,
    other_sudo,
    ray_starts,
    read_cluster,
    without_image,
    without_profile,
)
from tests.docs import ROOT

FILES = ("cluster.yaml", "cluster.local.yaml")
RAY_AWS: Any = config


@pytest.fixture(params=FILES)
def cluster(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read_cluster(request.param)


@pytest.fixture
def aws() -> dict[str, Any]:
    return read_cluster("cluster.yaml")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    path = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def test_the_file_passes_rays_schema(cluster: dict[str, Any], schema: dict[str, Any]) -> None:
    assert schema["properties"]["cluster_name"]
    jsonschema.validate(cluster, schema)


def test_rays_schema_rejects_an_unknown_key(
    cluster: dict[str, Any], schema: dict[str, Any]
) -> None:
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        jsonschema.validate({**cluster, "max_worker": 3}, schema)


def test_ray_asks_for_a_token_on_every_machine(cluster: dict[str, Any]) -> None:
    starts = ray_starts(cluster)
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "~/.ray/auth_token" in cluster["file_mounts"]
    assert "chmod 600 ~/.ray/auth_token" in cluster["setup_commands"]


def test_no_server_that_knows_no_token_listens_on_the_network(cluster: dict[str, Any]) -> None:
    """The dashboard stays on loopback; Ray's three metrics servers do not start."""
    head, worker = ray_starts(cluster)
    assert "0.0.0.0" not in head + worker
    assert "--dashboard-host=127.0.0.1" in head
    assert "AUTOSCALER_METRIC_PORT=-1 DASHBOARD_METRIC_PORT=-1" in head
    assert "RAY_enable_metrics_collection=0" in head
    assert "RAY_enable_metrics_collection=0" in worker


def test_the_head_gives_no_cpu(cluster: dict[str, Any]) -> None:
    assert "--num-cpus=0" in ray_starts(cluster)[0]
    types = cluster.get("available_node_types", {"head": {"resources": {"CPU": 0}}})
    assert types["head"]["resources"] == {"CPU": 0}


def test_starting_ray_is_the_last_command(cluster: dict[str, Any]) -> None:
    """Options can then be appended to it."""
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert cluster[key][-1] in ray_starts(cluster)


def test_both_files_start_ray_in_the_same_way() -> None:
    first, second = (read_cluster(name) for name in FILES)
    for key in ("head_start_ray_commands", "worker_start_ray_commands", "rsync_exclude"):
        assert first[key] == second[key]
    assert set(second["setup_commands"]) <= set(first["setup_commands"])


def test_sudo_installs_packages_and_nothing_else(cluster: dict[str, Any]) -> None:
    assert other_sudo(cluster) == []
    assert other_sudo({"setup_commands": ["true && sudo rm -rf /"]}) == ["sudo rm -rf /"]


def test_runs_data_and_environment_stay_where_they_are(cluster: dict[str, Any]) -> None:
    patterns = cluster["rsync_exclude"]
    for path in (".venv/bin/python", "runs/digits/journal.jsonl", "data/x.jpg", ".git/HEAD"):
        assert excluded(path, patterns)


def test_the_code_travels_whole(cluster: dict[str, Any]) -> None:
    """A pattern such as data/ would leave out trainables/data/ as well."""
    packages = ("quorum", "analysis", "search", "ensemble", "trainables", "journal", "common")
    files = [
        str(path.relative_to(ROOT))
        for package in packages
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".yaml", ".typ")
    ]
    files += ["pyproject.toml", "requirements.lock", "Makefile", "README.md", "LICENSE"]
    assert [path for path in files if excluded(path, cluster["rsync_exclude"])] == []
    assert excluded("trainables/data/cache.py", ["data/"])


def test_peoples_shells_use_the_token(cluster: dict[str, Any], tmp_path: Path) -> None:
    """Also in a shell that is not interactive, in which Ubuntu's .bashrc returns early."""
    (command,) = (c for c in cluster["setup_commands"] if ".bashrc" in c)
    bashrc = tmp_path / ".bashrc"
    bashrc.write_text("return\nexport LATE=1\n")
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    for _ in range(2):
        subprocess.run(["bash", "-c", command], env=environment, check=True)
    assert bashrc.read_text().count("RAY_AUTH_MODE") == 1
    assert bashrc.read_text().endswith("return\nexport LATE=1\n")
    show = 'source ~/.bashrc; echo "$RAY_AUTH_MODE ${PATH%%:*}"'
    shown = subprocess.run(
        ["bash", "-c", show], env=environment, check=True, capture_output=True, text=True
    )
    assert shown.stdout.split() == ["token", f"{tmp_path}/quorum/.venv/bin"]


@pytest.mark.parametrize("lacking", [None, "make", "tmux", "python3"])
def test_packages_are_installed_only_where_they_are_missing(
    aws: dict[str, Any], tmp_path: Path, lacking: str | None
) -> None:
    (command,) = (c for c in aws["setup_commands"] if "apt-get" in c)
    for name in {"make", "tmux", "python3"} - {lacking}:
        (tmp_path / name).write_text("#!/bin/sh\n")
    (tmp_path / "sudo").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/sudo.log\n')
    for path in tmp_path.iterdir():
        path.chmod(0o755)
    subprocess.run(["/bin/bash", "-c", command], env={"PATH": str(tmp_path)}, check=True)
    log = tmp_path / "sudo.log"
    calls = log.read_text().splitlines() if log.exists() else []
    assert len(calls) == (0 if lacking is None else 2)


def test_every_node_type_states_its_image(aws: dict[str, Any]) -> None:
    assert without_image(aws) == []
    del aws["available_node_types"]["gpu_spot"]["node_config"]["ImageId"]
    assert without_image(aws) == ["gpu_spot"]


def test_images_are_ubuntu_24_04_and_gpu_workers_have_the_driver(aws: dict[str, Any]) -> None:
    for node in aws["available_node_types"].values():
        image, kind = (node["node_config"][key] for key in ("ImageId", "InstanceType"))
        assert "24.04" in image
        assert ("nvidia-driver" in image) == kind.startswith("g")


def test_ray_keeps_stated_images_and_fills_in_an_old_one_elsewhere(aws: dict[str, Any]) -> None:
    bare = copy.deepcopy(aws)
    del bare["available_node_types"]["head"]["node_config"]["ImageId"]
    RAY_AWS._check_ami(bare)
    types = bare["available_node_types"]
    old = types.pop("head")["node_config"]["ImageId"]
    assert old == RAY_AWS.DEFAULT_AMI[aws["provider"]["region"]]
    assert "18.04" in RAY_AWS.DEFAULT_AMI_NAME
    assert {name: types[name] for name in types} == {
        name: aws["available_node_types"][name] for name in types
    }


def test_only_ssh_is_open_to_the_outside_and_not_to_everybody(aws: dict[str, Any]) -> None:
    rules = aws["provider"]["security_group"]["IpPermissions"]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in rules] == [(22, 22)]
    assert open_to_the_world(aws) == []
    for everybody in (
        {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
        {"Ipv6Ranges": [{"CidrIpv6": "::/0"}]},
    ):
        rules[0].update(everybody)
        assert len(open_to_the_world(aws)) == 1
        rules[0] |= {"IpRanges": [], "Ipv6Ranges": []}


def test_ray_makes_no_security_group(aws: dict[str, Any]) -> None:
    """Ray's own group admits SSH from everywhere, whatever the file states."""
    for node in aws["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"]
    made_by_ray = RAY_AWS._create_default_inbound_rules({"sg-1"}, [])
    assert "0.0.0.0/0" in json.dumps(made_by_ray)


def test_every_node_may_use_s3_and_only_the_head_more(aws: dict[str, Any]) -> None:
    assert without_profile(aws) == []
    types = aws["available_node_types"]
    profiles = {
        name: node["node_config"]["IamInstanceProfile"]["Name"] for name, node in types.items()
    }
    head = profiles.pop(aws["head_node_type"])
    assert head not in profiles.values()
    del types["gpu_on_demand"]["node_config"]["IamInstanceProfile"]
    assert without_profile(aws) == ["gpu_on_demand"]


def test_spot_workers_stand_on_a_floor_that_is_not_reclaimed(aws: dict[str, Any]) -> None:
    workers = {k: v for k, v in aws["available_node_types"].items() if k != aws["head_node_type"]}
    spot = {
        name: node["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"}
        for name, node in workers.items()
    }
    assert spot == {"gpu_on_demand": False, "gpu_spot": True}
    assert workers["gpu_on_demand"]["min_workers"] == workers["gpu_on_demand"]["max_workers"] == 1
    assert workers["gpu_spot"]["min_workers"] == 0
    assert sum(node["max_workers"] for node in workers.values()) == aws["max_workers"]
    assert aws["idle_timeout_minutes"] <= 15


def test_ones_own_machines_all_join_and_need_no_cloud() -> None:
    local = read_cluster("cluster.local.yaml")
    prepared, _ = prepare_local(local)
    (node,) = prepared["available_node_types"].values()
    assert node["min_workers"] == node["max_workers"] == len(local["provider"]["worker_ips"])
    assert not any("sudo" in command for command in commands(local))
    text = (ROOT / "cluster.local.yaml").read_text()
    assert "RAY_UP_enable_autoscaler_v2=0 ray up" in text
    for word in ("aws", "ami-", "iam", "region"):
        assert word not in text.lower().split()
