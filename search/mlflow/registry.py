"""Register released models in MLflow's model registry.

A registered version holds the released ONNX file byte for byte, with its signature. The
alias `champion` names the model to deploy. It moves only to a model that passed its gates and
beats the current champion on the new run's holdout; any other becomes `candidate`. A champion
from another split of the data may have been trained on images of that holdout, so the two are not
compared: the champion stays, and the reason says that the alias can be set by hand. No pickle is
involved: MLflow's own loader runs the ONNX file.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common.errors import RunError
from common.files import file_sha256
from journal.journal import read_events
from search.mlflow.client import error_summary, load_mlflow, without_password, without_stray_folder
from search.mlflow.descriptions import describe_model
from search.mlflow.mirror import tracking_uri
from search.mlflow.projection import Projection
from search.mlflow.runs import SWEEP
from search.mlflow.store import Store
from trainables.records import RunFolder

CHAMPION = "champion"
CANDIDATE = "candidate"
_REASON = "quorum.alias_reason"

OTHER_SPLIT = (
    "was trained on another split of the data, perhaps on images of this holdout, and cannot be "
    "compared; set the alias by hand"
)
"""The reason that a release does not take the place of a champion of another `split_id`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A student to register."""

    model: Path
    """The ONNX file: `images` uint8 [N, H, W, 3] → `log_probs` float32 [N, K]."""
    image_size: int
    """H and W, in pixels."""
    class_names: tuple[str, ...]
    """Names of the K classes, in order."""
    passed_gates: bool
    """The release gates passed for this file. A file that ships instead of one that failed its
    gates can only become a candidate."""
    stage: str = "student_int8"
    """Name of its row in the ledger."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """The row itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A registered version and its alias."""

    name: str
    version: int
    alias: Literal["champion", "candidate"]
    reason: str
    """The reason for the alias."""
    uri: str
    """Address to pass to `mlflow.pyfunc.load_model`."""


def register_student(
    folder: RunFolder,
    release: Release,
    *,
    beats_champion: bool | Callable[[Path], bool],
    name: str | None = None,
    uri: str | None = None,
) -> Registration:
    """Register `release` as a new version and set its alias, `champion` or `candidate`.

    `beats_champion` compares the release with the current champion on this run's holdout. A
    callable receives the path of the champion's ONNX file and is called only if the answer
    matters. `name` defaults to `quorum-DATASET`. Registering the same file of the same run
    again changes nothing.

    Raises:
        RunError: the journal or the model is missing, or the registry cannot be written.
    """
    if not release.model.is_file():
        raise RunError(f"{release.model} does not exist; distill the run first")
    projection = Projection()
    for event in read_events(folder.journal):
        projection.apply(event)
    uri = tracking_uri(folder, uri)
    try:
        with _default_store(uri):
            registry = _Registry(uri, folder, projection, name or default_name(projection))
            return registry.register(release, beats_champion)
    except RunError:
        raise
    except Exception as error:
        raise RunError(
            f"the student could not be registered at {without_password(uri)} "
            f"({error_summary(error)}); {release.model} is intact, so register it "
            "once MLflow can be reached"
        ) from error


def default_name(projection: Projection) -> str:
    """Return `quorum-DATASET`, where a custom image folder is called by its folder's name."""
    dataset = projection.state.spec.get("dataset") or {}
    name = str(dataset.get("name") or "model")
    if name in ("parquet", "imagefolder") and dataset.get("path"):
        name = Path(str(dataset["path"])).name
    return "quorum-" + re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-").lower()


@contextmanager
def _default_store(uri: str) -> Iterator[None]:
    """Make `uri` MLflow's default store within the block.

    MLflow's registry looks up a logged model in the default store, even if its client uses
    another one.
    """
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow = load_mlflow()
    mlflow.set_tracking_uri(uri)
    try:
        with without_stray_folder(uri):
            yield
    finally:
        mlflow.set_tracking_uri(before)  # also restores the environment variable


class _Registry:
    """One registered model in one MLflow store."""

    def __init__(self, uri: str, folder: RunFolder, projection: Projection, name: str) -> None:
        self._mlflow = load_mlflow()
        self._client = self._mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._store = Store(uri, folder, projection)
        self._projection = projection
        self._name = name
        self._uri = without_password(uri)

    def register(
        self, release: Release, beats_champion: bool | Callable[[Path], bool]
    ) -> Registration:
        tags = self._tags(release)
        self._make_model()
        champion = self._champion()
        known = self._known(tags)
        if known is not None and _REASON in known.tags:
            is_champion = champion is not None and champion.version == known.version
            return self._registration(known, is_champion, "it was already registered")
        wins, reason = self._earned(release, tags, champion, beats_champion)
        entry = known or self._create_version(release, tags)
        alias = CHAMPION if wins else CANDIDATE
        self._client.set_registered_model_alias(self._name, alias, entry.version)
        self._client.set_model_version_tag(self._name, entry.version, _REASON, reason)
        return self._registration(entry, wins, reason)

    def _registration(self, entry: Any, wins: bool, reason: str) -> Registration:
        return Registration(
            name=self._name,
            version=int(entry.version),
            alias="champion" if wins else "candidate",
            reason=reason,
            uri=f"models:/{self._name}/{entry.version}",
        )

    def _earned(
        self,
        release: Release,
        tags: Mapping[str, str],
        champion: Any,
        beats_champion: bool | Callable[[Path], bool],
    ) -> tuple[bool, str]:
        """Return whether the release becomes the champion, and the reason."""
        if not release.passed_gates:
            return False, "it did not pass its gates"
        if champion is None:
            return True, "the first model to pass its gates"
        title = f"version {champion.version}, the champion"
        if champion.tags.get("quorum.classes") != tags["quorum.classes"]:
            return False, f"{title}, has other classes and cannot be compared"
        size = str(release.image_size)
        if champion.tags.get("quorum.image_size", size) != size:  # early versions have no such tag
            return False, f"{title}, takes images of another size and cannot be compared"
        if champion.tags.get("quorum.split_id") != tags.get("quorum.split_id"):
            return False, f"{title}, {OTHER_SPLIT}"
        if not isinstance(beats_champion, bool):
            with tempfile.TemporaryDirectory() as place:
                beats_champion = beats_champion(self._download(champion, Path(place)))
        verb = "beats" if beats_champion else "does not beat"
        return beats_champion, f"it {verb} {title}, on its own holdout"

    def _champion(self) -> Any:
        """Return the current champion's entry, or None."""
        number = self._client.get_registered_model(self._name).aliases.get(CHAMPION)
        return None if number is None else self._client.get_model_version(self._name, number)

    def _download(self, entry: Any, place: Path) -> Path:
        source = self._client.get_model_version_download_uri(self._name, entry.version)
        artifacts = self._mlflow.artifacts
        folder = artifacts.download_artifacts(
            artifact_uri=source, dst_path=str(place), tracking_uri=self._client.tracking_uri
        )
        return Path(folder) / "model.onnx"

    def _known(self, tags: Mapping[str, str]) -> Any:
        """Return the version that holds the same file of the same run, or None."""
        for entry in self._client.search_model_versions(f"name = '{self._name}'"):
            if all(entry.tags.get(key) == tags[key] for key in ("quorum.id", "quorum.sha256")):
                return entry
        return None

    def _make_model(self) -> None:
        exceptions = self._mlflow.exceptions
        try:
            self._client.create_registered_model(
                self._name, description="Students of Quorum: uint8 images to log-probabilities."
            )
        except exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _tags(self, release: Release) -> dict[str, str]:
        state = self._projection.state
        classes = hashlib.sha256(json.dumps(release.class_names).encode()).hexdigest()[:16]
        tags = {
            "id": self._projection.identity,
            "run": state.run,
            "split_id": None if state.started is None else state.started.split_id,
            "stage": release.stage,
            "sha256": file_sha256(release.model),
            "classes": classes,
            "image_size": release.image_size,
            "ledger": json.dumps(dict(release.row), default=str),
        }
        return {f"quorum.{key}": str(value) for key, value in tags.items() if value is not None}

    def _create_version(self, release: Release, tags: dict[str, str]) -> Any:
        key = self._projection.latest(release.stage)
        run_id = self._store.run_id(key) or self._store.run_id(SWEEP)
        logged = self._client.create_logged_model(
            self._store.experiment_id, name=release.stage, source_run_id=run_id,
            tags=tags, params={"image_size": str(release.image_size)}, model_type="classifier",
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as place:
            _package(self._mlflow, release, Path(place), logged, run_id)
            self._client.log_model_artifacts(logged.model_id, place)
        self._client.finalize_logged_model(logged.model_id, "READY")
        if run_id is not None:
            output = self._mlflow.entities.LoggedModelOutput(logged.model_id, step=0)
            self._client.log_outputs(run_id, models=[output])
        return self._client.create_model_version(
            self._name, source=f"models:/{logged.model_id}", run_id=run_id, tags=tags,
            description=self._description(release, tags), model_id=logged.model_id,
        )  # fmt: skip

    def _description(self, release: Release, tags: Mapping[str, str]) -> str:
        figures = ", ".join(
            f"{key.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in release.row.items()
            if key in _DESCRIBED_METRICS and value is not None
        )
        text = f"`{release.stage}` of {tags.get('quorum.run')}, {len(release.class_names)} classes"
        about = f"{text}: {figures}." if figures else f"{text}."
        return describe_model(self._name, self._uri, release.image_size, release.class_names, about)


def _package(mlflow: Any, release: Release, place: Path, logged: Any, run_id: str | None) -> None:
    """Write an MLflow model: the ONNX file unchanged, its signature and its requirements.

    `mlflow.onnx.save_model` would parse the file and write it again with the tensors in
    separate files; copying keeps the bytes that were tested.
    """
    shutil.copyfile(release.model, place / "model.onnx")
    types, size = mlflow.types, release.image_size
    images = types.TensorSpec(np.dtype(np.uint8), (-1, size, size, 3))
    log_probs = types.TensorSpec(np.dtype(np.float32), (-1, len(release.class_names)), "log_probs")
    model = mlflow.models.Model(
        artifact_path=logged.artifact_location,
        run_id=run_id,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
        signature=mlflow.models.ModelSignature(types.Schema([images]), types.Schema([log_probs])),
        metadata={"class_names": list(release.class_names)},
    )
    mlflow.pyfunc.add_to_model(
        model, loader_module="mlflow.onnx", data="model.onnx", python_env="python_env.yaml"
    )
    model.add_flavor(
        "onnx", onnx_version=version("onnx"), data="model.onnx",
        providers=["CPUExecutionProvider"], onnx_session_options=None,
    )  # fmt: skip
    needed = [f"{package}=={version(package)}" for package in _PACKAGES]
    (place / "requirements.txt").write_text("\n".join(needed) + "\n")
    (place / "python_env.yaml").write_text(
        f"python: {platform.python_version()}\nbuild_dependencies: [pip]\n"
        "dependencies: [-r requirements.txt]\n"
    )
    model.save(str(place / "MLmodel"))


_PACKAGES = ("mlflow", "numpy", "onnx", "onnxruntime")
_DESCRIBED_METRICS = ("split", "accuracy", "nll", "ece", "params", "bytes", "latency_ms_batch1")
