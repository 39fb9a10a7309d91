"""Tests that every storage of checkpoints passes.

class TestMyStorage(StorageContract):
    def make(self, place: Path) -> Storage:
        return Storage(f"s3://my-bucket/{place.name}")
"""

from pathlib import Path

import pytest

from search.tune.storage import Location, Storage


class StorageContract:
    """Tests of a storage; subclass it and define `make`."""

    def make(self, place: Path) -> Storage:
        """Return an empty storage; each test passes its own temporary folder."""
        raise NotImplementedError

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        """Return the storage under test."""
        return self.make(tmp_path)

    def test_a_file_exists_until_it_is_removed(self, storage: Storage) -> None:
        """Its folder counts too."""
        assert not storage.holds("s-1/t0/c0")
        put(storage, "s-1/t0/c0/state.json")
        assert storage.holds("s-1/t0/c0")
        assert storage.holds("s-1/t0/c0/state.json")
        storage.remove("s-1/t0/c0")
        assert not storage.holds("s-1/t0/c0/state.json")

    def test_removing_a_missing_path_is_no_error(self, storage: Storage) -> None:
        """A killed process may have removed it before."""
        storage.remove("s-1/t0/c0")
        put(storage, "s-1/t0/c0/state.json")
        storage.remove("s-9")
        assert storage.holds("s-1/t0/c0")

    def test_pruning_keeps_the_named_trials_only(self, storage: Storage) -> None:
        """Whole sessions go if none of their trials is kept."""
        storage.prune(set())  # nothing is there yet
        for path in ("s-1/t0/c0/a", "s-1/t0/c1/a", "s-1/t1/c0/a", "s-2/t2/c0/a", "s-3/state.json"):
            put(storage, path)
        storage.prune({"s-1/t0", "s-9/t9"})
        assert storage.holds("s-1/t0/c0/a")
        assert storage.holds("s-1/t0/c1/a")
        gone = ("s-1/t1/c0/a", "s-2/t2/c0/a", "s-3/state.json")
        assert [storage.holds(path) for path in gone] == [False] * 3
        storage.prune(set())
        assert not storage.holds("s-1/t0/c0/a")

    def test_a_checkpoint_is_found_again_by_its_name(self, storage: Storage) -> None:
        """The name is the path below the root."""
        assert storage.name_of(storage.checkpoint("s-1/t0/c0").path) == "s-1/t0/c0"

    def test_workers_and_driver_see_the_same_files(self, storage: Storage) -> None:
        """They may reach the storage in different ways."""
        for writer, reader in (
            (storage.here, storage.workers),
            (storage.workers, storage.here),
        ):
            folder = f"s-1/{id(writer)}"
            put_at(writer / f"{folder}/state.json", b"{}" * 10_000_000)
            place = reader / f"{folder}/state.json"
            with place.filesystem.open_input_stream(place.path) as stream:
                assert stream.read() == b"{}" * 10_000_000

    def test_a_damaged_checkpoint_has_no_results(self, storage: Storage) -> None:
        """The trial is then scored again from an earlier one."""
        put(storage, "s-1/t0/c0/state.json")
        assert storage.results("s-1/t0/c0") is None
        assert storage.results("s-1/t0/gone") is None


def put(storage: Storage, path: str) -> None:
    """Write a small file at `path`."""
    put_at(storage.here / path, b"{}")


def put_at(place: Location, content: bytes) -> None:
    """Write a file."""
    place.filesystem.create_dir(place.path.rpartition("/")[0], recursive=True)
    with place.filesystem.open_output_stream(place.path) as stream:
        stream.write(content)
