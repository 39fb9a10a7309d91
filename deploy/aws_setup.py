"""Create what cluster.yaml needs in an AWS account: a security group and two instance profiles.

    .venv/bin/python deploy/aws_setup.py --bucket MY-BUCKET

It needs credentials that may edit IAM and EC2. Run it once per account and region, and again after
a change of the SSH range: the group then has exactly the rules of cluster.yaml.
"""

import argparse
import ipaddress
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import yaml

CLUSTER = Path(__file__).parent.parent / "cluster.yaml"
HEAD, WORKER = "quorum-head", "quorum-worker"
EXAMPLES = [
    ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
]
"""Ranges that RFC 5737 reserves for documentation: cluster.yaml holds one until it is edited."""


def ingress(security_group: Mapping[str, Any], group_id: str) -> list[dict[str, Any]]:
    """Return the group's rules: those stated, and every port between nodes of the group.

    Raises:
        ValueError: a rule opens more than SSH, or opens it to the whole internet or to nobody.
    """
    for rule in security_group["IpPermissions"]:
        if (rule["FromPort"], rule["ToPort"], rule["IpProtocol"].lower()) != (22, 22, "tcp"):
            raise ValueError(f"only SSH (TCP port 22) may be open to the outside, got {rule}")
        for source in rule["IpRanges"]:
            _check_range(source["CidrIp"])
    between = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group_id}]}
    return [between, *security_group["IpPermissions"]]


def policies(account: str, bucket: str) -> dict[str, dict[str, Any]]:
    """Return the policy of each role: both use the bucket; the head also manages workers."""
    storage = [
        _allow(["s3:ListBucket", "s3:GetBucketLocation"], [f"arn:aws:s3:::{bucket}"]),
        _allow(
            ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            [f"arn:aws:s3:::{bucket}/*"],
        ),
    ]
    workers = [
        _allow(["ec2:Describe*", "ec2:RunInstances", "ec2:CreateTags"], ["*"]),
        {
            **_allow(["ec2:TerminateInstances"], ["*"]),
            "Condition": {"StringLike": {"ec2:ResourceTag/ray-cluster-name": "*"}},
        },
        _allow(["iam:PassRole"], [f"arn:aws:iam::{account}:role/{WORKER}"]),
        # EC2 looks up `ImageId: resolve:ssm:…` with the rights of whoever starts the instance.
        _allow(["ssm:GetParameters"], ["arn:aws:ssm:*::parameter/aws/service/*"]),
    ]
    return {
        HEAD: {"Version": "2012-10-17", "Statement": [*storage, *workers]},
        WORKER: {"Version": "2012-10-17", "Statement": storage},
    }


def set_up_group(ec2: Any, security_group: Mapping[str, Any]) -> str:
    """Create the security group in the default VPC, or replace its rules; return its id."""
    vpcs = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not vpcs:
        raise ValueError("this region has no default VPC: aws ec2 create-default-vpc")
    vpc, name = vpcs[0]["VpcId"], security_group["GroupName"]
    wanted = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": [name]}]
    groups = ec2.describe_security_groups(Filters=wanted)["SecurityGroups"]
    if groups:
        group_id = str(groups[0]["GroupId"])
        rules = ingress(security_group, group_id)
        if groups[0]["IpPermissions"]:
            ec2.revoke_security_group_ingress(
                GroupId=group_id, IpPermissions=groups[0]["IpPermissions"]
            )
    else:
        ingress(security_group, "")
        created = ec2.create_security_group(GroupName=name, Description="Quorum", VpcId=vpc)
        group_id = str(created["GroupId"])
        rules = ingress(security_group, group_id)
    ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=rules)
    return group_id


def set_up_profile(iam: Any, name: str, policy: Mapping[str, Any]) -> None:
    """Create the role and the instance profile `name` where missing, and set the role's policy."""
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "ec2.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    present = iam.exceptions.EntityAlreadyExistsException
    with suppress(present):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    iam.put_role_policy(RoleName=name, PolicyName="quorum", PolicyDocument=json.dumps(policy))
    with suppress(present):
        iam.create_instance_profile(InstanceProfileName=name)
    # A profile holds one role; LimitExceeded says that it holds one already.
    with suppress(present, iam.exceptions.LimitExceededException):
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def allow_spot(iam: Any) -> None:
    """Create the role that AWS needs to start spot instances; an account has it once for all."""
    with suppress(
        iam.exceptions.InvalidInputException, iam.exceptions.EntityAlreadyExistsException
    ):
        iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bucket", required=True, help="S3 bucket for --storage s3://BUCKET/…")
    bucket = parser.parse_args().bucket
    provider = yaml.safe_load(CLUSTER.read_text())["provider"]
    session = boto3.Session(region_name=provider["region"])
    try:
        group_id = set_up_group(session.client("ec2"), provider["security_group"])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    iam = session.client("iam")
    account = session.client("sts").get_caller_identity()["Account"]
    for name, policy in policies(account, bucket).items():
        set_up_profile(iam, name, policy)
    allow_spot(iam)
    print(f"Now set in cluster.yaml:  SecurityGroupIds: [{group_id}]")
    return 0


def _check_range(cidr: str) -> None:
    network = ipaddress.ip_network(cidr)
    if network.prefixlen < 8:
        raise ValueError(f"SSH from {cidr} is open to much of the internet; give your own range")
    if network in EXAMPLES:
        raise ValueError(f"{cidr} is an example; give the addresses you connect from")


def _allow(actions: list[str], resources: list[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resources}


if __name__ == "__main__":
    sys.exit(main())
