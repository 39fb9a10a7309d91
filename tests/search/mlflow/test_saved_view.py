"""The saved view of a sweep in MLflow's UI."""

import json
from pathlib import Path
from typing import Any

import pytest

from search.mlflow.saved_view import VIEW, experiment_tags, is_newer
from tests.synthetic_sweep import SPEC


def state(spec: dict[str, Any]) -> dict[str, Any]:
    view = json.loads(experiment_tags(spec, 1_800_000_000.0)[VIEW])
    inside: dict[str, Any] = json.loads(view["state"])
    return inside


def test_status_and_scores_come_before_the_searched_values() -> None:
    shown = state(SPEC)
    assert shown["columnOrder"][3:8] == [
        "tags.`quorum.status`", "metrics.`rung`", "metrics.`val_accuracy`", "metrics.`val_nll`",
        "metrics.`train_seconds`",
    ]  # fmt: skip
    assert sorted(shown["columnOrder"][8:]) == sorted(f"params.`{n}`" for n in SPEC["space"])
    assert set(shown["selectedColumns"]) <= set(shown["columnOrder"])
    assert (shown["orderByKey"], shown["orderByAsc"]) == ("metrics.`val_nll`", True)


def test_searched_values_that_some_trials_lack_come_last() -> None:
    searched = [name.split("`")[1] for name in state(SPEC)["columnOrder"][8:]]
    conditional = ["when" in SPEC["space"][name] for name in searched]
    assert any(conditional)
    assert conditional == sorted(conditional)


def test_parallel_coordinates_show_only_values_that_every_trial_has() -> None:
    shown = state(SPEC)
    [parallel] = [chart for chart in shown["compareRunCharts"] if chart["type"] == "PARALLEL"]
    assert parallel["selectedParams"] == ["width", "optimizer", "label_smoothing"]
    assert parallel["selectedMetrics"] == ["val_nll"]
    sections = {section["uuid"] for section in shown["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in shown["compareRunCharts"]} <= sections
    uuids = [chart["uuid"] for chart in shown["compareRunCharts"]]
    assert len(set(uuids)) == len(uuids)


def test_a_later_sweep_of_the_same_name_replaces_the_view() -> None:
    early, late = (experiment_tags(SPEC, 1_800_000_000.0 + day) for day in (0, 86_400))
    assert is_newer(late, early)
    assert not is_newer(early, late)
    assert not is_newer(early, early)
    assert is_newer(early, {})
    assert is_newer(early, {VIEW: "deflate;of another form"})


def test_the_view_of_a_wide_space_fits_into_a_tag() -> None:
    space = {f"a_searched_value_{i}": {"type": "float", "low": 0, "high": 1} for i in range(60)}
    assert len(experiment_tags({**SPEC, "space": space}, 0.0)[VIEW]) < 20_000


@pytest.mark.slow
def test_the_installed_ui_knows_every_key_of_the_view() -> None:
    """MLflow does not document these keys, so a new version of its UI must be checked."""
    from search.mlflow.client import load_mlflow

    scripts = Path(load_mlflow().__file__).parent / "server/js/build/static/js"
    texts = [path.read_text(errors="replace") for path in scripts.glob("*.js")]
    [main] = [text for text in texts if "mlflow.sharedViewState." in text]
    known = main[main.index('["selectedColumns","columnOrder"') :]
    known = known[: known.index("]")]
    shown = state(SPEC)
    search = {"searchFilter", "orderByKey", "orderByAsc"}
    assert [key for key in shown if key not in search and f'"{key}"' not in known] == []
    everything = "".join(texts)
    inside = {key for chart in shown["compareRunCharts"] for key in chart}
    inside |= {key for section in shown["compareRunSections"] for key in section} | search
    assert [key for key in inside if key not in everything] == []
    types = {f'.{chart["type"]}="{chart["type"]}"' for chart in shown["compareRunCharts"]}
    assert [text for text in types if text not in main] == []
    assert f'.FIRST_20_RUNS="{shown["runsHiddenMode"]}"' in main
