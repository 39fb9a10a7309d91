"""The storage of checkpoints: a local folder, and the same folder as a URI."""

from pathlib import Path

from quorum.testing.storage import StorageContract
from search.tune.storage import Storage


class TestContractOfFolders(StorageContract):
    def make(self, place: Path) -> Storage:
        return Storage(place / "checkpoints")


class TestContractOfUris(StorageContract):
    def make(self, place: Path) -> Storage:
        return Storage(f"file://{place}/checkpoints")
