"""Import paths load user code, last of all from the current folder, with clear errors."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import SpecError
from common.plugins import add_import_folder, is_import_path, load_object

WHERE = "recipe: model"


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the current folder of a user; restore sys.path and sys.modules afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_modules_of_the_current_folder_are_loaded(user_folder: Path) -> None:
    (user_folder / "mynet.py").write_text("class Net:\n    build = 'built'\n")
    assert load_object("mynet:Net.build", where=WHERE) == "built"
    package = user_folder / "mine" / "deep"
    package.mkdir(parents=True)
    (package / "nets.py").write_text("def build(): ...\n")
    assert load_object("mine.deep.nets:build", where=WHERE).__name__ == "build"  # type: ignore[attr-defined]


def test_the_current_folder_is_searched_last_and_added_once(user_folder: Path) -> None:
    (user_folder / "analysis").mkdir()
    (user_folder / "analysis" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    (user_folder / "json.py").write_text("raise SystemExit('the wrong one')")
    assert load_object("json:dumps", where=WHERE)
    assert load_object("analysis.report.blocks:text", where=WHERE)
    add_import_folder(user_folder)
    add_import_folder(user_folder / "missing")
    assert sys.path.count(str(user_folder)) == 1
    assert sys.path[-1] == str(user_folder)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("mynet", "'mynet' is not an import path; write package"),
        ("./mynet.py:build", "is not an import path"),
        ("nowhere:build", r"no module 'nowhere' .* start the command in"),
        ("analysis.mine:build", "no module 'analysis.mine': 'analysis' is the module .* rename"),
        ("mynet:biuld", r"'mynet:biuld' does not exist: the module 'mynet' \(.*\) has no 'biuld'"),
        ("mynet:build.more", "'build' has no 'more'"),
        ("broken:build", r"'broken' cannot be imported: ZeroDivision.*\(broken.py, line 2\)"),
        ("lacking:build", "'lacking' cannot be imported: ModuleNotFoundError: .*'not_installed'"),
        ("wrong:build", r"'wrong' cannot be imported: SyntaxError: .*\(wrong.py, line 1\)"),
    ],
)  # fmt: skip
def test_paths_that_cannot_be_loaded_are_named(user_folder: Path, path: str, message: str) -> None:
    (user_folder / "mynet.py").write_text("def build(): ...\n")
    (user_folder / "broken.py").write_text("def build(): ...\n1 / 0\n")
    (user_folder / "lacking.py").write_text("import not_installed\n")
    (user_folder / "wrong.py").write_text("def build(:\n")
    with pytest.raises(SpecError, match=f"^{WHERE}: .*{message}"):
        load_object(path, where=WHERE)


def test_import_paths_are_recognised() -> None:
    good = ("a:b", "a.b.c:d.e", "größe:bau", "_a1:_b2")
    bad = ("a", "a:", ":b", "a:b:c", "a..b:c", "1a:b", "a b:c", "a/b:c", "a:b.")
    assert [is_import_path(text) for text in (*good, *bad)] == [True] * 4 + [False] * 9
