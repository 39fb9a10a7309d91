"""Training: resumed equals uninterrupted, bitwise; reports hold the scored network's scores."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import DivergedError, RunError, SpecError
from common.statistics.metrics import accuracy, apply_temperature, nll
from quorum.testing.trainers import striped_images
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.splits import Splits, SplitSpec, make_splits
from trainables.recipe import Numerics, Recipe
from trainables.stages import Stage
from trainables.trainer import EpochReport
from trainables.training.checkpoint import load_checkpoint, save_checkpoint
from trainables.training.depthwise_gradients import depthwise_gradients
from trainables.training.loop import Training
from trainables.training.losses import Distillation

SIZE, CLASSES = 8, 3
RUNGS = (1, 2, 4)
EVERYTHING: dict[str, Any] = {
    "width": 3, "depth": 3, "attention": "se", "dropout": 0.3, "epochs": 4, "batch_size": 16,
    "flip": True, "translate": 1, "cutout": 2, "mixup_alpha": 0.4, "cutmix_alpha": 1.0,
    "label_smoothing": 0.1, "cooldown_fraction": 0.5, "whitening_epochs": 2,
}  # fmt: skip
STAGES = (
    Stage(epochs=1, train="head", values={"augment": "none"}),
    Stage(lr_scale=0.1, layer_decay=0.7, values={"mixup_alpha": 0.0}),
)
AUXILIARY: dict[str, Any] = {
    "rotation_weight": 0.5, "superclass_weight": 0.5, "superclasses": (("a",),),
}  # fmt: skip
DISTILLATION = Distillation(alpha=0.7, tau=3.0)


IMAGES, SPLITS = striped_images()


@pytest.fixture(autouse=True)
def _threads_restored() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def start(recipe: Recipe | None = None, **changes: Any) -> Training:
    recipe = recipe or Recipe(**EVERYTHING)
    options: dict[str, Any] = {
        "rungs": RUNGS, "seed": 5, "numerics": Numerics(), "images": IMAGES, "splits": SPLITS,
        **changes,
    }  # fmt: skip
    return Training(recipe, **options)


def final_tensors(training: Training, folder: Path) -> dict[str, Tensor]:
    training.save(folder)
    return load_checkpoint(folder)[0]


def without_clock(report: EpochReport) -> tuple[Any, ...]:
    clock = {"seconds", "images_per_second", "peak_memory_bytes"}
    return tuple(getattr(report, n) for n in EpochReport.__slots__ if n not in clock)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adamw", "lookahead": 3, "bias_lr_scale": 4.0},
        {"optimizer": "muon", "alternating_flip": True, "tta": "mirror"},
        {"ema_decay": 0.0, "momentum": 0.0, "block": "plain", "batch_size": 100},
        {"stages": STAGES, "optimizer": "adamw", **AUXILIARY},
        {"lookahead": 2, "lookahead_decay": 0.9},
        {"optimizer": "muon_sgd", "lr_per_1024": 0.5, "bias_lr_scale": 4.0},
        {"optimizer": "timm:lion", "accumulation": 3, "clip_grad_norm": 0.5, "lookahead": 3},
        {"optimizer": "timm:adan", "sam_rho": 0.05, "accumulation": 2, "ema_every": 3},
        pytest.param({"model": "timm:test_resnet", "optimizer": "adamw"}, marks=pytest.mark.slow),
    ],
    ids=[
        "sgd",
        "adamw",
        "muon",
        "no-average",
        "stages",
        "lookahead",
        "muon_sgd",
        "lion",
        "adan",
        "timm",
    ],
)
def test_resumed_at_any_step_equals_uninterrupted(changes: dict[str, Any], tmp_path: Path) -> None:
    recipe = Recipe(**{**EVERYTHING, **changes})
    whole = start(recipe)
    reports, folders = [], [tmp_path / "at0"]
    whole.save(folders[0])
    for report in whole.reports():
        reports.append(without_clock(report))
        folders.append(tmp_path / f"at{report.step}")
        whole.save(folders[-1])
    expected = final_tensors(whole, tmp_path / "whole")
    logp = whole.log_probs(SPLITS.holdout)
    assert len(reports) == len(whole.plans) == 1 + 2 + 3
    for step, folder in enumerate(folders):
        resumed = start(recipe)
        resumed.load(folder)
        assert resumed.step == step
        assert [without_clock(r) for r in resumed.reports()] == reports[step:]
        tensors = final_tensors(resumed, tmp_path / "resumed")
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in expected), step
        np.testing.assert_array_equal(resumed.log_probs(SPLITS.holdout), logp)


def test_a_training_in_float16_resumes_with_the_scale_of_its_loss(tmp_path: Path) -> None:
    options: dict[str, Any] = {"numerics": Numerics(dtype="float16"), "rungs": (1, 3)}
    recipe = Recipe(**{**EVERYTHING, "epochs": 3})
    whole = start(recipe, **options)
    reports = []
    for report in whole.reports():
        reports.append(without_clock(report))
        whole.save(tmp_path / f"{report.step}")
    expected = final_tensors(whole, tmp_path / "whole")
    taken = expected["now.scaler.growth_tracker"]
    assert 0 < taken <= whole.batches * (1 + 3)
    in_float32 = [report.train_loss for report in start(recipe, rungs=(1, 3)).reports()]
    assert reports[-1][4] == pytest.approx(in_float32[-1], rel=0.05)
    for step in (1, 2, 3):
        resumed = start(recipe, **options)
        resumed.load(tmp_path / f"{step}")
        assert [without_clock(report) for report in resumed.reports()] == reports[step:]
        tensors = final_tensors(resumed, tmp_path / "resumed")
        assert all(torch.equal(tensors[name], expected[name]) for name in expected), step


def test_reports_follow_the_plan_and_hold_the_scores_of_the_scored_network() -> None:
    training = start()
    labels = IMAGES.labels[SPLITS.val]
    for report, plan in zip(training.reports(), training.plans, strict=True):
        for name in ("step", "epoch", "phase", "rung"):
            assert getattr(report, name) == getattr(plan, name)
        logp = training.log_probs(SPLITS.val)
        assert report.val_accuracy == accuracy(logp, labels)
        expected = nll(apply_temperature(logp, report.temperature), labels)
        assert report.val_nll == pytest.approx(expected, abs=1e-6)
        assert report.seconds > 0
        assert report.images_per_second > 0
        assert report.peak_memory_bytes > 10**7
        assert training.step == report.step
    assert training.finished
    assert list(training.reports()) == []


def test_the_trunk_continues_as_if_there_had_been_no_branch(tmp_path: Path) -> None:
    """The first rung equals a training that ends there, and the next one starts from its trunk."""
    alone = start(Recipe(**{**EVERYTHING, "epochs": 2}), rungs=(2,))
    among = start(rungs=(2, 4))
    first = [without_clock(report) for report in alone.reports()]
    reports = among.reports()
    assert [without_clock(next(reports)) for _ in range(2)] == first
    tensors = final_tensors(among, tmp_path)
    assert tensors["trunk.model.net.blocks.0.norms.0.num_batches_tracked"] == 2  # one epoch
    again = start(rungs=(2, 4))
    again.load(tmp_path)
    continued = [without_clock(report) for report in reports]
    assert [report[1] for report in continued] == [2, 3, 4]
    assert [without_clock(report) for report in again.reports()] == continued


@pytest.mark.parametrize(
    ("before", "after", "steps"), [((6,), (5,), 2), ((6,), (4,), 2), ((2, 6), (2, 5), 3)]
)
def test_a_schedule_shortened_before_its_last_cooldown_equals_one_of_that_length(
    before: tuple[int, ...], after: tuple[int, ...], steps: int, tmp_path: Path
) -> None:
    def of(rungs: tuple[int, ...]) -> Training:
        return start(Recipe(**{**EVERYTHING, "epochs": rungs[-1]}), rungs=rungs)

    whole = of(after)
    expected = [without_clock(report) for report in whole.reports()]
    begun = of(before)
    reports = begun.reports()
    found = [without_clock(next(reports)) for _ in range(steps)]
    begun.save(tmp_path / "begun")
    shortened = of(after)
    shortened.load(tmp_path / "begun")
    found += [without_clock(report) for report in shortened.reports()]
    assert found == expected
    last = final_tensors(shortened, tmp_path / "shortened")
    assert all(
        torch.equal(tensor, last[name])
        for name, tensor in final_tensors(whole, tmp_path / "whole").items()
    )


def test_a_checkpoint_from_the_last_cooldown_belongs_to_one_schedule(tmp_path: Path) -> None:
    training = start(Recipe(**{**EVERYTHING, "epochs": 6}), rungs=(6,))
    reports = training.reports()
    while next(reports).phase == "trunk":
        pass
    training.save(tmp_path)
    other = start(Recipe(**{**EVERYTHING, "epochs": 8}), rungs=(8,))
    with pytest.raises(RunError, match="another training"):
        other.load(tmp_path)


def mirrored(training: Training) -> Iterator[tuple[int, Tensor]]:
    """Yield each epoch of the schedule and a mask of the training images that it mirrored."""
    originals = torch.from_numpy(IMAGES.images[SPLITS.train]).permute(0, 3, 1, 2) / 255
    seen: list[Tensor] = []
    training.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for report in training.reports():
        shown = torch.cat(seen)
        as_is, turned = (
            (shown[:, None] == images).all(dim=(2, 3, 4)).any(dim=0)
            for images in (originals, originals.flip(3))
        )
        assert torch.equal(as_is, ~turned), "every image once"
        yield report.epoch, turned
        seen.clear()


def test_flips_alternate_from_epoch_to_epoch_across_branches() -> None:
    recipe = Recipe(width=3, epochs=4, batch_size=22, translate=0, alternating_flip=True)
    drawn = []
    for seed in (5, 5, 6):
        epochs = list(mirrored(start(recipe, seed=seed)))
        assert len(epochs) == 6
        first = [turned ^ (epoch % 2 == 0) for epoch, turned in epochs]
        assert all(torch.equal(turned, first[0]) for turned in first)
        drawn.append(first[0])
    assert 0 < drawn[0].sum() < 44
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_training_does_not_change_the_global_generator() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    for _ in start().reports():
        assert torch.equal(torch.random.get_rng_state(), before)


def test_the_error_for_divergence_names_loss_and_epoch() -> None:
    recipe = Recipe(**{**EVERYTHING, "lr_per_1024": 1000.0, "batch_size": 4, "weight_decay": 10.0})
    with pytest.raises(DivergedError, match=r"the training loss became (nan|inf) in epoch \d"):
        list(start(recipe, rungs=(4,)).reports())


@pytest.mark.parametrize(
    ("recipe_changes", "changes", "message"),
    [
        ({"width": 4}, {}, "recipe width is 3 in the checkpoint and 4 here"),
        ({}, {"seed": 6}, "seed is 5 in the checkpoint and 6 here"),
        ({}, {"rungs": (2, 4)}, r"rungs is \[1, 2, 4\] in the checkpoint and \[2, 4\] here"),
        ({}, {"splits": "two"}, "split_id is 'stripes' in the checkpoint and 'two' here"),
        ({}, {"distillation": DISTILLATION}, "distillation is None in the checkpoint"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    recipe_changes: dict[str, Any], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    training = start()
    next(training.reports())
    training.save(tmp_path / "c")
    if "splits" in changes:
        parts = {name: getattr(SPLITS, name) for name in ("train", "val", "holdout", "test")}
        changes = {"splits": Splits(**parts, split_id=changes["splits"])}
    if "distillation" in changes:
        changes = {**changes, "teacher": lambda images: images.mean(dim=(2, 3))}
    other = start(Recipe(**{**EVERYTHING, **recipe_changes}), **changes)
    with pytest.raises(RunError, match=message):
        other.load(tmp_path / "c")


def test_a_checkpoint_without_a_newer_recipe_value_is_resumed(tmp_path: Path) -> None:
    training = start()
    next(training.reports())
    training.save(tmp_path / "now")
    tensors, state = load_checkpoint(tmp_path / "now")
    del state["training"]["recipe"]["augment"]
    save_checkpoint(tmp_path / "then", tensors, state)
    continued = start()
    continued.load(tmp_path / "then")
    assert continued.step == 1


def test_a_training_may_change_its_length_before_the_first_cooldown(tmp_path: Path) -> None:
    long = start(Recipe(**{**EVERYTHING, "epochs": 7}), rungs=(7,))
    reports = long.reports()
    for _ in range(2):
        next(reports)
    long.save(tmp_path / "c")
    short = Recipe(**{**EVERYTHING, "epochs": 4})
    continued = start(short, rungs=(4,))
    continued.load(tmp_path / "c")
    whole = start(short, rungs=(4,))
    for training in (continued, whole):
        list(training.reports())
    folders = [tmp_path / name for name in ("continued", "whole")]
    ends = [final_tensors(t, f) for t, f in zip((continued, whole), folders, strict=True)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[1])

    next(reports)
    for _ in range(2):
        next(reports)
    long.save(tmp_path / "late")
    with pytest.raises(RunError, match="recipe epochs is 7 in the checkpoint and 4 here"):
        start(short, rungs=(4,)).load(tmp_path / "late")


def test_a_torn_checkpoint_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    start().save(tmp_path / "c")
    path = tmp_path / "c" / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    training = start()
    before = final_tensors(training, tmp_path / "before")
    with pytest.raises(RunError, match="does not match its checksum"):
        training.load(tmp_path / "c")
    after = final_tensors(training, tmp_path / "after")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_last_incomplete_batch_is_dropped_unless_it_is_the_only_one() -> None:
    seen: list[int] = []

    def teacher(images: Tensor) -> Tensor:
        seen.append(len(images))
        return torch.log_softmax(images.mean(dim=(2, 3)), dim=1)

    for size, expected in ((21, [21, 21]), (44, [44]), (100, [44])):
        seen.clear()
        recipe = Recipe(**{**EVERYTHING, "batch_size": size})
        next(start(recipe, teacher=teacher, distillation=DISTILLATION).reports())
        assert seen == expected


def test_the_teacher_receives_the_same_batch_as_the_student() -> None:
    """The loss is 0 if the teacher has the student's weights and alpha is 1."""
    student: list[Training] = []
    student.append(
        start(
            Recipe(**{**EVERYTHING, "dropout": 0.0, "lr_per_1024": 0.0}),
            teacher=lambda images: torch.log_softmax(student[0].model(images), dim=1),
            distillation=Distillation(alpha=1.0, tau=2.0),
        )
    )
    assert next(student[0].reports()).train_loss == pytest.approx(0, abs=1e-5)


def test_a_distillation_without_a_teacher_is_refused() -> None:
    with pytest.raises(SpecError, match="must be given together"):
        start(distillation=DISTILLATION)


def test_a_cutout_as_large_as_the_image_is_refused_before_the_first_epoch() -> None:
    with pytest.raises(SpecError, match=r"cutout must be less than .* 8 px, got 8"):
        start(Recipe(**{**EVERYTHING, "cutout": 8}))


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(SpecError, match="batch_size must be at least 2"):
        start(Recipe(**{**EVERYTHING, "batch_size": 1}))


def test_numerics_set_the_thread_count() -> None:
    start(numerics=Numerics(threads=2))
    assert torch.get_num_threads() == 2


def test_a_checkpoint_is_plain_json_and_tensors(tmp_path: Path) -> None:
    training = start()
    next(training.reports())
    training.save(tmp_path / "c")
    header = json.loads((tmp_path / "c" / "state.json").read_text())
    assert header["state"]["step"] == 1
    assert header["state"]["training"]["recipe"] == Recipe(**EVERYTHING).to_mapping()
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [
        "state.json",
        "tensors.safetensors",
    ]


@pytest.mark.slow
def test_the_default_recipe_learns_digits() -> None:
    images = load_dataset(DatasetSpec(name="digits"))
    splits = make_splits(images, SplitSpec(counts=(400, 400, 400)))
    recipe = Recipe(batch_size=64, flip=False)
    training = Training(
        recipe, rungs=(27,), seed=0, numerics=Numerics(), images=images, splits=splits
    )
    reports = list(training.reports())
    assert reports[-1].val_accuracy >= 0.9
    assert reports[-1].val_nll < reports[8].val_nll < math.log(10) / 4


def test_a_step_with_our_gradients_of_depthwise_kernels_equals_one_with_torchs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = Recipe(
        model="timm:tf_efficientnet_lite0", input_size=32, optimizer="sgd", epochs=1, batch_size=16
    )
    ours, weights = set(), {}
    for capability in ("AVX2", "AVX512"):
        monkeypatch.setattr(
            torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability
        )
        training = start(recipe, rungs=(1,))
        with depthwise_gradients(Numerics()) as context:
            ours.add(context is not None)
        list(training.reports())
        weights[capability] = final_tensors(training, tmp_path / capability)
    assert ours == {True, False}
    for name, value in weights["AVX2"].items():
        torch.testing.assert_close(value, weights["AVX512"][name], rtol=1e-2, atol=1e-3)
