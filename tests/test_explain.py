"""Grad-CAM: it finds what a net looks at, in any net, and never stops a report."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analysis import explain as module
from analysis.data_facts import Chosen, choose, find_images
from analysis.explain import explain, grad_cam, target_layer
from search.spec import load_spec
from trainables.imageset import ImageSet
from trainables.models import Classifier, empty_model
from trainables.recipe import Recipe
from trainables.records import RunFolder
from trainables.splits import SplitSpec

SIZE = 16


class Corner(nn.Module):
    """Two classes: how bright the upper left and the lower right are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        nn.init.constant_(self.conv.weight, 1 / 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        half = SIZE // 2
        return torch.stack(
            [maps[:, 0, :half, :half].mean((1, 2)), maps[:, 1, half:, half:].mean((1, 2))], dim=1
        )


class Flat(nn.Module):
    """No layer of it has places."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * SIZE * SIZE, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def classifier(net: nn.Module) -> Classifier:
    return Classifier(net, classes=2, image_size=SIZE)


def spot(row: int, column: int) -> np.ndarray:
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[row : row + 4, column : column + 4] = 255
    return pixels


def test_the_map_is_bright_where_the_evidence_lies() -> None:
    pixels = np.stack([spot(2, 2), spot(10, 10)])
    maps = grad_cam(classifier(Corner()), pixels, np.array([0, 1]))
    assert maps.shape == (2, SIZE, SIZE)
    assert np.unravel_index(maps[0].argmax(), maps[0].shape) < (6, 6)
    assert np.unravel_index(maps[1].argmax(), maps[1].shape) >= (10, 10)
    assert (maps.min(), maps.max()) == pytest.approx((0.0, 1.0), abs=1e-5)


def test_a_net_that_averages_views_is_explained_at_one_look() -> None:
    pixels, classes = np.stack([spot(2, 2), spot(10, 10)]), np.array([0, 1])
    several = classifier(Corner())
    several.tta = "mirror_translate"
    found = grad_cam(several, pixels, classes)
    np.testing.assert_array_equal(found, grad_cam(classifier(Corner()), pixels, classes))


@pytest.mark.parametrize("size", [8, 16, 32])
def test_our_nets_have_a_layer_with_places(size: int) -> None:
    net = empty_model(Recipe(width=4), classes=3, image_size=size).eval()
    layer, reshape = target_layer(net, torch.rand(1, 3, size, size))
    cells: list[int] = []
    layer.register_forward_hook(lambda _m, _i, output: cells.append(output.shape[2]))
    net(torch.rand(1, 3, size, size))
    assert cells[0] >= (4 if size > 8 else 2)
    assert reshape is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm:resnet10t", "timm:test_vit"])
def test_any_net_is_explained_or_refused(name: str) -> None:
    net = empty_model(Recipe(model=name), classes=3, image_size=160 if "vit" in name else 32).eval()
    pixels = np.zeros((1, net.image_size, net.image_size, 3), np.uint8)
    assert grad_cam(net, pixels, np.array([1])).shape == pixels.shape[:3]


def test_a_net_without_places_is_refused() -> None:
    with pytest.raises(ValueError, match="no layer's output is a map of places"):
        grad_cam(classifier(Flat()), spot(2, 2)[None], np.array([0]))


def test_members_are_averaged_by_weight_and_failures_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nets = {"a": classifier(Corner()), "b": classifier(Flat()), "c": classifier(Corner())}
    monkeypatch.setattr(module, "load_trained", lambda folder: nets[Path(folder).name])
    chosen = Chosen(
        pixels=spot(2, 2)[None], labels=np.array([0]), answers=np.array([0]),
        confidences=np.array([0.9]),
    )  # fmt: skip
    weights = {"a": 0.5, "b": 0.3, "c": 0.2, "gone": 0.0}
    found = explain(RunFolder(tmp_path), weights, chosen)
    assert list(found.members) == ["a", "c"]
    assert set(found.skipped) == {"b", "gone"}
    assert "map of places" in found.skipped["b"]
    slow = (0.5 * found.members["a"] + 0.2 * found.members["c"]) / 0.7
    assert found.ensemble is not None
    np.testing.assert_allclose(found.ensemble, slow, rtol=1e-5)
    nothing = explain(RunFolder(tmp_path), {"b": 1.0}, chosen)
    assert nothing.ensemble is None
    assert not nothing.members


def test_the_surest_are_chosen_one_of_a_class() -> None:
    spec = load_spec("digits")
    rng = np.random.default_rng(0)
    count = 1000
    images = ImageSet(
        name="made", images=rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8),
        labels=np.arange(count, dtype=np.int64) % 4, class_names=("a", "b", "c", "d"),
        fingerprint="sha256:made",
    )  # fmt: skip
    spec = spec.with_values(splits=SplitSpec(floor=0, val=0.10))
    found, missing = find_images(images, spec, {"fingerprint": "sha256:made"})
    assert missing == ""
    assert found is not None
    labels = images.labels[found.splits.test]
    logits = rng.standard_normal((len(labels), 4)) * 2
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    chosen = choose(found, log_probs, labels)
    assert chosen is not None
    right = chosen.labels == chosen.answers
    assert right.tolist() == [True] * 4 + [False] * 4
    assert sorted(chosen.labels[:4]) == [0, 1, 2, 3]
    hits = log_probs.argmax(1) == labels
    assert chosen.confidences[0] == pytest.approx(np.exp(log_probs.max(1))[hits].max())
    assert choose(found, log_probs, (labels + 1) % 4) is None
    assert find_images(images, spec, {"fingerprint": "other"})[0] is None
    assert find_images(images, spec, {}) == (None, "the run has not begun")
