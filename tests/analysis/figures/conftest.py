"""A finished run with the data of every figure, made once for this package."""

import pytest

from analysis.figures.draw import FigureSource
from tests.analysis.figures.made import made_source


@pytest.fixture(scope="package")
def source(tmp_path_factory: pytest.TempPathFactory) -> FigureSource:
    return made_source(tmp_path_factory.mktemp("runs") / "drawn")
