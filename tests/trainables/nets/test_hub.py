"""Weights of the hub are downloaded once, within a deadline, before a sweep relies on them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save

from common.errors import MissingWeightsError, SpecError
from tests.trainables.nets.local_hub import LocalHub, serving
from trainables.hyperparameters import Architecture
from trainables.nets.hub import hub_file, hub_problem
from trainables.nets.timm_net import timm_net

TINY = Architecture(model="timm:test_resnet", pretrained="hub")

Serve = Callable[..., LocalHub]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start hubs for the client, whose cache is empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("QUORUM_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with ExitStack() as stack:

        def start(**values: Any) -> LocalHub:
            hub = stack.enter_context(serving(LocalHub(**values)))
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            return hub

        yield start


@pytest.mark.slow
def test_weights_are_downloaded_once_and_then_need_no_connection(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    donor = timm.create_model("test_resnet", pretrained=False)
    hub = serve(content=save(dict(donor.state_dict())))
    assert hub_problem(TINY) == ""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub_problem(TINY) == ""
    net = timm_net(TINY, classes=7, image_size=64, download=True)
    assert hub.downloads == 1
    torch.testing.assert_close(
        net.state_dict()["conv1.0.weight"], donor.state_dict()["conv1.0.weight"]
    )


@pytest.mark.slow
def test_a_download_that_drips_ends_at_the_deadline(serve: Serve) -> None:
    """Every byte arrives within the client's limit for a read."""
    serve(content=b"w" * 10_000, drip_seconds=0.5)
    with pytest.raises(MissingWeightsError, match=r"'test_resnet' did not arrive .* within 3 s"):
        hub_file(TINY, deadline_seconds=3.0)


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_replaced_by_ours(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    hub = serve()
    first, second = hub_file(TINY), hub_file(TINY)
    assert first == second
    assert first.is_relative_to(tmp_path / "ours" / "hub")
    assert hub.downloads == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ({"status": 403}, "the hub does not give the weights of 'test_resnet' (HfHubHTTPError)"),
        ({"files": ("README.md",)}, "the hub has no file of weights for 'test_resnet'"),
    ],
)
def test_a_hub_that_answers_and_gives_no_file_is_a_problem(
    answers: dict[str, Any], problem: str, serve: Serve
) -> None:
    serve(**answers)
    assert hub_problem(TINY) == problem


@pytest.mark.slow
def test_without_a_connection_the_error_is_named(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub_problem(TINY) == "the hub cannot be reached (ConnectError)"
    with pytest.raises(MissingWeightsError, match=r"\(ConnectError\); use .*pretrained: package"):
        timm_net(TINY, classes=7, image_size=64, download=True)


def test_offline_mode_is_named(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in hub_problem(TINY)


@pytest.mark.parametrize("model", ["no_such_net", "resnet18.typo"])
def test_a_model_that_timm_does_not_have_is_an_error(model: str) -> None:
    with pytest.raises(SpecError, match=model.partition(".")[0]):
        hub_problem(Architecture(model=f"timm:{model}", pretrained="hub"))


def test_a_network_of_ours_has_none() -> None:
    with pytest.raises(SpecError, match="hub needs a model of timm, got 'convnet'"):
        hub_problem(Architecture(pretrained="hub"))
