"""A sweep's runs in an MLflow store: looked up by tags, written in batches.

MLflow's own names and ids are not relied on. Every run carries `quorum.id`, which tells its
sweep from all others, and the runs below the sweep's carry `quorum.trial`; so whoever writes
again finds what is there.
"""

import logging
import os
import re
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from common.errors import RunError
from common.files import read_json
from search.mlflow.attachments import write_attachments
from search.mlflow.changes import DIGEST, SWEEP, RunChange
from search.mlflow.notes import serve_command, sweep_note
from search.mlflow.projection import Projection
from search.mlflow.ui import experiment_tags, is_newer
from trainables.records import RunFolder

logger = logging.getLogger(__name__)

MOST_PARAMS, MOST_METRICS = 100, 800
"""In a call; MLflow takes 100 parameters, 100 tags, and 1,000 of everything."""


@dataclass(slots=True)
class _Stored:
    """What MLflow has of one run."""

    run_id: str
    status: str
    digest: str | None = None
    params: set[str] = field(default_factory=set)


class Store:
    """The runs of one sweep in one MLflow store."""

    def __init__(self, uri: str, folder: RunFolder, projection: Projection) -> None:
        """Connect, make the experiment if it is new, and look up the runs that are there."""
        if not projection.identity:
            raise RunError(f"{folder.journal} holds no run yet: its first event is missing")
        self._mlflow = load_mlflow()
        self._client = self._mlflow.MlflowClient(tracking_uri=uri)
        self._uri = uri
        self._folder = folder
        self._projection = projection
        self._identity = projection.identity
        self._run_name = projection.state.run
        self._attaching = True
        self._dataset = _dataset(projection)
        self.experiment_id = self._find_experiment()
        self._runs = self._find_runs()

    def run_id(self, key: str) -> str | None:
        """The MLflow id of the sweep ("" as `key`), a trial or a result; None if it is new."""
        stored = self._runs.get(key)
        return stored.run_id if stored else None

    def write(self, change: RunChange) -> str:
        """Make MLflow's run as `change` says; "created", "updated" or "same"."""
        stored = self._runs.get(change.key)
        word = "updated" if stored else "created"
        digest = change.tags.get(DIGEST)
        if stored and digest and stored.digest == digest and stored.status == change.status:
            return "same"
        if stored is None:
            stored = self._runs[change.key] = self._create(change)
        if digest:
            if change.key == SWEEP:
                change.tags |= self._outcome()
            if not self._attach(stored, change):
                # Without its digest, a later sync tries again.
                del change.tags[DIGEST]
                digest = None
        self._log(stored, change)
        if change.end_ms is not None:
            self._client.set_terminated(stored.run_id, change.status, change.end_ms)
        elif stored.status != change.status:
            self._client.update_run(stored.run_id, status=change.status)
        stored.status, stored.digest = change.status, digest
        return word

    def _log(self, stored: _Stored, change: RunChange) -> None:
        """Everything but the state, in as few calls as MLflow allows; its digest comes last."""
        entities = self._mlflow.entities
        params = [
            entities.Param(name, value)
            for name, value in change.params.items()
            if name not in stored.params
        ]
        metrics = [entities.Metric(*point) for point in change.points]
        tags = [entities.RunTag(name, value) for name, value in sorted(change.tags.items())]
        while params or metrics or tags:
            last = len(params) <= MOST_PARAMS and len(metrics) <= MOST_METRICS
            self._client.log_batch(
                stored.run_id,
                params=params[:MOST_PARAMS],
                metrics=metrics[:MOST_METRICS],
                tags=tags if last else (),
            )
            params, metrics = params[MOST_PARAMS:], metrics[MOST_METRICS:]
            tags = [] if last else tags
        stored.params.update(change.params)

    def _attach(self, stored: _Stored, change: RunChange) -> bool:
        """Copy a run's files; a store that does not take them still gets the rest."""
        if not self._attaching:
            return False
        try:
            with tempfile.TemporaryDirectory() as place:
                write_attachments(self._folder, change, Path(place))
                if any(Path(place).iterdir()):
                    self._client.log_artifacts(stored.run_id, place)
        except Exception as error:
            self._attaching = False
            logger.warning(
                "MLflow at %s takes no files (%s); they stay in %s, and `quorum sync` tries again",
                without_password(self._uri), in_short(error), self._folder.root,
            )  # fmt: skip
        return self._attaching

    def _outcome(self) -> dict[str, str]:
        """The description of a run that has its ledger."""
        try:
            ledger = read_json(self._folder.ledger / "ledger.json")
        except RunError:
            return {}
        root, registered = self._folder.root, self._projection.state.registered
        commands = [f"quorum predict {root}/student IMAGE.png", f"quorum report {root}"]
        if registered is not None:
            commands.append(serve_command(str(registered["name"]), without_password(self._uri)))
        spec = self._projection.state.spec
        return {"mlflow.note.content": sweep_note(spec, ledger=ledger, commands=commands)}

    def _create(self, change: RunChange) -> _Stored:
        tags = {"quorum.id": self._identity, "quorum.run": self._run_name}
        tags |= {"quorum.trial": change.key} if change.key else {}
        tags |= {"mlflow.source.name": "quorum", "mlflow.source.type": "LOCAL"}
        parent = self._runs.get(SWEEP)
        if parent is not None:
            tags["mlflow.parentRunId"] = parent.run_id
        run = self._client.create_run(
            self.experiment_id, start_time=change.start_ms, tags=tags, run_name=change.name
        )
        if self._dataset is not None:
            source = self._mlflow.entities.DatasetInput(
                self._mlflow.entities.Dataset(**self._dataset)
            )
            self._client.log_inputs(run.info.run_id, datasets=[source])
        return _Stored(run_id=run.info.run_id, status="RUNNING")

    def _find_runs(self) -> dict[str, _Stored]:
        found: dict[str, _Stored] = {}
        token = None
        while True:
            page = self._client.search_runs(
                [self.experiment_id], f"tags.`quorum.id` = '{self._identity}'", page_token=token
            )
            for run in page:
                tags = run.data.tags
                found[tags.get("quorum.trial", SWEEP)] = _Stored(
                    run.info.run_id, run.info.status, tags.get(DIGEST), set(run.data.params)
                )
            token = page.token
            if not token:
                return found

    def _find_experiment(self) -> str:
        """The experiment's id; a new one and one of an older sweep get what the UI shows first."""
        name, state = self._projection.experiment, self._projection.state
        tags = experiment_tags(state.spec, state.started)
        known = self._client.get_experiment_by_name(name)
        if known is None:
            # A server decides for itself; a file beside the runs has its artifacts there too.
            place = (self._folder.root.resolve().parent / "mlartifacts" / name).as_uri()
            local = place if self._uri.startswith("sqlite:") else None
            try:
                return str(self._client.create_experiment(name, local, tags))
            except self._mlflow.exceptions.MlflowException:
                known = self._client.get_experiment_by_name(name)  # another run was quicker
                if known is None:
                    raise
        if is_newer(tags, known.tags):
            for key, value in tags.items():
                self._client.set_experiment_tag(known.experiment_id, key, value)
        return str(known.experiment_id)


def load_mlflow() -> Any:
    """MLflow, imported on first use and with the settings that Quorum wants of it.

    The one import inside a function here: it takes seconds and reads its settings from the
    environment, so it waits for the mirror's thread, after this has set them.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    # Deprecations inside MLflow are its makers' business.
    warnings.filterwarnings("ignore", module=r"mlflow\.")
    import mlflow

    return mlflow


def without_password(uri: str) -> str:
    """A tracking URI that can be shown: what stands before its host's @ is left out."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def in_short(error: BaseException) -> str:
    """An error's kind and first line, without passwords."""
    lines = str(error).strip().splitlines()
    line = re.sub(r"//[^/@\s]+@", "//", lines[0])[:200] if lines else ""
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _dataset(projection: Projection) -> dict[str, str] | None:
    """The data set in MLflow's terms, for its column in the table of runs."""
    name = (projection.state.spec.get("dataset") or {}).get("name")
    fingerprint = projection.state.about.get("fingerprint")
    if not name or not fingerprint:
        return None
    return {"name": str(name), "digest": str(fingerprint)[:36], "source_type": "local",
            "source": str(name)}  # fmt: skip


# The mirror tries again by itself, and tells what failed in one line of its own.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
