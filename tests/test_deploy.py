"""deploy/: what is created in an AWS account, and the job for KubeRay."""

import re
from typing import Any

import pytest
import yaml

from deploy.aws_setup import HEAD, WORKER, ingress, policies
from tests.docs import ROOT

# Names of fields from KubeRay 1.7's API reference (docs/reference/api.md in ray-project/kuberay).
# The CRD is not copied here; this subset notices a misspelt or misplaced field.
FIELDS = {
    "RayJob": "apiVersion kind metadata spec",
    "RayJobSpec": "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint "
    "entrypointNumCpus entrypointNumGpus entrypointResources jobId managedBy metadata "
    "preRunningDeadlineSeconds rayClusterSpec runtimeEnvYAML shutdownAfterJobFinishes "
    "submissionMode submitterConfig submitterPodTemplate suspend ttlSecondsAfterFinished",
    "RayClusterSpec": "authOptions autoscalerOptions enableInTreeAutoscaling "
    "gcsFaultToleranceOptions headGroupSpec headServiceAnnotations historyServerOptions managedBy "
    "networkPolicy rayVersion suspend tlsOptions upgradeStrategy workerGroupSpecs",
    "AutoscalerOptions": "args command env envFrom idleTimeoutSeconds image imagePullPolicy "
    "resources securityContext upscalingMode version volumeMounts",
    "HeadGroupSpec": "enableIngress headService ingressOptions labels rayStartParams resources "
    "serviceType template",
    "WorkerGroupSpec": "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts "
    "priority rayStartParams replicas resources scaleStrategy suspend template",
}


@pytest.fixture
def documents() -> dict[str, dict[str, Any]]:
    text = (ROOT / "deploy" / "rayjob.yaml").read_text()
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


@pytest.fixture
def job(documents: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return documents["RayJob"]


def unknown_fields(job: dict[str, Any]) -> list[str]:
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    objects = [
        ("RayJob", job),
        ("RayJobSpec", spec),
        ("RayClusterSpec", cluster),
        ("AutoscalerOptions", cluster["autoscalerOptions"]),
        ("HeadGroupSpec", cluster["headGroupSpec"]),
        *(("WorkerGroupSpec", group) for group in cluster["workerGroupSpecs"]),
    ]
    return [
        f"{kind}.{name}"
        for kind, value in objects
        for name in value
        if name not in FIELDS[kind].split()
    ]


def groups(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_the_job_has_only_fields_of_the_published_schema(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert unknown_fields(job) == []
    job["spec"]["rayClusterSpec"]["authOption"] = job["spec"]["rayClusterSpec"].pop("authOptions")
    assert unknown_fields(job) == ["RayClusterSpec.authOption"]


def test_parameters_of_ray_are_strings(job: dict[str, Any]) -> None:
    for group in groups(job):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        for container in group["template"]["spec"]["containers"]:
            assert all(isinstance(entry["value"], str) for entry in container["env"])


def test_the_job_runs_the_locked_ray(job: dict[str, Any]) -> None:
    locked = re.search(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)
    assert locked
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == locked[1]


def test_ray_asks_for_a_token_and_metrics_are_off(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    off = {"RAY_enable_metrics_collection": "0", "DASHBOARD_METRIC_PORT": "-1"}
    for group in groups(job):
        (container,) = group["template"]["spec"]["containers"]
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert environment.items() >= off.items()
    autoscaler = {entry["name"]: entry["value"] for entry in cluster["autoscalerOptions"]["env"]}
    assert autoscaler == {"AUTOSCALER_METRIC_PORT": "-1"}


def test_no_pod_is_privileged_and_every_pod_is_limited(job: dict[str, Any]) -> None:
    for group in groups(job):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all("hostPath" not in volume for volume in pod.get("volumes", []))
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()


def test_gpu_workers_scale_from_zero_and_the_head_trains_nothing(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] == 0 < workers["maxReplicas"]
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_cluster_ends_with_the_job(job: dict[str, Any]) -> None:
    assert job["spec"]["shutdownAfterJobFinishes"]
    assert job["spec"]["activeDeadlineSeconds"] > 0


def test_the_network_policy_covers_every_pod_and_admits_nobody_else(
    documents: dict[str, dict[str, Any]], job: dict[str, Any]
) -> None:
    policy = documents["NetworkPolicy"]["spec"]
    for group in groups(job):
        assert group["template"]["metadata"]["labels"] == policy["podSelector"]["matchLabels"]
    assert policy["policyTypes"] == ["Ingress"]
    assert all("ipBlock" not in peer for rule in policy["ingress"] for peer in rule["from"])


def security_group(cidr: str, port: int = 22) -> dict[str, Any]:
    ranges = [{"CidrIp": cidr}]
    rule = {"FromPort": port, "ToPort": port, "IpProtocol": "tcp", "IpRanges": ranges}
    return {"GroupName": "quorum", "IpPermissions": [rule]}


def test_the_group_admits_its_own_nodes_and_ssh() -> None:
    between, ssh = ingress(security_group("100.64.7.7/32"), "sg-1")
    assert between == {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-1"}]}
    assert ssh["IpRanges"] == [{"CidrIp": "100.64.7.7/32"}]


@pytest.mark.parametrize(
    ("cidr", "port", "reason"),
    [
        ("0.0.0.0/0", 22, "give your own range"),
        ("0.0.0.0/1", 22, "give your own range"),
        ("203.0.113.0/24", 22, "is an example"),
        ("100.64.7.7/32", 8265, "only SSH"),
    ],
)
def test_the_group_opens_nothing_else(cidr: str, port: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ingress(security_group(cidr, port), "sg-1")


def test_the_file_must_be_edited_before_the_group_is_made() -> None:
    provider = yaml.safe_load((ROOT / "cluster.yaml").read_text())["provider"]
    with pytest.raises(ValueError, match="is an example"):
        ingress(provider["security_group"], "sg-1")


def test_workers_may_use_one_bucket_and_the_head_starts_workers() -> None:
    made = policies("123456789012", "mine")
    names = {node: {a for s in made[node]["Statement"] for a in s["Action"]} for node in made}
    assert all(action.startswith("s3:") for action in names[WORKER])
    for statement in made[WORKER]["Statement"]:
        assert all(r.startswith("arn:aws:s3:::mine") for r in statement["Resource"])
    assert names[HEAD] - names[WORKER] == {
        "ec2:Describe*",
        "ec2:RunInstances",
        "ec2:CreateTags",
        "ec2:TerminateInstances",
        "iam:PassRole",
        "ssm:GetParameters",
    }
    (passed,) = (s for s in made[HEAD]["Statement"] if s["Action"] == ["iam:PassRole"])
    assert passed["Resource"] == [f"arn:aws:iam::123456789012:role/{WORKER}"]
