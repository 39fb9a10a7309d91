"""`quorum ablate`: a dry run, mistakes, and a whole ablation that is resumed."""

import re
from pathlib import Path

import pytest

import quorum
from analysis.facts.status import read_status
from analysis.terminal.ablation_tables import ablation_forecast, ablation_plan
from analysis.terminal.status import status_view
from common.errors import RunError
from common.formats import rounded_duration
from journal.events import TrialStarted
from journal.journal import read_events, read_state
from quorum import Outcome, pipeline
from quorum.cli.main import main
from quorum.options import AblationOptions
from search.ablation.ablation import new_ablation, recipe_of
from search.ablation.plan import ABLATION_STAGES, preview_ablation
from search.space.sweep_files import spec_of_run
from tests.events import of_type
from tests.opening import quick_run
from tests.rendering import shown
from tests.tiny import tiny_spec
from trainables.records import RunFolder, read_start


def test_a_dry_run_lists_the_factors_to_remove() -> None:
    preview, ablation = preview_ablation(tiny_spec(), seeds=2, factors=["ema", "weight-decay"])
    text = "\n".join(shown(ablation_plan(preview, ablation), 80))
    assert "ema_decay: 0" in text
    assert (ablation.trials, len(ablation.factors), ablation.seeds) == (8, 3, 2)
    assert preview.rungs[-1] == 2
    forecast = ablation_forecast(2, ablation, sum(preview.seconds.values()))
    assert forecast in text
    assert re.findall(r"\d+", forecast)[:4] == ["8", "2", "4", "2"]
    assert rounded_duration(sum(preview.seconds.values())) in forecast


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--of"),
        (["digits", "--factors", "flip"], "the recipe has no 'flip'; its factors: "),
        (["digits", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["digits", "--of", "absent"], "absent"),
        (["digits", "--resume"], "digits-ablation"),
    ],
)
def test_a_mistake_with_ablate_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", *arguments, "--runs", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_ablation_is_the_one_that_was_started_or_none(tmp_path: Path) -> None:
    """A kill before the factors are written must not end in an ablation of other factors."""
    folder = RunFolder(tmp_path / "tiny-ablation")
    ablation, spec = new_ablation(tiny_spec(), factors=["ema"], seeds=2, epochs=1)
    with quick_run(folder, spec, stages=ABLATION_STAGES):
        pass
    options = AblationOptions(resume=True, mirror=False)
    with pytest.raises(RunError, match=r"tiny-ablation holds no ablation, or one .* --name"):
        pipeline.ablate(spec_of_run(folder), folder, options)
    assert not list(folder.starts())
    ablation.write(folder)
    preview, resumed = quorum.plan_ablation(
        str(folder.sweep), resume=True, name=folder.name, runs=tmp_path, seeds=3
    )
    assert (resumed.factors, resumed.seeds) == (ablation.factors, 3)
    assert (preview.rungs, preview.trials) == ((1,), 6)


@pytest.mark.slow
def test_a_whole_ablation_can_be_resumed_with_more_seeds(
    finished_run: Outcome, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "tiny-ablation")
    options = AblationOptions(seeds=2, epochs=1, factors=["ema"], mirror=False)
    result = pipeline.ablate(tiny_spec(), folder, options, of=finished_run.folder)
    assert (result.seeds, result.epochs, len(result.variants)) == (2, 1, 2)
    assert result.recipe["width"] == recipe_of(finished_run.folder).architecture.width
    starts = {start.trial: start for start in folder.starts()}
    assert set(starts) == {"full-0", "no-ema-0", "full-1", "no-ema-1"}
    assert starts["full-1"].seed == starts["no-ema-1"].seed != starts["full-0"].seed
    assert starts["no-ema-0"].recipe == starts["full-0"].recipe.with_values(ema_decay=0.0)
    assert (folder.figures / "ablation.png").is_file()

    before = len(read_events(folder.journal))
    resumed = AblationOptions(seeds=3, resume=True, mirror=False)
    more = pipeline.ablate(spec_of_run(folder), folder, resumed)
    new_events = read_events(folder.journal)[before:]
    started = {event.trial for event in of_type(new_events, TrialStarted)}
    assert (started, more.seeds) == ({"full-2", "no-ema-2"}, 3)
    again = pipeline.ablate(spec_of_run(folder), folder, resumed)
    assert again == more
    state = read_state(folder.journal)
    assert state.stages["sweep"].status == "skipped"
    assert state.results["ablation"][-1].metrics.keys() == {"worth_ema_accuracy", "worth_ema_nll"}
    assert not state.active
    status = "\n".join(shown(status_view(read_status(folder), state.last_time + 1), 100))
    assert "no-ema-0" in status
    assert read_start(folder.trial("full-2") / "start.json").rungs == (1,)
