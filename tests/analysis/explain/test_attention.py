"""Attention: gates are described as they are, and held gates change what hangs on them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from analysis.explain.attention import FEWEST_TRIALS, compare_kinds, describe_gate
from analysis.explain.attention_gates import attention_of, gates_of, measure_attention
from analysis.facts.data_facts import Pictured, find_images
from analysis.facts.trials import EpochFacts, TrialFacts
from search.space.spec import load_spec
from trainables.data.image_set import ImageSet
from trainables.data.splits import SplitSpec
from trainables.nets.build import Classifier, empty_model
from trainables.recipe import Recipe
from trainables.records import RunFolder

SIZE = 12
NAMES = {
    "se": ["block 1", "block 2", "block 3"],
    "eca": ["block 1", "block 2", "block 3"],
    "cbam": [f"block {i}, {what}" for i in (1, 2, 3) for what in ("channels", "places")],
    "none": [],
}


def net(attention: str) -> Classifier:
    torch.manual_seed(0)
    recipe = Recipe.from_mapping({"width": 8, "depth": 1, "attention": attention})
    return empty_model(recipe, classes=3, image_size=SIZE).eval()


@pytest.fixture(scope="module")
def pictured() -> Pictured:
    rng = np.random.default_rng(0)
    images = ImageSet(
        name="made", images=rng.integers(0, 256, (400, SIZE, SIZE, 3), dtype=np.uint8),
        labels=np.arange(400, dtype=np.int64) % 3, class_names=("a", "b", "c"),
        fingerprint="sha256:made",
    )  # fmt: skip
    spec = load_spec("digits").with_values(splits=SplitSpec(floor=0, val=0.2, holdout=0.2))
    found, _ = find_images(images, spec, {"fingerprint": "sha256:made"})
    assert found is not None
    return found


@given(st.integers(2, 4), st.integers(0, 1000))
def test_the_spread_is_that_of_an_analysis_of_variance(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, 12)])
    values = rng.random((len(labels), 2)) + 0.3 * labels[:, None]
    found = describe_gate("g", values, labels, classes=classes, side=None)
    for j in range(2):
        groups = [values[labels == k, j] for k in range(classes)]
        within = sum(((g - g.mean()) ** 2).sum() for g in groups) / (len(labels) - classes)
        total = values[:, j].mean()
        across = sum(len(g) * (g.mean() - total) ** 2 for g in groups) / (classes - 1)
        typical = (len(labels) - sum(len(g) ** 2 for g in groups) / len(labels)) / (classes - 1)
        assert found.within[j] == pytest.approx(within**0.5)
        assert found.between[j] == pytest.approx(max((across - within) / typical, 0) ** 0.5)
        np.testing.assert_allclose(found.class_means[:, j], [g.mean() for g in groups])
    assert 0 <= found.share <= 1
    moved = describe_gate("g", values + 5.0, labels, classes=classes, side=None)
    np.testing.assert_allclose(moved.between, found.between, atol=1e-6)


def test_a_gate_of_the_class_alone_lies_all_between() -> None:
    labels = np.repeat([0, 1, 2], 5)
    values = np.array([0.2, 0.5, 0.8])[labels][:, None]
    found = describe_gate("g", values, labels, classes=4, side=None)
    assert found.share == 1.0
    assert found.between[0] == pytest.approx(0.3)
    assert np.isnan(found.class_means[3]).all(), "a class without images"
    same = describe_gate("g", np.full((15, 2), 0.5), labels, classes=3, side=None)
    assert (same.share, same.mean.tolist()) == (0.0, [0.5, 0.5])


def test_few_images_alone_make_no_classes_apart() -> None:
    """Noise without classes: the mean of 200 estimates of the share is near 0, not 1/5."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 5)
    found = describe_gate("g", rng.random((50, 200)), labels, classes=10, side=None)
    raw = found.class_means.var(axis=0, ddof=1).mean()
    assert raw > 0.15 * found.within.mean() ** 2
    assert found.share < 0.08


@pytest.mark.parametrize("kind", sorted(NAMES))
def test_gates_are_found_and_are_what_multiplies(kind: str) -> None:
    model = net(kind)
    modules = gates_of(model)
    assert list(modules) == NAMES[kind]
    if not modules:
        return
    seen: dict[str, torch.Tensor] = {}
    blocks = [model.net.blocks[0].attention]  # type: ignore[union-attr, index]
    part = getattr(blocks[0], "channel", blocks[0])
    part.register_forward_hook(lambda _m, inputs, output: seen.update(x=inputs[0], y=output))
    next(iter(modules.values())).register_forward_hook(lambda _m, _i, out: seen.update(gate=out))
    with torch.no_grad():
        model(torch.rand(2, 3, SIZE, SIZE))
    gate = seen["gate"].reshape(2, -1, 1, 1)
    torch.testing.assert_close(seen["x"] * gate, seen["y"])


@pytest.mark.parametrize("kind", ["se", "eca", "cbam"])
def test_held_gates_change_only_what_hangs_on_them(kind: str, pictured: Pictured) -> None:
    model = net(kind)
    rng = np.random.default_rng(0)
    shown = pictured.images.images[:4]
    found = measure_attention(model, pictured, trial="t", kind=kind, rng=rng, shown=shown)
    assert found.images == len(pictured.splits.val)
    assert found.holdout == len(pictured.splits.holdout)
    assert [gate.name for gate in found.gates] == NAMES[kind]
    assert all(0 <= gate.mean.min() <= gate.mean.max() <= 1 for gate in found.gates)
    assert 0 <= found.changed <= found.holdout
    assert not any(module._forward_hooks for module in model.modules()), "all hooks are gone"
    if kind == "cbam":
        assert found.pixels is not None
        assert [gate.side for gate in found.gates] == [None, 5, None, 2, None, 1]
        assert [gate.name for gate in found.shown] == ["block 1, places", "block 2, places"]
        assert [gate.shown.shape for gate in found.shown if gate.shown is not None] == [
            (4, 5, 5),
            (4, 2, 2),
        ]
    else:
        assert (found.pixels, found.shown) == (None, ())
    # Images that are all alike have gates that are all alike: to hold them changes nothing.
    grey = replace(pictured.images, images=np.full_like(pictured.images.images, 99))
    alike = measure_attention(
        model, Pictured(images=grey, splits=pictured.splits), trial="t", kind=kind, rng=rng
    )
    assert (alike.changed, alike.loss.value) == (0, 0.0)
    assert max(float(gate.within.max()) for gate in alike.gates) < 1e-6


def test_a_net_that_hangs_on_its_gates_changes_its_answers(pictured: Pictured) -> None:
    """Each class has a brightness, and the only gate that matters follows it."""
    bright = np.array([40, 128, 220], np.uint8)[pictured.images.labels]
    pixels = np.broadcast_to(bright[:, None, None, None], pictured.images.images.shape)
    images = replace(pictured.images, images=np.ascontiguousarray(pixels))
    model = net("se")
    gate = gates_of(model)["block 3"]
    # The head reads the gate itself: its map is held at 1, and only what multiplies it differs.
    block = model.net.blocks[2]  # type: ignore[index]
    block.late_pool.register_forward_hook(lambda _m, _i, out: torch.ones_like(out))  # type: ignore[union-attr]
    level: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _m, inputs: level.append(inputs[0].mean((1, 2, 3))))
    gate.register_forward_hook(lambda _m, _i, out: level[-1][:, None, None, None].expand_as(out))
    with torch.no_grad():
        weight = torch.tensor([-3.0, 0.0, 3.0])[:, None].expand(3, 32) / 32
        model.net.head.weight.copy_(weight)  # type: ignore[union-attr, operator]
        model.net.head.bias.copy_(torch.tensor([1.0, 0.0, -2.1]))  # type: ignore[union-attr, operator]
    found = measure_attention(
        model, Pictured(images=images, splits=pictured.splits), trial="t", kind="se",
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert found.gates[2].share == pytest.approx(1.0)
    assert found.loss.value < -0.4
    assert found.loss.distinguishable
    assert found.changed > 0.4 * found.holdout


def test_a_net_that_is_not_there_is_told(pictured: Pictured, tmp_path: object) -> None:
    folder = RunFolder(str(tmp_path))
    found, why = attention_of(
        folder, pictured, trial="t0000", kind="se", rng=np.random.default_rng(0)
    )
    assert found is None
    assert "t0000" in why
    assert str(tmp_path) not in why, "no path of this machine"
    with pytest.raises(ValueError, match="the net has no gates"):
        measure_attention(net("none"), pictured, trial="t", kind="se", rng=np.random.default_rng(0))


def trial(number: int, kind: str, nll: float, *, of: str = "search") -> TrialFacts:
    epoch = EpochFacts(step=2, epoch=2, phase="cooldown", rung=2, train_loss=1.0, val_nll=nll,
                       val_accuracy=0.5, seconds=1.0)  # fmt: skip
    later = replace(epoch, step=5, epoch=6, rung=6, val_nll=nll / 3)
    return TrialFacts(
        trial=f"t{number:04d}", number=number, kind=of, status="completed", reason="",
        recipe={"model": "convnet", "attention": kind}, epochs=(epoch, later)[: 1 + number % 2],
        seconds=1.0, whole_schedule=True, retries=0, params=None,
    )  # fmt: skip


def test_kinds_are_compared_as_welch_does() -> None:
    rng = np.random.default_rng(0)
    values = {"none": 1 + rng.random(5), "se": 0.6 + 2 * rng.random(4), "eca": rng.random(2)}
    trials = [
        trial(number, kind, nll)
        for kind, scores in values.items()
        for number, nll in enumerate(scores)
    ]
    trials.append(trial(90, "se", 99.0, of="seed"))
    found = {kind.kind: kind for kind in compare_kinds(trials)}
    assert list(found) == ["none", "eca", "se"]
    assert {kind.rung for kind in found.values()} == {2}
    slow = ttest_ind(values["se"], values["none"], equal_var=False).confidence_interval()
    assert found["se"].interval is not None
    assert found["se"].interval.low == pytest.approx(slow.low)
    assert found["se"].interval.high == pytest.approx(slow.high)
    assert found["se"].difference == pytest.approx(values["se"].mean() - values["none"].mean())
    assert found["eca"].trials == 2 < FEWEST_TRIALS
    assert found["eca"].interval is None


def test_too_few_trials_are_not_compared() -> None:
    few = [trial(i, kind, 1.0 + i) for i in range(2) for kind in ("none", "se")]
    assert compare_kinds(few) == ()
    assert compare_kinds([]) == ()
    enough = [trial(i, kind, 1.0) for i in range(3) for kind in ("none", "se")]
    (_, se) = compare_kinds(enough)
    assert se.interval is not None
    assert (se.difference, se.interval.low, se.interval.high) == (0.0, 0.0, 0.0)
