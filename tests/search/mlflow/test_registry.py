"""The model registry: which student becomes champion, and what a registered version holds."""

import json
import os
import shlex
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from common.errors import RunError
from common.files import file_sha256
from ensemble.deployment.onnx_model import OnnxClassifier
from journal.journal import Journal
from search.mlflow.client import load_mlflow
from search.mlflow.mirror import sync
from search.mlflow.projection import Projection
from search.mlflow.registry import Release, default_name, register_student
from tests.events import run_started
from tests.search.mlflow.mirrored import wait_until
from tests.synthetic_sweep import SPEC, synthetic_chain, synthetic_sweep
from trainables.records import RunFolder

SIZE, NAMES = 8, ("zero", "one", "two")


def make_onnx(path: Path, seed: int) -> Path:
    """Write a linear classifier with the inputs and outputs of our students."""
    weights = np.random.default_rng(seed).normal(size=(SIZE * SIZE * 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["floats"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
            helper.make_node("LogSoftmax", ["logits"], ["log_probs"], axis=1),
        ],
        "student",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, ["n", 3])],
        [onnx.numpy_helper.from_array(weights / 100, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def release(folder: RunFolder, seed: int, **values: Any) -> Release:
    model = make_onnx(folder.student / f"model{seed}.onnx", seed)
    row = {"split": "test", "accuracy": 0.9445, "nll": 0.21, "bytes": 38200}
    return Release(**{
        "model": model, "image_size": SIZE, "class_names": NAMES, "passed_gates": True,
        "row": row, **values,
    })  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """Create a runs folder with one run that is mirrored in MLflow."""
    runs = tmp_path_factory.mktemp("registry") / "runs"
    folder = RunFolder(runs / "digits-1")
    events = list(synthetic_sweep(spec={**SPEC, "trials": 2}))
    with Journal(folder.journal) as journal:
        for event in [*events, *synthetic_chain(start=events[-1].time)]:
            journal.append(event)
    shutil.copy(empty_store, runs / "mlflow.db")
    sync(folder, f"sqlite:///{runs / 'mlflow.db'}")
    return runs


@pytest.fixture
def folder(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return RunFolder(Path(shutil.copytree(runs, tmp_path / "runs")) / "digits-1")


def client(folder: RunFolder) -> Any:
    uri = f"sqlite:///{folder.root.parent / 'mlflow.db'}"
    return load_mlflow().MlflowClient(tracking_uri=uri, registry_uri=uri)


def never(champion: Path) -> bool:
    raise AssertionError(f"{champion} need not be compared")


def loses(champion: Path) -> bool:
    return not champion.is_file()


def wins(champion: Path) -> bool:
    return champion.is_file()


@pytest.mark.slow
def test_only_a_released_student_that_beats_the_champion_becomes_champion(
    folder: RunFolder,
) -> None:
    first = register_student(folder, release(folder, 0), beats_champion=never)
    assert (first.name, first.version, first.alias) == ("quorum-digits", 1, "champion")
    assert "first" in first.reason
    compared_files: list[bytes] = []

    def compare(champion: Path) -> bool:
        compared_files.append(champion.read_bytes())
        return False

    second = register_student(folder, release(folder, 1), beats_champion=compare)
    assert compared_files == [(folder.student / "model0.onnx").read_bytes()]
    assert second.alias == "candidate"
    assert "does not beat version 1" in second.reason
    held = release(folder, 2, passed_gates=False, stage="student_fp32")
    third = register_student(folder, held, beats_champion=never)
    assert third.alias == "candidate"
    assert "gates" in third.reason
    other = release(folder, 3, class_names=("a", "b", "c"))
    assert "classes" in register_student(folder, other, beats_champion=never).reason
    larger = release(folder, 6, image_size=2 * SIZE)
    assert "size" in register_student(folder, larger, beats_champion=never).reason
    client(folder).set_model_version_tag("quorum-digits", "1", "quorum.split_id", "another")
    apart = register_student(folder, release(folder, 7), beats_champion=never)
    assert apart.alias == "candidate"
    assert "another split" in apart.reason
    client(folder).set_model_version_tag("quorum-digits", "1", "quorum.split_id", "5f3b6c9d")
    fifth = register_student(folder, release(folder, 4), beats_champion=wins)
    assert (fifth.version, fifth.alias) == (7, "champion")
    aliases = client(folder).get_registered_model("quorum-digits").aliases
    assert {alias: int(number) for alias, number in aliases.items()} == {
        "champion": 7,
        "candidate": 6,
    }
    sixth = register_student(folder, release(folder, 5), beats_champion=False)
    assert (sixth.version, sixth.alias) == (8, "candidate")


@pytest.mark.slow
def test_registering_the_same_file_again_adds_no_version(folder: RunFolder) -> None:
    first = register_student(folder, release(folder, 0), beats_champion=never)
    again = register_student(folder, release(folder, 0), beats_champion=never)
    assert (again.version, again.alias) == (first.version, first.alias)
    assert len(client(folder).search_model_versions("name = 'quorum-digits'")) == 1


@pytest.mark.slow
def test_a_registered_model_predicts_like_its_file(folder: RunFolder) -> None:
    made = release(folder, 0)
    entry = register_student(folder, made, beats_champion=loses, name="mine")
    uri = f"sqlite:///{folder.root.parent / 'mlflow.db'}"
    mlflow = load_mlflow()
    mlflow.set_tracking_uri(uri)
    try:
        model = mlflow.pyfunc.load_model("models:/mine@champion")
        images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
        answers = model.predict(images)
        with pytest.raises(mlflow.exceptions.MlflowException, match="uint8"):
            model.predict(images.astype(np.float64))
    finally:
        mlflow.set_tracking_uri(None)
    session = onnxruntime.InferenceSession(made.model, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(answers["log_probs"], session.run(None, {"images": images})[0])
    signature = model.metadata.signature
    assert [spec.shape for spec in signature.inputs] == [(-1, SIZE, SIZE, 3)]
    assert [spec.shape for spec in signature.outputs] == [(-1, 3)]
    assert model.metadata.metadata["class_names"] == list(NAMES)

    version = client(folder).get_model_version("mine", str(entry.version))
    assert version.tags["quorum.sha256"] == file_sha256(made.model)
    assert version.tags["quorum.split_id"] == "5f3b6c9d"
    assert '"accuracy": 0.9445' in version.tags["quorum.ledger"]
    source = client(folder).get_run(version.run_id)
    assert source.info.run_name == "student_int8"
    place = client(folder).get_model_version_download_uri("mine", version.version)
    files = {path.name for path in Path(unquote(urlsplit(place).path)).iterdir()}
    files.discard("registered_model_meta")  # written by MLflow when it loads a model
    assert files == {"MLmodel", "model.onnx", "python_env.yaml", "requirements.txt"}


@pytest.mark.slow
def test_the_served_champion_accepts_raw_pixels(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Serve the registered model with the app that `mlflow models serve` runs."""
    monkeypatch.setenv(
        "_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true"
    )  # `init` sets it and leaves it set
    made = release(folder, 0)
    register_student(folder, made, beats_champion=never)
    mlflow = load_mlflow()
    import uvicorn
    from mlflow.pyfunc.scoring_server import init

    mlflow.set_tracking_uri(f"sqlite:///{folder.root.parent / 'mlflow.db'}")
    try:
        app = init(mlflow.pyfunc.load_model("models:/quorum-digits@champion"))
    finally:
        mlflow.set_tracking_uri(None)
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    with served(uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))) as url:
        answer = ask(url, {"inputs": images.tolist()})
        log_probs = np.array(answer["predictions"]["log_probs"], dtype=np.float32)
        with pytest.raises(HTTPError, match="400"):
            ask(url, {"inputs": images[:, :-1].tolist()})
    np.testing.assert_allclose(log_probs, OnnxClassifier(made.model).log_probs(images), rtol=1e-6)
    np.testing.assert_allclose(np.exp(log_probs).sum(1), 1.0, rtol=1e-5)

    version = client(folder).get_model_version("quorum-digits", "1")
    command = shlex.split(next(line for line in serving_lines(version.description)))
    assert command[command.index("-m") + 1] == "models:/quorum-digits@champion"
    assert command[command.index("--host") + 1] == "127.0.0.1"


def serving_lines(description: str) -> Iterator[str]:
    """Yield the commands of a description that serve a model, each as one line."""
    joined = description.replace("\\\n", " ")
    return (line for line in joined.splitlines() if line.startswith("mlflow models serve"))


@contextmanager
def served(server: Any) -> Iterator[str]:
    """Yield the address of an app served on a free local port until the block ends."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            assert wait_until(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/invocations"
        finally:
            server.should_exit = True
            thread.join(10)


def ask(url: str, question: Any) -> Any:
    data = json.dumps(question).encode()
    request = Request(url, data=data, headers={"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as reply:
        return json.load(reply)


@pytest.mark.slow
def test_registering_restores_mlflows_default_store(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_student(folder, release(folder, 0), beats_champion=True)
    assert "MLFLOW_TRACKING_URI" not in os.environ
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    uri = f"sqlite:///{folder.root.parent / 'mlflow.db'}"
    register_student(folder, release(folder, 0), beats_champion=True, uri=uri)
    assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///elsewhere.db"
    assert not Path("elsewhere.db").exists()
    load_mlflow().set_tracking_uri(None)


@pytest.mark.slow
def test_an_unreachable_registry_raises_without_leaking_the_password(folder: RunFolder) -> None:
    made = release(folder, 0)
    message = r"could not be registered at http://127.0.0.1:9 .*model0.onnx"
    with pytest.raises(RunError, match=message) as caught:
        register_student(folder, made, beats_champion=True, uri="http://me:secret@127.0.0.1:9")
    assert "secret" not in str(caught.value)


def test_a_missing_model_file_is_refused(tmp_path: Path) -> None:
    missing = Release(
        model=tmp_path / "no.onnx", image_size=8, class_names=NAMES, passed_gates=True
    )
    with pytest.raises(RunError, match=r"no.onnx does not exist.*distill"):
        register_student(RunFolder(tmp_path), missing, beats_champion=True)


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ({"name": "digits"}, "quorum-digits"),
        ({"name": "imagefolder", "path": "/data/My Flowers (2)/"}, "quorum-my-flowers-2"),
        ({"name": "parquet", "path": "../data/cifar10-jpeg"}, "quorum-cifar10-jpeg"),
        ({}, "quorum-model"),
    ],
)
def test_default_names(dataset: dict[str, str], name: str) -> None:
    projection = Projection()
    projection.apply(run_started(spec={"dataset": dataset}))
    assert default_name(projection) == name
