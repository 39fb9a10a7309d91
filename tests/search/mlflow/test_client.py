"""MLflow is imported with our settings, and passwords are never shown."""

import os

import pytest

from search.mlflow.client import error_summary, load_mlflow, without_password


def test_mlflow_sends_no_telemetry_and_loads_no_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both apply to this process and to its children."""
    from mlflow.telemetry.utils import is_telemetry_disabled

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
    load_mlflow()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert is_telemetry_disabled()


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://user:secret@host:5000/a", "http://host:5000/a"),
        ("sqlite:////runs/mlflow.db", "sqlite:////runs/mlflow.db"),
    ],
)
def test_a_shown_uri_has_no_password(uri: str, shown: str) -> None:
    assert without_password(uri) == shown


def test_an_errors_first_line_is_shown_without_passwords() -> None:
    error = ConnectionError("http://user:secret@host is down\nand more")
    assert error_summary(error) == "ConnectionError: http://host is down"
    assert error_summary(ValueError()) == "ValueError"
