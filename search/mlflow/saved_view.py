"""The saved view with which MLflow's UI opens a sweep: columns, their order, charts.

MLflow's UI keeps saved views as JSON in a tag of the experiment and has no API for them. A UI
ignores keys that it does not know, and does not list a view in a format that it does not know;
a test compares the keys with the installed UI.
"""

import json
from collections.abc import Mapping
from typing import Any

VIEW = "mlflow.sharedViewState.quorum-trials"
"""Name of the tag; the part after the last dot is the view's key in links."""
TITLE = "Trials, best first"
SCORES = ("val_accuracy", "val_nll", "train_seconds")
WIDTHS = {"attributes.`Run Name`": 120, "runDateAndNestInfo": 150, "duration": 80,
          "tags.`quorum.status`": 110, "metrics.`rung`": 70}  # fmt: skip
"""The first columns in their order, and their widths in pixels."""


def experiment_tags(spec: Mapping[str, Any], started: float | None) -> dict[str, str]:
    """Return the tags of a sweep's experiment; `started` is in unix seconds."""
    created = round(1000 * (started or 0.0))
    view = {"name": TITLE, "createdAt": created, "updatedAt": created,
            "state": json.dumps(_state(spec.get("space") or {}))}  # fmt: skip
    return {
        "mlflow.experimentKind": "custom_model_development",
        VIEW: json.dumps(view),
        "mlflow.note.content": str(spec.get("description") or ""),
    }


def is_newer(tags: Mapping[str, str], than: Mapping[str, str]) -> bool:
    """Return whether `tags` belong to a later sweep than the tags `than`."""
    try:
        before = json.loads(than[VIEW])["updatedAt"]
    except (KeyError, ValueError, TypeError):
        return True
    return bool(json.loads(tags[VIEW])["updatedAt"] > before)


def _state(space: Mapping[str, Any]) -> dict[str, Any]:
    """List the search's trials by score: status and scores first, then the searched values."""
    always, sometimes = _searched(space)
    scores = [f"metrics.`{name}`" for name in SCORES]
    drawn = [f"params.`{name}`" for name in [*always, *sometimes]]
    order = [*WIDTHS, *scores, *drawn]
    charts, sections = _charts(space)
    return {
        "searchFilter": "tags.`quorum.kind` = 'search'",
        "orderByKey": "metrics.`val_nll`",
        "orderByAsc": True,
        "selectedColumns": [name for name in order if "`" in name],
        "columnOrder": order,
        "columnWidths": WIDTHS,
        "runsHiddenMode": "FIRST_20_RUNS",
        "isAccordionReordered": True,
        "compareRunCharts": charts,
        "compareRunSections": sections,
    }


def _charts(space: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Show the whole search, then the curves, then MLflow's own sections, collapsed."""
    always, _ = _searched(space)  # the chart would leave out trials that lack a value
    charts: list[dict[str, Any]] = [
        {"section": "search", "type": "PARALLEL", "selectedParams": always,
         "selectedMetrics": ["val_nll"], "showAllRuns": True},
        {"section": "curves", "type": "SCATTER", "runsCountToCompare": 100,
         "xaxis": {"key": "train_seconds", "type": "METRIC"},
         "yaxis": {"key": "val_accuracy", "type": "METRIC"}},
    ]  # fmt: skip
    charts += [
        {"section": "curves", "type": "LINE", "displayName": name, "metricKey": name,
         "selectedMetricKeys": [name], "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True}
        for name in ("val_nll", "val_accuracy", "train_loss")
    ]  # fmt: skip
    for number, chart in enumerate(charts):
        chart |= {"uuid": f"quorum-{number}", "metricSectionId": f"quorum-{chart.pop('section')}",
                  "deleted": False, "isGenerated": False}  # fmt: skip
    sections = [
        {"uuid": f"quorum-{key}", "name": name, "display": columns is not None,
         "columns": columns or 3, "cardHeight": 420 if columns == 1 else 360,
         "isReordered": True, "deleted": False, "isGenerated": False}
        for key, name, columns in (
            ("search", "Searched values and the score they led to", 1),
            ("curves", "Cost and curves", 2),
            ("more", "Model metrics", None), ("system", "System metrics", None),
        )
    ]  # fmt: skip
    return charts, sections


def _searched(space: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the values that every trial has, and those with a condition, which some lack."""
    always = [name for name, entry in space.items() if not (entry or {}).get("when")]
    return always, [name for name in space if name not in always]
