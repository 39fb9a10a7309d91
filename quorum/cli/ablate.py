"""Train a recipe without each of its factors; print what each is worth.

Every variant is trained from the same seeds and scored on holdout. The run's folder, by default
SWEEP-ablation, gets ablation.json, ablation.csv and figures/ablation.png.
"""

from argparse import ArgumentParser, Namespace

import quorum
from quorum.cli.arguments import add_dry_run, add_options, add_sweep, values_of
from quorum.cli.printing import console, print_reminder
from quorum.options import AblationOptions

EXAMPLE = "quorum ablate digits --seeds 5 --time-budget 10m"


def add_arguments(parser: ArgumentParser) -> None:
    """Add SWEEP and the options of an ablation."""
    text = "a shipped sweep's name, or a YAML file (default: that of --of)"
    add_sweep(parser, nargs="?", help=text)
    add_options(parser, AblationOptions)
    add_dry_run(parser, "check sweep and data, print the plan, and stop")


def execute(arguments: Namespace) -> int:
    """Ablate and print each factor's effect."""
    from analysis.terminal.ablation_tables import ablation_plan, ablation_table, result_lines

    values = values_of(arguments, AblationOptions)
    if arguments.dry_run:
        console().print(ablation_plan(*quorum.plan_ablation(arguments.sweep, **values)))
        return 0
    outcome = quorum.ablate(arguments.sweep, **values)
    lines = result_lines(outcome.folder)
    console().print(ablation_table(outcome.result), *lines, sep="\n", crop=False)
    print_reminder(arguments.address)
    return 0
