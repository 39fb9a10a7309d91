"""The report's last sections: what each number is, how to make it again, on what it ran."""

from collections.abc import Mapping

from analysis.facts.asked import data_option
from analysis.facts.importance import DRAWS as DRAWS_OF_TRIALS
from analysis.facts.importance import TREES
from analysis.facts.run_facts import RunFacts
from analysis.report.blocks import Block, code, pairs, section, text
from common.formats import duration, plural, value_text
from common.statistics.intervals import DRAWS, FEW
from common.statistics.metrics import ECE_BINS

UNITS = {"memory_gib": "memory, GiB", "cpu_flags": "CPU flags", "python": "Python"}

VIEWS: Mapping[str, str] = {
    "mirror": "the image and its mirror image",
    "mirror_translate": "the image, its mirror image, and both moved by a pixel up left and down "
    "right",
}
"""What a recipe's `tta` averages."""

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
        "importance",
        f"How much worse a forest of {TREES} trees predicts a trial's rank, as a share of the "
        "ranks' variance, when the value is shuffled among trials (Breiman's permutation "
        "importance). Trials are ranked by NLL on val at the lowest rung, because only there all "
        f"had the same budget. {DRAWS_OF_TRIALS} bootstrap samples of the trials; each forest is "
        "judged on trials that its sample left out; the interval is the middle 95% of the "
        "results. With few trials it is wide, and it is shown so.",
    ),
    (
        "per class",
        "Accuracies have Wilson's 95% intervals, each for itself. Student less ensemble: paired, "
        "at the level 1 − 0.05/K, so that all K hold together with 95% confidence.",
    ),
    (
        "Grad-CAM",
        "Of the last layer that still has places to show: its maps, weighted by their mean "
        "gradient for the class that the ensemble names, negative parts cut off, scaled to 0 … 1 "
        "(Selvaraju et al., 2017). Of the ensemble: the mean over members by weight.",
    ),
    (
        "latency",
        "Median of repeated calls with one image on the machine named below; images/s is the "
        "same in batches.",
    ),
)


def methods_section(facts: RunFacts) -> Block:
    """What each number is, and how its interval was made."""
    first, *others = METHODS
    return section("What the numbers are", pairs((first, ("views", _views(facts)), *others)))


def reproduction_section(facts: RunFacts) -> Block:
    """The commands that make it again, and where it ran."""
    machine = facts.started.get("machine") or (facts.ledger or {}).get("machine") or {}
    run, data = f"runs/{facts.name}", data_option(facts.spec.dataset.path)
    stages = ", ".join(f"{name} {duration(t)}" for name, t in facts.stage_seconds.items())
    return section(
        "How to make it again",
        _commands(
            *([(facts.command, "as it was asked for")] if facts.command else []),
            (f"quorum run {run}/sweep.yaml --name again{data}", "the same schedules"),
            (f"quorum report {run}{'' if facts.spec.pictures else ' --no-images'}", "this report"),
            *([(f"quorum predict {run} IMAGE", "ask the student")] if facts.card else []),
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
                ("wall time", _wall_time(facts)),
                ("stages", stages),
            )
        ),
    )


def _views(facts: RunFacts) -> str:
    """A sentence where trials look at an image more than once; nothing where none does."""
    found = {str(trial.recipe.get("tta") or "none") for trial in facts.trials}
    told = [words for name, words in VIEWS.items() if name in found]
    if not told:
        return ""
    who = "Some trials" if "none" in found else "All trials"
    once = facts.card is not None and facts.card.recipe.get("tta", "none") == "none"
    return (
        f"{who} average the logits of several views when they predict ({' or '.join(told)}), and "
        "their latencies and images/s are those of all views together"
        f"{'; the student looks once' if once else ''}."
    )


def _wall_time(facts: RunFacts) -> str:
    if not facts.wall_seconds:
        return ""
    again = f", resumed {plural(facts.resumed, 'time')}" if facts.resumed else ""
    return f"{duration(facts.wall_seconds)}{again}"


def _commands(*lines: tuple[str, str]) -> Block:
    return code(*(part for command, purpose in lines for part in (f"# {purpose}", command)))
