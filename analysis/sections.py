"""The report's sections on the ledger, the search and the data: from facts to blocks.

What a run has not reached is left out, with a sentence that says so.

Axes: N examples, K classes.
"""

from collections.abc import Collection

from analysis.blocks import Block, Cell, bullets, figure, pairs, section, table, text, toned
from analysis.facts import RunFacts
from analysis.fonts import Lettering
from analysis.formats import (
    DASH,
    compact,
    count,
    duration,
    file_size,
    fixed,
    percent,
    percent_range,
    plural,
    significant,
    value_text,
)
from analysis.sweep_figures import ending
from analysis.trials import TrialFacts
from analysis.wording import (
    decimals,
    difference_method,
    difference_value,
    gate_label,
    gate_numbers,
    label,
    metric_label,
    rows,
    verdict,
)
from search.space import Parameter

Drawn = Collection[str]

MOST_FAILURES = 6
"""How many failed trials are listed."""


def ledger_section(facts: RunFacts, drawn: Drawn) -> Block:
    """Every stage on test, the paired differences, the gates, the cost."""
    ledger = facts.ledger
    if ledger is None:
        return section(
            "The ledger", text("Not written yet: it compares all stages on test, once each exists.")
        )
    digits = decimals(ledger)
    header = (
        "stage", "accuracy", "95% interval", "bal. acc.", "NLL", "Brier", "ECE (null)",
        "params", "size", "ms", "images/s", "train", "agree",
    )  # fmt: skip
    lines = [
        [
            label(row["stage"]),
            percent(row["accuracy"], digits, sign=False),
            percent_range(row.get("accuracy_interval"), digits),
            percent(row.get("balanced_accuracy"), digits, sign=False),
            fixed(row.get("nll"), 3),
            fixed(row.get("brier"), 3),
            f"{fixed(row.get('ece'), 3)} ({fixed(row.get('ece_null'), 3)})",
            compact(row.get("params")),
            file_size(row.get("bytes")),
            significant(row.get("latency_ms_batch1")),
            compact(row.get("images_per_second")),
            duration(row.get("train_seconds")),
            percent(row.get("agreement_with_ensemble"), 1, sign=False),
        ]
        for row in rows(ledger)
    ]
    reads = int(ledger.get("test_reads") or 1)
    return section(
        "The ledger",
        text(
            f"One row a stage, on {_images(facts, 'test')} of test.",
            "Test has been read once, when all choices were frozen."
            if reads == 1
            else f"Test has been read {reads} times.",
            _absent(facts),
        ),
        table(
            header, lines, "lrrrrrrrrrrrr",
            caption="Accuracies and agreement with the ensemble in %. ECE (null): what a "
            "perfectly calibrated model would show on as many images. ms: one image on one call; "
            "images/s: in batches. Train: all members together.",
        ),
        _gates(facts),
        figure("ledger", "Accuracy with 95% intervals (Wilson), and paired differences. Hollow: "
               "zero lies in the interval.", drawn=drawn),
        _differences(facts),
        figure("cost", "Accuracy on test against what an answer costs.", drawn=drawn),
    )  # fmt: skip


def search_section(facts: RunFacts, drawn: Drawn) -> Block:
    """What was tried, stopped, finished and lost."""
    trials = facts.search_trials
    if not trials:
        return section("The search", text("No trial has been started yet."))
    ends = [ending(trial) for trial in trials]
    finished, failed = ends.count("finished"), ends.count("failed")
    seconds = sum(trial.seconds for trial in trials)
    epochs = sum(len(trial.epochs) for trial in trials)
    retried = sum(trial.retries > 0 for trial in trials)
    return section(
        "The search",
        text(
            f"{plural(len(trials), 'trial')} of {count(facts.spec.trials)} planned; "
            f"{count(finished)} finished the whole schedule of "
            f"{plural(facts.spec.rungs[-1], 'epoch')}, and only these may join the ensemble; "
            f"{count(ends.count('pruned'))} were stopped at a rung; {count(failed)} failed.",
            f"{plural(ends.count('unfinished'), 'trial has', 'trials have')} no end in the journal."
            if "unfinished" in ends
            else "",
            f"{plural(retried, 'trial')} had to be started again after a fault." if retried else "",
            f"Together they trained for {count(epochs)} epochs, in {duration(seconds)}.",
            _stop_reason(facts),
        ),
        _rungs_table(facts),
        figure("learning_curves", "NLL on val after every epoch. At each rung the rate falls to "
               "zero in a branch of its own (dashed), at whose end the trial is scored; a trial "
               "that goes on continues from where the branch began.", drawn=drawn),
        figure("sweep", "Scores at the rungs, and what each trial was given.", drawn=drawn),
        _failures(trials),
        _best_table(facts),
        figure("hyperparameters", "Searched values against the score. The first rung compares all "
               "trials at the same budget; the last shows only those that the scheduler kept.",
               drawn=drawn),
    )  # fmt: skip


def data_section(facts: RunFacts, letters: Lettering) -> Block:
    """Which images, in which splits."""
    dataset = facts.spec.dataset
    sizes = facts.sizes
    purposes = {
        "train": "training",
        "val": "stopping trials, guiding the search",
        "holdout": "selection, weights, temperatures, quantizer, gates",
        "test": "this report only",
    }
    names = ", ".join(letters.names[:20]) + (" …" if len(letters.names) > 20 else "")
    size = facts.card.image_size if facts.card else dataset.image_size
    return section(
        "The data",
        table(
            ("split", "images", "used for"),
            [[name, count(sizes[name]), purposes[name]] for name in purposes if name in sizes],
            "lrl",
        ),
        pairs(
            (
                ("data set", dataset.name),
                ("images", f"{size}×{size} pixels, RGB" if size else ""),
                ("classes", f"{count(len(letters.names))}: {names}" if names else ""),
                ("fingerprint", str(facts.started.get("fingerprint") or "")),
                ("split", str(facts.started.get("split_id") or "")),
            )
        ),
        text(
            "Images with the same pixels, or of the same group, are always in the same split. "
            "The split's name is a hash of the fingerprint, the seed and the fractions; every "
            "record carries it, and figures of different splits are never mixed."
        ),
    )


def _differences(facts: RunFacts) -> Block | None:
    ledger = facts.ledger or {}
    lines: list[list[Cell]] = [
        [
            f"{label(item['a'])} − {label(item['b'])}",
            metric_label(item["metric"]),
            *difference_value(item, decimals(ledger)),
            difference_method(item),
            toned(verdict(item)),
        ]
        for item in ledger.get("differences", [])
    ]
    return table(
        ("a − b", "metric", "difference", "95% interval", "method", "a is"), lines, "llrrll",
        caption="Paired differences on test: both answer the same images.",
    )  # fmt: skip


def _gates(facts: RunFacts) -> Block | None:
    gates = (facts.ledger or {}).get("gates", [])
    if not gates:
        return text("No release gate has been decided: there is no int8 student.")
    lines: list[list[Cell]] = [
        [gate_label(gate), *gate_numbers(gate), toned(str(gate["verdict"]))] for gate in gates
    ]
    return table(
        ("gate", "value", "bound", "limit", "verdict"), lines, "lrrrl",
        caption="Release gates of the int8 student, decided on holdout: the one-sided 95% bound "
        "must keep the limit.",
    )  # fmt: skip


def _absent(facts: RunFacts) -> str:
    found = {str(row["stage"]) for row in rows(facts.ledger or {})}
    sentences = []
    if "seeds_ensemble" not in found:
        sentences.append(
            "There is no seeds ensemble: too few further seeds of the best configuration were "
            "trained, so the comparison at equal compute is missing."
        )
    if not found & {"student_fp32", "student_int8"}:
        sentences.append("There is no student yet.")
    return " ".join(sentences)


def _images(facts: RunFacts, split: str) -> str:
    return plural(facts.sizes[split], "image") if split in facts.sizes else "the images"


def _stop_reason(facts: RunFacts) -> str:
    reasons = {
        "time_budget": "The time budget ended the search.",
        "interrupted": "The search was interrupted.",
    }
    resumed = f"The run was resumed {plural(facts.resumed, 'time')}." if facts.resumed else ""
    return f"{reasons.get(facts.stops.get('search', ''), '')} {resumed}".strip()


def _rungs_table(facts: RunFacts) -> Block | None:
    lines = []
    for rung in facts.spec.rungs:
        here = [trial for trial in facts.search_trials if rung in trial.scores]
        last = [trial for trial in here if trial.rung == rung]
        stopped = sum(ending(trial) == "pruned" for trial in last)
        best = min((trial.scores[rung] for trial in here), default=None)
        lines.append(
            [
                str(rung),
                count(len(here)),
                count(stopped),
                count(len(here) - len(last)),
                fixed(best, 4),
            ]
        )
    return table(
        ("rung (epochs)", "scored", "stopped there", "went on", "best NLL on val"), lines, "rrrrr",
        caption=f"About one in {facts.spec.reduction_factor} trials goes on from a rung.",
    )  # fmt: skip


def _failures(trials: Collection[TrialFacts]) -> Block | None:
    failed = [trial for trial in trials if trial.status == "failed"]
    if not failed:
        return None
    items = [f"{trial.trial} failed: {trial.reason or 'no reason given'}" for trial in failed]
    more = len(items) - MOST_FAILURES
    return bullets(items[:MOST_FAILURES] + ([f"and {count(more)} more"] if more > 0 else []))


def _best_table(facts: RunFacts) -> Block | None:
    best = facts.best
    if best is None:
        return None
    active = facts.space.active(best.recipe)
    lines = [
        [parameter.name, value_text(active[parameter.name]), _domain(parameter)]
        for parameter in facts.space.parameters
        if parameter.name in active
    ]
    rung = best.rung or 0
    return table(
        ("searched value", "best", "searched over"), lines, "lrl",
        caption=f"The best configuration: trial {best.trial}, NLL {fixed(best.scores[rung], 4)} on "
        f"val after {plural(rung, 'epoch')}.",
    )  # fmt: skip


def _domain(parameter: Parameter) -> str:
    if parameter.type == "categorical":
        return ", ".join(value_text(choice) for choice in parameter.choices) or DASH
    ends = f"{value_text(parameter.low)} … {value_text(parameter.high)}"
    return f"{ends}, by its logarithm" if parameter.log else ends
