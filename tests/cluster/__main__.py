"""Run scenarios on a cluster of hosts made of namespaces; `make test-cluster`.

python -m tests.cluster                     the short ones: 8 minutes in all on 2 cores
python -m tests.cluster --all               every scenario
python -m tests.cluster --only lost_host    these, separated by commas
python -m tests.cluster --list              their names
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.catalogue import SCENARIOS, choose
from tests.cluster.isolation import obstacle, run_isolated
from tests.cluster.running import run_scenarios
from tests.cluster.tools import made_tools
from tests.docs import ROOT


def main(words: Sequence[str] | None = None) -> int:
    """Return 0 if every scenario passed or none can run here, 1 if one failed."""
    parsed = _parser().parse_args(words)
    names = [name for name in (parsed.only or "").split(",") if name]
    try:
        chosen = choose(names, everything=parsed.all)
    except ValueError as error:
        return _say(str(error), 2)
    if parsed.list:
        return _say("\n".join(scenario.summary for scenario in SCENARIOS), 0)
    if parsed.inside is not None:
        return run_scenarios(chosen, parsed.inside, tools=parsed.tools, config=parsed.config)
    reason = obstacle()
    if reason is not None:
        required = parsed.required or names
        return _say(f"the cluster is not tested: {reason}", 2 if required else 0)
    return _start(parsed, [scenario.name for scenario in chosen])


def _start(parsed: Namespace, names: Sequence[str]) -> int:
    with made_tools() as tools:
        arguments = ["--only", ",".join(names), "--config", str(parsed.config.absolute())]
        arguments += ["--tools", str(tools)] if tools else []
        return run_isolated(arguments, work=parsed.work)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "python -m tests.cluster", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="A,B", help="run these scenarios")
    parser.add_argument("--all", action="store_true", help="run the long ones too")
    parser.add_argument("--list", action="store_true", help="print the scenarios and stop")
    parser.add_argument("--required", action="store_true", help="fail where hosts cannot be made")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the hosts' disks and logs")
    parser.add_argument("--config", type=Path, metavar="FILE", default=ROOT / "cluster.yaml")
    parser.add_argument("--inside", type=Path, metavar="DIR", help="used by the program itself")
    parser.add_argument("--tools", type=Path, metavar="DIR", help="used by the program itself")
    return parser


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main())
