"""Weights on timm's hub: whether a network has some, and their file on this machine.

A file is downloaded once, into the cache of the hub's client (`HF_HUB_CACHE`, else in `HF_HOME`),
from which later processes read it without a connection. Where that folder cannot be written, it is
`hub` in our own cache.
"""

import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import timm
from huggingface_hub import constants

from common.errors import MissingWeightsError, SpecError
from trainables.data.cache import cache_root
from trainables.hyperparameters import Architecture
from trainables.nets import hub_download

DEADLINE_SECONDS = 300.0
"""Time allowed for a whole download; the next one continues an unfinished file."""
_FILES = ("model.safetensors", "pytorch_model.bin")
_REFUSED = ("HfHubHTTPError", "RepositoryNotFoundError", "GatedRepoError", "RevisionNotFoundError")
"""The client's errors for an answer that is no file."""


def check_hub(architecture: Architecture) -> None:
    """Refuse models that are not timm's; its hub has no weights for them.

    Raises:
        SpecError: the model is not timm's.
    """
    if not architecture.model.startswith("timm:"):
        raise SpecError(f"pretrained: hub needs a model of timm, got {architecture.model!r}")


def hub_problem(architecture: Architecture) -> str:
    """Return why the hub's weights are unavailable on this machine; empty if they are available.

    They are downloaded, because a hub may answer and still not give the file.

    Raises:
        SpecError: the model is not timm's, or timm has no such weights.
    """
    try:
        hub_file(architecture)
    except MissingWeightsError as error:
        return str(error)
    return ""


def hub_file(architecture: Architecture, *, deadline_seconds: float = DEADLINE_SECONDS) -> Path:
    """Return the file of the hub's weights on this machine; download it if it is not there.

    Raises:
        SpecError: the model is not timm's, or timm has no such weights.
        MissingWeightsError: the weights are not available here, or not in `deadline_seconds`.
    """
    check_hub(architecture)
    name = architecture.model.removeprefix("timm:")
    repository = _repository(name)
    caches = _caches()
    for cache in caches:
        for file in _FILES:
            path = huggingface_hub.try_to_load_from_cache(repository, file, cache_dir=cache)
            if isinstance(path, str):
                return Path(path)
    if constants.HF_HUB_OFFLINE:
        raise MissingWeightsError(
            f"the weights of {name!r} are not in the hub's cache, and HF_HUB_OFFLINE is set"
        )
    writable = [cache for cache in caches if _is_writable(cache)]
    if not writable:
        raise MissingWeightsError(
            f"no folder can be written for the weights of {name!r}: {caches[0]}, {caches[1]}"
        )
    return _download(name, repository, writable[0], deadline_seconds)


def _repository(name: str) -> str:
    if not timm.is_model(name.partition(".")[0]):
        raise SpecError(f"timm has no model {name!r}")
    try:
        about = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise SpecError(f"model {name!r}: {error}") from None
    if about is None or about.hf_hub_id is None:
        raise MissingWeightsError(f"the hub has no weights for {name!r}")
    return str(about.hf_hub_id)


def _caches() -> tuple[Path, Path]:
    return Path(constants.HF_HUB_CACHE), cache_root() / "hub"


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _download(name: str, repository: str, cache: Path, deadline_seconds: float) -> Path:
    """Download in a process that is ended at the deadline: the client only limits each read."""
    program = [sys.executable, "-P", hub_download.__file__, repository, str(cache), *_FILES]
    try:
        result = subprocess.run(
            program, capture_output=True, text=True, timeout=deadline_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise MissingWeightsError(
            f"the weights of {name!r} did not arrive from the hub within {deadline_seconds:g} s"
        ) from None
    error = result.stderr.strip().rpartition("\n")[2]
    if result.returncode:
        refused = f"the hub does not give the weights of {name!r} ({error})"
        unreached = f"the hub cannot be reached ({error})"
        raise MissingWeightsError(refused if error in _REFUSED else unreached)
    path = result.stdout.strip()
    if not path:
        raise MissingWeightsError(f"the hub has no file of weights for {name!r}")
    return Path(path)
