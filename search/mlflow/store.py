"""The runs of one sweep in an MLflow store: found by their tags, written in batches.

MLflow's own names and ids are not relied on. Every run has the tag `quorum.id`, which
identifies its sweep, and every run below the sweep's has `quorum.trial`; so a later process
finds the runs that exist.
"""

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from common.commands import command
from common.errors import RunError
from search.mlflow.attachments import write_attachments
from search.mlflow.client import error_summary, load_mlflow, without_password, without_stray_folder
from search.mlflow.descriptions import ResultText, describe_run, serve_command
from search.mlflow.projection import Projection
from search.mlflow.runs import DIGEST, SWEEP, Outcome, RunChange
from search.mlflow.saved_view import experiment_tags, is_newer
from trainables.records import RunFolder

logger = logging.getLogger(__name__)

DescribeResult = Callable[[RunFolder], ResultText | None]
"""Writes the result of a run in Markdown; None before there is one."""

MOST_PARAMS, MOST_METRICS = 100, 800
"""Largest batches: MLflow takes 100 parameters, 100 tags, and 1,000 items in all."""


PARENT = "mlflow.parentRunId"
"""MLflow's tag of the run above a run."""


@dataclass(slots=True)
class _Stored:
    """A run that exists in MLflow."""

    run_id: str
    status: str
    digest: str | None = None
    params: set[str] = field(default_factory=set)
    has_parent: bool = False


class Store:
    """The runs of one sweep in one MLflow store."""

    def __init__(
        self,
        uri: str,
        folder: RunFolder,
        projection: Projection,
        *,
        describe_result: DescribeResult = lambda _: None,
    ) -> None:
        """Connect, create the experiment if it is new, and look up the runs that exist.

        `describe_result` writes the result of a finished run for its description.
        """
        if not projection.identity:
            raise RunError(f"{folder.journal} has no events yet; sync once the run has started")
        self._mlflow = load_mlflow()
        self._uri = uri
        self._folder = folder
        self._describe_result = describe_result
        self._projection = projection
        self._identity = projection.identity
        self._run_name = projection.state.run
        self._attaching = True
        self._uncertain: set[str] = set()
        """Runs whose creation failed; MLflow may have them."""
        self._dataset = _dataset(projection)
        with without_stray_folder(uri):
            self._client = self._mlflow.MlflowClient(tracking_uri=uri)
            self.experiment_id = self._find_experiment()
        self._runs = self._find_runs()

    def run_id(self, key: str) -> str | None:
        """Return the MLflow id of the run with this key; None if it does not exist."""
        stored = self._runs.get(key)
        return stored.run_id if stored else None

    def write(self, change: RunChange) -> Outcome:
        """Write a change to its run, creating it if it is new."""
        if change.key in self._uncertain:  # its creation may have reached MLflow
            self._runs = self._find_runs()
            self._uncertain.clear()
        stored = self._runs.get(change.key)
        outcome: Outcome = "updated" if stored else "created"
        digest = change.tags.get(DIGEST)
        whole = change.key == SWEEP or (stored is not None and stored.has_parent)
        if (
            stored
            and digest
            and stored.digest == digest
            and stored.status == change.status
            and whole
        ):
            return "same"
        if stored is None:
            self._uncertain.add(change.key)
            stored = self._runs[change.key] = self._create(change)
            self._uncertain.discard(change.key)
            self._log_dataset(stored)
        if digest:
            if change.key == SWEEP:
                change.tags |= self._outcome_tags()
            if not self._attach(stored, change):
                # A later sync tries again, because the digest is missing.
                del change.tags[DIGEST]
                digest = None
        parent = self._runs.get(SWEEP)
        if change.key != SWEEP and parent is not None and not stored.has_parent:
            self._client.set_tag(stored.run_id, PARENT, parent.run_id)
            stored.has_parent = True
        self._log(stored, change)
        if change.end_ms is not None:
            self._client.set_terminated(stored.run_id, change.status, change.end_ms)
        elif stored.status != change.status:
            self._client.update_run(stored.run_id, status=change.status)
        stored.status, stored.digest = change.status, digest
        return outcome

    def _log(self, stored: _Stored, change: RunChange) -> None:
        """Write everything but the status, in as few calls as MLflow allows, the digest last."""
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
        """Upload a run's files; a store that rejects them still gets everything else."""
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
                "MLflow at %s rejects files (%s); they stay in %s, and `%s` tries again",
                without_password(self._uri), error_summary(error), self._folder.root,
                command("sync", self._folder.root),
            )  # fmt: skip
        return self._attaching

    def _outcome_tags(self) -> dict[str, str]:
        """Return the description of a run that has its ledger."""
        result = self._describe_result(self._folder)
        if result is None:
            return {}
        # Readers may be in any working directory, so the commands have absolute paths.
        root, registered = self._folder.root.absolute(), self._projection.state.registered
        commands = [command("predict", root / "student", "IMAGE.png"), command("report", root)]
        if registered is not None:
            commands.append(serve_command(registered.name, without_password(self._uri)))
        spec = self._projection.state.spec
        return {"mlflow.note.content": describe_run(spec, result=result, commands=commands)}

    def _create(self, change: RunChange) -> _Stored:
        tags = {"quorum.id": self._identity, "quorum.run": self._run_name}
        tags |= {"quorum.trial": change.key} if change.key else {}
        tags |= {"mlflow.source.name": "quorum", "mlflow.source.type": "LOCAL"}
        parent = self._runs.get(SWEEP)
        if parent is not None:
            tags[PARENT] = parent.run_id
        run = self._client.create_run(
            self.experiment_id, start_time=change.start_ms, tags=tags, run_name=change.name
        )
        return _Stored(run_id=run.info.run_id, status="RUNNING", has_parent=parent is not None)

    def _log_dataset(self, stored: _Stored) -> None:
        if self._dataset is not None:
            entities = self._mlflow.entities
            source = entities.DatasetInput(entities.Dataset(**self._dataset))
            self._client.log_inputs(stored.run_id, datasets=[source])

    def _find_runs(self) -> dict[str, _Stored]:
        runs: dict[str, _Stored] = {}
        token = None
        while True:
            page = self._client.search_runs(
                [self.experiment_id], f"tags.`quorum.id` = '{self._identity}'", page_token=token
            )
            for run in page:
                tags = run.data.tags
                runs[tags.get("quorum.trial", SWEEP)] = _Stored(
                    run.info.run_id,
                    run.info.status,
                    tags.get(DIGEST),
                    set(run.data.params),
                    PARENT in tags,
                )
            token = page.token
            if not token:
                return runs

    def _find_experiment(self) -> str:
        """Return the experiment's id; create it, or update its view if this sweep is newer."""
        name, state = self._projection.experiment, self._projection.state
        tags = experiment_tags(state.spec, None if state.started is None else state.started.time)
        known = self._client.get_experiment_by_name(name)
        if known is None:
            # A server chooses its artifact folder; for a local database it lies beside the runs.
            place = (self._folder.root.resolve().parent / "mlartifacts" / name).as_uri()
            local = place if self._uri.startswith("sqlite:") else None
            try:
                return str(self._client.create_experiment(name, local, tags))
            except self._mlflow.exceptions.MlflowException:
                known = self._client.get_experiment_by_name(name)  # another run created it
                if known is None:
                    raise
        if is_newer(tags, known.tags):
            for key, value in tags.items():
                self._client.set_experiment_tag(known.experiment_id, key, value)
        return str(known.experiment_id)


def _dataset(projection: Projection) -> dict[str, str] | None:
    """Return the data set as MLflow describes it, for the column in the table of runs."""
    name = (projection.state.spec.get("dataset") or {}).get("name")
    started = projection.state.started
    fingerprint = None if started is None else started.fingerprint
    if not name or not fingerprint:
        return None
    return {"name": str(name), "digest": str(fingerprint)[:36], "source_type": "local",
            "source": str(name)}  # fmt: skip
