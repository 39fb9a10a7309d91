"""Read the files that start clusters, and find what they must not contain."""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any

import yaml

from tests.docs import ROOT


def read_cluster(name: str) -> dict[str, Any]:
    """Return the cluster of a file in the project's root."""
    cluster: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return cluster


def commands(cluster: Mapping[str, Any]) -> Iterator[str]:
    """Yield every shell command that `ray up` runs on a node."""
    for key, value in cluster.items():
        if key.endswith("_commands"):
            yield from value


def ray_starts(cluster: Mapping[str, Any]) -> list[str]:
    """Return the commands that start Ray: the head's, then the workers'."""
    return [command for command in commands(cluster) if "ray start" in command]


def without_image(cluster: Mapping[str, Any]) -> list[str]:
    """Return the node types that state no image: Ray would fill in an old one."""
    types = cluster["available_node_types"]
    stated = re.compile(r"ami-[0-9a-f]{17}|resolve:ssm:/aws/service/[\w./-]+")
    return [
        name
        for name, node in types.items()
        if not stated.fullmatch(node["node_config"].get("ImageId", ""))
    ]


def without_profile(cluster: Mapping[str, Any]) -> list[str]:
    """Return the node types that state no IAM profile, and so could not use S3."""
    types = cluster["available_node_types"]
    return [name for name, node in types.items() if not _profile(node["node_config"])]


def open_to_the_world(cluster: Mapping[str, Any]) -> list[str]:
    """Return the outside sources that are larger than a network of one organization."""
    rules = cluster["provider"]["security_group"]["IpPermissions"]
    sources = [
        source[key]
        for rule in rules
        for ranges, key in (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6"))
        for source in rule.get(ranges, [])
    ]
    return [cidr for cidr in sources if ipaddress.ip_network(cidr).prefixlen < 8]


def other_sudo(cluster: Mapping[str, Any]) -> list[str]:
    """Return the uses of sudo that do more than install packages."""
    uses = [use for command in commands(cluster) for use in re.findall(r"\bsudo\b[^;&|]*", command)]
    return [use for use in uses if not re.match(r"sudo apt-get (-o \S+ )?(update|install) ", use)]


def excluded(path: str, patterns: list[str]) -> bool:
    """Return whether rsync leaves out `path` (relative to the source folder) or a parent of it.

    Covers the patterns that we use: NAME/ matches a folder at any depth, /NAME/ at the top.
    """
    parts = PurePosixPath(path).parts
    for pattern in patterns:
        name = pattern.strip("/")
        candidates = parts[:1] if pattern.startswith("/") else parts
        if any(fnmatch(part, name) for part in candidates):
            return True
    return False


def _profile(node_config: Mapping[str, Any]) -> str:
    return str(node_config.get("IamInstanceProfile", {}).get("Name", ""))
