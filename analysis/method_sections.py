"""The report's last sections: what each number is, how to make it again, on what it ran."""

from analysis.blocks import Block, code, pairs, section, text
from analysis.facts import RunFacts
from analysis.formats import duration, plural, value_text
from trainables.intervals import DRAWS, FEW
from trainables.metrics import ECE_BINS

UNITS = {"memory_gib": "memory, GiB", "cpu_flags": "CPU flags", "python": "Python"}

METHODS: tuple[tuple[str, str], ...] = (
    (
        "stages",
        "Best single: the finished trial with the lowest NLL on holdout. Uniform top-k: the k "
        "best, equally weighted. Ensemble: the chosen members with their weights. Student plain: "
        "the student's net without a teacher; fp32: taught by the ensemble; int8: quantized.",
    ),
    (
        "splits",
        "Train, val, holdout and test are disjoint, and read in that order. Val stops trials and "
        "guides the search; holdout decides selection, weights, temperatures, quantizer and "
        "gates; test is read when all is frozen, and only reported.",
    ),
    (
        "NLL",
        "Mean negative log-probability of the true class, in nats. The search minimizes it on "
        "val, for the moving average of the weights with recalibrated batch statistics, after one "
        "temperature, at the last epoch of the rung: never at the best epoch.",
    ),
    (
        "accuracy",
        "Share of images whose most probable class is the true one; its interval is Wilson's, "
        "95%. Balanced: the mean over classes.",
    ),
    (
        "Brier",
        "Mean squared distance between the probabilities and the truth, summed over classes.",
    ),
    (
        "ECE",
        f"Mean gap between confidence and accuracy in {ECE_BINS} bins of as many images each. It "
        "is above zero even for a perfect model, which is why that model's value stands beside it. "
        "Reported, never a gate.",
    ),
    (
        "differences",
        "Paired: image by image, on the same images. The interval is that of a bootstrap over "
        f"images ({DRAWS:,} draws); for accuracies that differ on fewer than {FEW} images it is "
        "Tango's, with McNemar's exact test. Where zero lies in it, the report says “not "
        "distinguishable”.",
    ),
    (
        "gates",
        "On holdout, by a one-sided 95% bound against the limit: pass if even the unfavourable "
        "bound keeps the limit, fail if even the favourable one breaks it, else undecided. Fail "
        "and undecided ship fp32.",
    ),
    (
        "temperature",
        "One number a stage, fitted on holdout by NLL; of the int8 student after quantization.",
    ),
    (
        "seeds ensemble",
        "As many seeds of the best configuration as the ensemble has members, each trained for "
        "the whole schedule: what the same training would have bought without a varied pool.",
    ),
    (
        "certificate",
        "The Frank–Wolfe gap, max over m of mean(p_m / p_pool) − 1 for the true class: the most "
        "that any weights could still gain in NLL, because the problem is convex.",
    ),
    (
        "latency",
        "Median of repeated calls with one image on the machine named below; images/s is the "
        "same in batches.",
    ),
)


def methods_section() -> Block:
    """What each number is, and how its interval was made."""
    return section("What the numbers are", pairs(METHODS))


def reproduction_section(facts: RunFacts) -> Block:
    """The commands that make it again, and where it ran."""
    machine = facts.started.get("machine") or (facts.ledger or {}).get("machine") or {}
    run = f"runs/{facts.name}"
    stages = ", ".join(f"{name} {duration(t)}" for name, t in facts.stage_seconds.items())
    return section(
        "How to make it again",
        _commands(
            (f"quorum run {run}/sweep.yaml --name again", "the whole chain"),
            (f"quorum report {run}", "this report"),
            (f"quorum predict {run} IMAGE", "ask the student"),
        ),
        text(
            "Every trial's recipe, seed, split and numerics stand in its start.json: trained again "
            "on the same kind of CPU, it ends in the same weights, bit for bit."
        ),
        pairs(
            (
                ("code", str(facts.started.get("code_version") or "")),
                *(
                    (UNITS.get(key, key.replace("_", " ")), value_text(v))
                    for key, v in machine.items()
                ),
                ("wall time", duration(facts.wall_seconds) if facts.wall_seconds else ""),
                ("stages", stages),
                ("resumed", plural(facts.resumed, "time") if facts.resumed else ""),
            )
        ),
    )


def _commands(*lines: tuple[str, str]) -> Block:
    width = max(len(command) for command, _ in lines)
    return code(*(f"{command:<{width}}  # {purpose}" for command, purpose in lines))
