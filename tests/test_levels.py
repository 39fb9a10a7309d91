"""Levels 1 and 2 train the network that they are meant for, a ResNet-50, from weights on disk."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from common.seeds import numpy_generator
from search.space.sweep_files import load_spec
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics
from trainables.training.loop import Training

pytestmark = pytest.mark.slow

CLASSES, SIZE = 3, 32
STEM = "conv1.weight"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    """Return a file in the format of timm's hub, with 1,000 classes, and its first convolution."""
    path = tmp_path_factory.mktemp("hub") / "model.safetensors"
    state = timm.create_model("resnet50").state_dict()
    save_file(state, path)
    return path, state[STEM].clone()


@pytest.mark.parametrize(
    ("level", "epochs", "stem_trains"), [("level1", 2, False), ("level2", 3, True)]
)
def test_a_level_trains_a_resnet50(
    weights: tuple[Path, Tensor], level: str, epochs: int, stem_trains: bool
) -> None:
    path, stem = weights
    spec = load_spec(level, profile="gpu", settings=[f"recipe.pretrained={path}"])
    recipe = spec.base_recipe().with_values(epochs=epochs, batch_size=8, input_size=SIZE)
    assert recipe.architecture.model == "timm:resnet50"
    labels = np.arange(24) % CLASSES
    pixels = numpy_generator(0, "pixels").integers(0, 256, (24, SIZE, SIZE, 3), dtype=np.uint8)
    images = ImageSet(name="x", images=pixels, labels=labels, class_names=tuple("abc"))
    rows = np.arange(24)
    splits = Splits(train=rows[:16], val=rows[16:], holdout=rows[:0], test=rows[:0], split_id="x")
    training = Training(
        recipe, rungs=(epochs,), seed=0, numerics=Numerics(), images=images, splits=splits
    )
    trained = dict(training.model.net.named_parameters())
    torch.testing.assert_close(trained[STEM], stem, rtol=0, atol=0, check_stride=False)
    reports = list(training.reports())
    assert len(reports) == epochs
    assert all(np.isfinite(report.val_nll) for report in reports)
    assert trained["fc.weight"].shape == (CLASSES, 2048)
    assert torch.equal(trained[STEM].detach(), stem) is not stem_trains
