"""The Markdown descriptions of runs, trials and models in MLflow."""

from hypothesis import given
from hypothesis import strategies as st

from search.mlflow.descriptions import (
    MOST_CHARACTERS,
    ResultText,
    describe_model,
    describe_run,
    describe_trial,
    serve_command,
)
from tests.synthetic_sweep import SPEC


def test_a_run_without_a_ledger_describes_its_plan() -> None:
    description, plan = describe_run(SPEC).split("\n\n")
    assert description == SPEC["description"]
    assert plan.startswith("20 trials, scored by `val_nll` after 3 → 9 → 27 epochs")
    assert describe_run({}) == ""


def test_a_note_starts_with_the_result_and_ends_with_the_commands() -> None:
    result = ResultText(headline="**It ships**", tables="| a | b |")
    note = describe_run(SPEC, result=result, commands=["quorum report runs/mine"])
    assert note.splitlines()[0] == "**It ships**"
    assert note.index(SPEC["description"]) < note.index("| a | b |")
    assert note.endswith("```\nquorum report runs/mine\n```")


@given(st.integers(0, 400), st.text(max_size=3000))
def test_a_note_fits_into_a_tag(rows: int, description: str) -> None:
    result = ResultText(headline="", tables="| a row of the ledger |\n" * rows)
    note = describe_run({"description": description}, result=result, commands=["quorum report x"])
    assert len(note) <= MOST_CHARACTERS


def test_the_end_of_a_long_traceback_is_kept() -> None:
    note = describe_trial("failed", "x", "frame\n" * 5000 + "KeyError: 'y'")
    assert len(note) < MOST_CHARACTERS
    assert "KeyError: 'y'" in note
    assert describe_trial("pruned", "val_nll 2.1 missed the cutoff 1.3 of rung 3") == (
        "**pruned:** val_nll 2.1 missed the cutoff 1.3 of rung 3"
    )


def test_a_model_note_has_the_command_that_serves_it() -> None:
    names = [f"class {i}" for i in range(30)]
    note = describe_model("quorum-mine", "sqlite:////runs/mlflow.db", 32, names, "About it.")
    assert serve_command("quorum-mine", "sqlite:////runs/mlflow.db") in note
    assert "--host 127.0.0.1" in note
    assert "uint8 [N, 32, 32, 3]" in note
    assert "`class 19` … (30 in all)" in note
