"""The storage of checkpoints: a local folder, a URI, a folder that the driver serves, S3."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import SpecError
from quorum.testing.storage import StorageContract
from search.space.sweep_files import spec_from_mapping
from search.tune.served_folder import served
from search.tune.session import ray_session
from search.tune.storage import Location, Storage


class TestContractOfFolders(StorageContract):
    def make(self, place: Path) -> Storage:
        return Storage(place / "checkpoints")


class TestContractOfUris(StorageContract):
    def make(self, place: Path) -> Storage:
        return Storage(f"file://{place}/checkpoints")


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ray_session(cpus=1, folder=tmp_path_factory.mktemp("cwd")):
        yield


@pytest.mark.slow
class TestContractOfServedFolders(StorageContract):
    @pytest.fixture
    def storage(self, ray: None, tmp_path: Path) -> Iterator[Storage]:
        with served(tmp_path) as filesystem:
            remote = Location(filesystem, "/checkpoints")
            yield Storage(tmp_path / "checkpoints", workers=remote)

    def test_nothing_outside_the_folder_can_be_reached(
        self, storage: Storage, tmp_path: Path
    ) -> None:
        (tmp_path.parent / "secret").write_text("x")
        outside = storage.workers / "../../secret"
        with pytest.raises(PermissionError, match="outside the served folder"):
            outside.filesystem.open_input_stream(outside.path)

    def test_a_file_appears_once_it_is_whole(self, storage: Storage) -> None:
        place = storage.workers / "s-1/t0/c0/weights"
        with place.filesystem.open_output_stream(place.path) as stream:
            stream.write(b"x" * 20_000_000)
            assert not storage.holds("s-1/t0/c0/weights")
        assert storage.holds("s-1/t0/c0/weights")


@pytest.mark.parametrize(
    "address",
    [
        "s3://me:word@bucket/runs",
        "s3://key@bucket/runs",
        "s3://bucket/runs?access_key=AK&secret_key=SK",
        "s3://bucket/runs?region=x&Secret_Key=SK",
    ],
)
def test_credentials_never_reach_a_record(address: str) -> None:
    with pytest.raises(SpecError, match="has credentials in it") as caught:
        spec_from_mapping({"name": "a", "storage": address})
    assert not any(secret in str(caught.value) for secret in ("word", "key@", "AK", "SK"))


def test_an_unknown_scheme_is_one_clear_error() -> None:
    with pytest.raises(SpecError, match=r"storage 'nix://a/b' cannot be used"):
        Storage("nix://a/b")
