"""cluster.yaml passes Ray's own schema and opens only SSH."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

ROOT = Path(__file__).parent.parent


@pytest.fixture
def cluster() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return config


def test_the_cluster_passes_rays_schema(cluster: dict[str, Any]) -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    assert schema["properties"]["cluster_name"]
    jsonschema.validate(cluster, schema)


def test_rays_schema_rejects_an_unknown_key(cluster: dict[str, Any]) -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        jsonschema.validate({**cluster, "max_worker": 3}, schema)


def test_only_ssh_is_open_to_the_outside(cluster: dict[str, Any]) -> None:
    rules = cluster["provider"]["security_group"]["IpPermissions"]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in rules] == [(22, 22)]


def test_ray_asks_for_a_token_on_every_machine(cluster: dict[str, Any]) -> None:
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in cluster[key]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "~/.ray/auth_token" in cluster["file_mounts"]
    assert all("0.0.0.0" not in command for command in starts)


def test_the_head_has_no_gpu_and_the_workers_are_spot_instances(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    worker = types["gpu_spot"]["node_config"]
    assert cluster["head_node_type"] == "head"
    assert worker["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert types["gpu_spot"]["min_workers"] == 0
