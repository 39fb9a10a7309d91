"""Weights on timm's hub: whether a network has some, and whether they can be had here."""

import huggingface_hub
import timm
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from common.errors import SpecError
from trainables.hyperparameters import Architecture

TIMEOUT_SECONDS = 5.0
"""Time allowed for the hub's answer."""
_FILES = ("model.safetensors", "pytorch_model.bin")


def check_hub(architecture: Architecture) -> None:
    """Refuse models that are not timm's; its hub has no weights for them.

    Raises:
        SpecError: the model is not timm's.
    """
    if not architecture.model.startswith("timm:"):
        raise SpecError(f"pretrained: hub needs a model of timm, got {architecture.model!r}")


def hub_problem(architecture: Architecture) -> str:
    """Return why the hub's weights cannot be had on this machine; empty if they can.

    Weights in the local cache need no connection. Otherwise they are downloaded, because a hub may
    answer and still not give the file.

    Raises:
        SpecError: the model is not timm's, or timm has no such weights.
    """
    check_hub(architecture)
    name = architecture.model.removeprefix("timm:")
    if not timm.is_model(name.partition(".")[0]):
        raise SpecError(f"timm has no model {name!r}")
    try:
        about = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise SpecError(f"model {name!r}: {error}") from None
    repository = None if about is None else about.hf_hub_id
    if repository is None:
        return f"the hub has no weights for {name!r}"
    if any(
        isinstance(huggingface_hub.try_to_load_from_cache(repository, file), str) for file in _FILES
    ):
        return ""
    try:
        files = huggingface_hub.HfApi().model_info(repository, timeout=TIMEOUT_SECONDS).siblings
        names = [file.rfilename for file in files or ()]
        for file in _FILES:
            if file in names:
                huggingface_hub.hf_hub_download(repository, file)
                return ""
    except HfHubHTTPError as error:
        return f"the hub does not give the weights of {name!r} ({type(error).__name__})"
    except OfflineModeIsEnabled:
        return f"the weights of {name!r} are not in the hub's cache, and HF_HUB_OFFLINE is set"
    except Exception as error:
        # The client's errors without a connection are those of its HTTP library, which changes.
        return f"the hub cannot be reached ({type(error).__name__})"
    return f"the hub has no file of weights for {name!r}"
