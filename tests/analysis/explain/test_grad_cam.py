"""Explanations: they find what a net looks at, in any net, and never stop a report."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analysis.explain import grad_cam as module
from analysis.explain import saliency
from analysis.explain.confusions import most_confused
from analysis.explain.examples import (
    EACH,
    MOST_CLASSES,
    Chosen,
    choose_by_class,
    choose_confused,
    same_images,
)
from analysis.explain.grad_cam import explain, grad_cam, target_layer
from analysis.facts.data_facts import find_images
from search.space.spec import load_spec
from trainables.data.image_set import ImageSet
from trainables.data.splits import SplitSpec
from trainables.nets.build import Classifier, empty_model
from trainables.recipe import Recipe
from trainables.records import RunFolder

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


@pytest.mark.parametrize("name", ["timm:resnet10t", "timm:test_vit", "timm:test_convnext"])
def test_any_net_is_explained(name: str) -> None:
    size = 160 if "vit" in name else 64
    net = empty_model(Recipe(model=name), classes=3, image_size=size).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    assert grad_cam(net, pixels, np.array([1])).shape == pixels.shape[:3]


class Tokens(nn.Module):
    """Patches as tokens after one for the class, which alone is read after a last exchange."""

    num_prefix_tokens = 1

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, 4)
        self.before, self.after = nn.Identity(), nn.Identity()
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.before(torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1))
        exchanged = torch.cat([tokens.mean(dim=1, keepdim=True), tokens[:, 1:]], dim=1)
        logits: Tensor = self.head(self.after(exchanged)[:, 0])
        return logits


def test_of_tokens_the_last_that_count_are_the_map() -> None:
    """After the exchange the class token alone is read: there the patches count for nothing."""
    model = classifier(Tokens())
    layer, reshape = target_layer(model, torch.rand(1, 3, SIZE, SIZE))
    assert isinstance(model.net, Tokens)
    assert layer is model.net.before
    assert reshape is not None
    places = reshape(torch.arange(17 * 6.0).reshape(1, 17, 6))
    assert places.shape == (1, 6, 4, 4)
    assert places[0, 0].flatten().tolist() == [6.0 * i for i in range(1, 17)]


def test_maps_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, classes = np.stack([spot(2, 2), spot(10, 10), spot(4, 9)]), np.array([0, 1, 0])
    whole = grad_cam(classifier(Corner()), pixels, classes)
    monkeypatch.setattr(saliency, "BATCH_PIXELS", 2 * SIZE**2)
    np.testing.assert_allclose(grad_cam(classifier(Corner()), pixels, classes), whole, atol=1e-6)


def test_a_net_without_places_is_refused() -> None:
    with pytest.raises(ValueError, match="no layer's output is a map of places"):
        grad_cam(classifier(Flat()), spot(2, 2)[None], np.array([0]))


@pytest.fixture
def nets(monkeypatch: pytest.MonkeyPatch) -> dict[str, Classifier]:
    """Nets that trials seem to have left; any other is missing."""
    found = {"a": classifier(Corner()), "b": classifier(Flat()), "c": classifier(Corner())}
    monkeypatch.setattr(module, "load_trained", lambda folder: found[Path(folder).name])
    return found


CHOSEN = Chosen(
    pixels=spot(2, 2)[None], labels=np.array([0]), answers=np.array([0]),
    confidences=np.array([0.9]),
)  # fmt: skip


def test_members_are_averaged_by_weight_and_failures_named(
    nets: dict[str, Classifier], tmp_path: Path
) -> None:
    weights = {"a": 0.5, "b": 0.3, "c": 0.2, "gone": 0.0}
    found = explain(RunFolder(tmp_path), weights, CHOSEN, single="c", seed=0)
    assert set(found.skipped) == {"b, Grad-CAM", "gone"}
    assert "map of places" in found.skipped["b, Grad-CAM"]
    alone = {
        name: explain(RunFolder(tmp_path), {}, CHOSEN, single=name, seed=0).single for name in nets
    }
    assert found.trial == "c"
    for method, members in (("Grad-CAM", "ac"), ("saliency", "abc")):
        np.testing.assert_array_equal(found.single[method], alone["c"][method])
        heaps = [weights[name] * alone[name][method] for name in members]
        slow = np.sum(heaps, axis=0) / sum(weights[name] for name in members)
        np.testing.assert_allclose(found.ensemble[method], slow, rtol=1e-5)
    columns = [(method, whose) for method, whose, _ in found.columns()]
    assert columns == [("Grad-CAM", "best single"), ("Grad-CAM", "ensemble"),
                       ("saliency", "best single"), ("saliency", "ensemble")]  # fmt: skip


@pytest.mark.usefixtures("nets")
def test_one_net_is_explained_by_itself(tmp_path: Path) -> None:
    for weights in ({}, {"a": 1.0}):
        found = explain(RunFolder(tmp_path), weights, CHOSEN, single="a", seed=0)
        assert set(found.single) == {"Grad-CAM", "saliency"}
        assert (found.ensemble, found.skipped) == ({}, {})
    flat = explain(RunFolder(tmp_path), {}, CHOSEN, single="b", seed=0)
    assert set(flat.single) == {"saliency"}
    nothing = explain(RunFolder(tmp_path), {"gone": 1.0}, CHOSEN, single="gone", seed=0)
    assert nothing.columns() == []
    assert set(nothing.skipped) == {"gone"}


def made(classes: int, count: int) -> ImageSet:
    rng = np.random.default_rng(0)
    return ImageSet(
        name="made", images=rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8),
        labels=np.arange(count, dtype=np.int64) % classes,
        class_names=tuple(f"class {i}" for i in range(classes)), fingerprint="sha256:made",
    )  # fmt: skip


def predicted(labels: np.ndarray, classes: int, skill: float) -> np.ndarray:
    logits = np.random.default_rng(1).standard_normal((len(labels), classes)) * 2
    logits[np.arange(len(labels)), labels] += skill
    log_probs: np.ndarray = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return log_probs


@pytest.mark.parametrize("classes", [2, 4, 30])
def test_a_typical_hit_and_the_worst_miss_of_each_class(classes: int) -> None:
    images = made(classes, 600)
    test = np.arange(0, 600, 3) if classes % 3 else np.arange(600)
    labels = images.labels[test]
    log_probs = predicted(labels, classes, 2.0)
    chosen = choose_by_class(images, test, log_probs, labels)
    answers, sure = log_probs.argmax(1), np.exp(log_probs.max(1))
    errors = np.bincount(labels[answers != labels], minlength=classes)
    assert len(chosen.classes) == min(classes, MOST_CLASSES)
    assert list(chosen.classes) == sorted(chosen.classes)
    assert errors[list(chosen.classes)].sum() == np.sort(errors)[::-1][:MOST_CLASSES].sum()
    for label in chosen.classes:
        hit, miss = chosen.find(label, right=True), chosen.find(label, right=False)
        hits = sure[(labels == label) & (answers == label)]
        misses = sure[(labels == label) & (answers != label)]
        assert (hit is None) == (len(hits) == 0)
        if hit is not None:
            assert chosen.confidences[hit] == pytest.approx(np.sort(hits)[(len(hits) - 1) // 2])
        assert (miss is None) == (len(misses) == 0)
        if miss is not None:
            assert chosen.confidences[miss] == pytest.approx(misses.max())
    rows = [np.flatnonzero((images.images == image).all((1, 2, 3))) for image in chosen.pixels]
    assert [images.labels[row[0]] for row in rows] == chosen.labels.tolist()


def test_a_class_without_a_miss_has_none() -> None:
    images, test = made(3, 30), np.arange(30)
    log_probs = np.log(np.full((30, 3), 0.1) + 0.7 * np.eye(3)[images.labels])
    chosen = choose_by_class(images, test, log_probs, images.labels)
    assert chosen.labels.tolist() == chosen.answers.tolist() == [0, 1, 2]
    assert chosen.find(1, right=False) is None
    assert chosen.hits.tolist() == [0, 1, 2]
    first = images.images[[15, 16, 17]]
    np.testing.assert_array_equal(chosen.pixels, first, "of ten equal hits the sixth: the median")


def test_examples_of_pairs_are_the_surest_errors() -> None:
    images, test = made(4, 400), np.arange(400)
    log_probs = predicted(images.labels, 4, 1.0)
    matrix = np.zeros((4, 4), int)
    np.add.at(matrix, (images.labels, log_probs.argmax(1)), 1)
    pairs = most_confused(matrix, most=3)
    chosen = choose_confused(images, test, log_probs, images.labels, pairs)
    assert len(chosen.labels) == 3 * EACH
    for number, pair in enumerate(pairs):
        part = slice(number * EACH, (number + 1) * EACH)
        assert set(chosen.labels[part]) == {pair.truth}
        assert set(chosen.answers[part]) == {pair.answer}
        wrong = (images.labels == pair.truth) & (log_probs.argmax(1) == pair.answer)
        sure = np.sort(np.exp(log_probs.max(1)[wrong]))[::-1][:EACH]
        np.testing.assert_allclose(chosen.confidences[part], sure)


def test_other_images_are_not_mistaken_for_the_run_s() -> None:
    images = made(4, 1000)
    spec = load_spec("digits").with_values(splits=SplitSpec(floor=0, val=0.10))
    found, missing = find_images(images, spec, {"fingerprint": "sha256:made"})
    assert missing == ""
    assert found is not None
    labels = images.labels[found.splits.test]
    assert same_images(images, found.splits.test, labels)
    assert not same_images(images, found.splits.test, (labels + 1) % 4)
    assert not same_images(images, found.splits.test, labels[1:])
    assert find_images(images, spec, {"fingerprint": "other"})[0] is None
    assert find_images(images, spec, {}) == (None, "the run has not begun")
