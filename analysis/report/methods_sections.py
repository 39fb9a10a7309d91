"""The last sections: definitions of all numbers, and how to reproduce the run."""

from collections.abc import Mapping

from analysis.facts.importance import DRAWS as IMPORTANCE_DRAWS
from analysis.facts.importance import TREES
from analysis.facts.run_facts import RUNS, RunFacts
from analysis.report.blocks import Code, Section, pairs, section, text
from common.commands import command
from common.formats import duration, plural, value_text
from common.statistics.intervals import DRAWS, FEW
from common.statistics.metrics import ECE_BINS
from search.space.start_command import portable

MACHINE_LABELS = {"memory_gib": "memory, GiB", "cpu_flags": "CPU flags", "python": "Python"}

VIEWS: Mapping[str, str] = {
    "mirror": "the image and its mirror image",
    "mirror_translate": "the image, its mirror image, and both shifted by one pixel up left and "
    "down right",
}
"""The views that each test-time augmentation of a recipe (`tta`) averages."""

DEFINITIONS: tuple[tuple[str, str], ...] = (
    (
        "stages",
        "Best single: the pool's trial with the lowest NLL on holdout at its own temperature. "
        "Uniform top-k: as many of the best as the ensemble has members, equally weighted. "
        "Ensemble: the chosen members with their weights. Plain student: the student's network "
        "trained without a teacher; fp32 student: taught by the ensemble; int8 student: quantized.",
    ),
    (
        "splits",
        "Train, val, holdout and test are disjoint and read in that order. Val stops trials and "
        "guides the search; holdout decides selection, weights, temperatures, quantizer and "
        "gates; test is read after all choices are frozen, and only reported.",
    ),
    (
        "NLL",
        "Mean negative log-probability of the true class, in nats. The search minimizes it on "
        "val, using the moving average of the weights and one fitted temperature, at the last "
        "epoch of the rung, never at the best epoch. Batch statistics of networks trained from "
        "scratch are measured again for the averaged weights.",
    ),
    (
        "accuracy",
        "Share of images whose most probable class is the true one, with Wilson's 95% interval. "
        "Balanced accuracy: the mean over classes.",
    ),
    (
        "Brier",
        "Mean squared distance between the predicted probabilities and the true class, summed "
        "over classes.",
    ),
    (
        "ECE",
        f"Mean gap between confidence and accuracy in {ECE_BINS} bins of equally many images. It "
        "is positive even for a perfectly calibrated model, so the ECE of that model (null) is "
        "given beside it. Reported only, never used by a gate.",
    ),
    (
        "differences",
        "Paired, image by image, over the same images. The interval is a bootstrap over images "
        f"({DRAWS:,} draws); for accuracies that differ on fewer than {FEW} images it is Tango's, "
        "with McNemar's exact test. If the interval contains zero, the report says “not "
        "distinguishable”.",
    ),
    (
        "gates",
        "Decided on holdout by one-sided confidence bounds: 95% at a run's first decision, more at "
        "later ones. A gate passes if even the unfavourable bound is within the limit, fails if "
        "even the favourable one is beyond it, and is undecided otherwise. A file that fails a "
        "gate of quality or a budget does not ship. Gates of precision choose between a network's "
        "fp32 and int8 files. An undecided gate only keeps the file from becoming champion.",
    ),
    (
        "temperature",
        "One number for each stage, fitted on holdout by NLL; for the int8 student, after "
        "quantization.",
    ),
    (
        "seed ensemble",
        "As many seeds of the best configuration as the ensemble has members, each trained for "
        "the whole schedule: the gain from the same compute without a diverse pool.",
    ),
    (
        "certificate",
        "Compares the chosen weights with the optimal ones, each pool after its own temperature. "
        "The optimal weights minimise the pool's NLL before the temperature, a convex problem; the "
        "Frank–Wolfe gap, max over m of mean(p_m / p_pool) − 1 for the true class, bounds how far "
        "they are from its minimum. At the chosen weights, the gap bounds the NLL that any others "
        "could save before the temperature.",
    ),
    (
        "candidate",
        "An ensemble that was tried. Its members are seeds of the best configuration, or chosen by "
        "rank, diversity, greedy or bagged selection; every number of them has uniform weights, "
        "the largest also learned ones; they are pooled raw or at their own temperatures.",
    ),
    (
        "importance",
        f"Permutation importance (Breiman): how much worse a forest of {TREES} trees predicts a "
        "trial's rank when the value is shuffled among trials, as a share of the ranks' variance. "
        "Trials are ranked by NLL on val at the lowest rung, where all had the same budget. "
        f"{IMPORTANCE_DRAWS} bootstrap samples of the trials, each forest evaluated on the trials "
        "that its sample left out; the interval is the middle 95% of the results. With few trials "
        "it is wide.",
    ),
    (
        "per class",
        "Accuracies have Wilson's 95% intervals, not corrected for the number of classes. "
        "Student minus ensemble: paired, at level 1 − 0.05/K, so that all K intervals hold "
        "together with 95% confidence.",
    ),
    (
        "Grad-CAM",
        "Maps of the last layer with spatial resolution, weighted by their mean gradient for "
        "the class that the ensemble predicts; negative values are set to zero, the rest scaled "
        "to 0 … 1 (Selvaraju et al., 2017). For the ensemble: the members' mean by weight.",
    ),
    (
        "latency",
        "Median over repeated calls with one image on the machine named below; images/s: "
        "throughput in batches.",
    ),
)


def methods_section(facts: RunFacts) -> Section:
    """Define every number of the report, and the method behind its interval."""
    first, *others = DEFINITIONS
    return section("Definitions and methods", pairs((first, ("views", _views(facts)), *others)))


def reproduction_section(facts: RunFacts) -> Section:
    """List the commands that reproduce the run, and the machine it ran on."""
    machine = (facts.started and facts.started.machine) or (
        facts.ledger.machine if facts.ledger else {}
    )
    stages = ", ".join(f"{name} {duration(t)}" for name, t in facts.stage_seconds.items())
    return section(
        "Reproduction",
        Code(lines=tuple(_commands(facts))),
        text(
            "Every trial's start.json records its recipe, seed, split and numerics. Trained again "
            "on the same kind of CPU, a trial ends with bitwise identical weights."
        ),
        pairs(
            (
                ("code", facts.started.code_version if facts.started else ""),
                *(
                    (MACHINE_LABELS.get(key, key.replace("_", " ")), value_text(value))
                    for key, value in machine.items()
                ),
                ("wall time", _wall_time(facts)),
                ("stages", stages),
            )
        ),
    )


def _commands(facts: RunFacts) -> list[str]:
    """Return commands, each below a comment with its purpose."""
    run = f"{facts.runs}/{facts.name}"
    again = command(
        "run",
        f"{run}/sweep.yaml",
        name="again",
        data=portable(facts.spec.dataset.path),
        runs=None if facts.runs == RUNS else facts.runs,
    )
    commands = {
        "the original command": facts.command,
        "the same schedules again": again,
        "this report": command("report", run, no_images=not facts.spec.pictures),
        "classify an image with the student": command("predict", run, "IMAGE")
        if facts.card
        else "",
    }
    return [
        line
        for purpose, command in commands.items()
        if command
        for line in (f"# {purpose}", command)
    ]


def _views(facts: RunFacts) -> str:
    """Explain test-time augmentation; empty where no trial uses it."""
    used = {str(trial.recipe.get("tta") or "none") for trial in facts.trials}
    views = [description for name, description in VIEWS.items() if name in used]
    if not views:
        return ""
    trials = "Some trials" if "none" in used else "All trials"
    student = facts.card is not None and facts.card.recipe.get("tta", "none") == "none"
    return (
        f"{trials} average the logits of several views at prediction time ({' or '.join(views)}); "
        "their latencies and images/s include all views."
        f"{' The student uses one view.' if student else ''}"
    )


def _wall_time(facts: RunFacts) -> str:
    if not facts.wall_seconds:
        return ""
    resumed = f", resumed {plural(facts.resumed, 'time')}" if facts.resumed else ""
    return f"{duration(facts.wall_seconds)}{resumed}"
