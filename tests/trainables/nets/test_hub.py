"""The hub is asked about weights before a sweep relies on them."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from common.errors import SpecError
from trainables.hyperparameters import Architecture
from trainables.nets.hub import hub_problem

RESNET = Architecture(model="timm:resnet18", pretrained="hub")


def answer(
    error: Exception | None = None, *, files: tuple[str, ...] = ("model.safetensors",)
) -> Callable[..., Any]:
    def model_info(_self: object, _repository: str, *, timeout: float) -> Any:
        assert 0 < timeout < 60
        if error is not None:
            raise error
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in files])

    return model_info


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: "/cache/file")


def test_a_model_that_the_hub_knows_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answer())
    assert hub_problem(RESNET) == ""


def test_without_a_connection_the_error_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answer(OSError("no route")))
    assert hub_problem(RESNET) == "the hub cannot be reached (OSError)"


def test_offline_mode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    error = huggingface_hub.errors.OfflineModeIsEnabled("off")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answer(error))
    assert "HF_HUB_OFFLINE is set" in hub_problem(RESNET)


def test_cached_weights_need_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answer(OSError("no route")))
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda _repository, file: f"/cache/{file}"
    )
    assert hub_problem(RESNET) == ""


def test_a_hub_that_answers_and_gives_no_file_is_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object) -> str:
        raise OSError("no space left")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answer())
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refused)
    assert hub_problem(RESNET) == "the hub cannot be reached (OSError)"
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answer(files=("README.md",)))
    assert hub_problem(RESNET) == "the hub has no file of weights for 'resnet18'"


@pytest.mark.parametrize("model", ["no_such_net", "resnet18.typo"])
def test_a_model_that_timm_does_not_have_is_an_error(model: str) -> None:
    with pytest.raises(SpecError, match=model.partition(".")[0]):
        hub_problem(Architecture(model=f"timm:{model}", pretrained="hub"))


def test_a_network_of_ours_has_none() -> None:
    with pytest.raises(SpecError, match="hub needs a model of timm, got 'convnet'"):
        hub_problem(Architecture(pretrained="hub"))
