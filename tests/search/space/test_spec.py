"""The specification of a sweep is strict, and the same after a round trip."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from common.errors import RunError, SpecError
from common.parsing import to_mapping
from search.space.sections import SelectionSpec
from search.space.spec import NOT_INHERITED, SweepSpec
from search.space.sweep_files import load_spec, shipped_names, spec_from_mapping, spec_of_run
from trainables.recipe import Recipe
from trainables.records import RunFolder


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_sweep_gives_an_ensemble_enough_to_choose_from(name: str) -> None:
    """Check that a trial finishes for each member, and that the pool is three times as large.

    One trial in `reduction_factor` goes on at each rung. The pool holds those scored at the last
    rung or the one before.
    """
    spec = load_spec(name)
    if spec.deliver == "single":
        return
    finished = spec.trial_count / spec.reduction_factor ** (len(spec.rungs) - 1)
    pool = finished * spec.reduction_factor if len(spec.rungs) > 1 else finished
    assert finished >= spec.members
    assert pool >= 3 * spec.members
    assert not spec.warnings


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_sweeps_load_and_survive_a_round_trip(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name
    assert spec_from_mapping(yaml.safe_load(spec.to_yaml())) == spec
    assert spec.student_recipe().schedule.epochs >= 1


def test_a_run_remembers_its_specification(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(load_spec("digits").to_yaml())
    assert spec_of_run(RunFolder(tmp_path)) == load_spec("digits")
    with pytest.raises(RunError, match=r"no run at .*sweep\.yaml"):
        spec_of_run(RunFolder(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"trails": 3}, r"unknown key 'trails'; did you mean 'trials'\?"),
        ({"recipe": {"widht": 3}}, r"unknown key 'widht'; did you mean 'width'\?"),
        ({"recipe": {"width": 0}}, r"width must lie in \[1, 4096\], got 0"),
        ({"recipe": {"block": "plian"}}, r"'plian' is not a choice; did you mean 'plain'\?"),
        ({"space": {"widht": {"type": "int", "low": 1, "high": 2}}}, "did you mean 'width'"),
        ({"space": {"width": {"type": "int", "low": 9, "high": 2}}}, "9"),
        ({"recipe": {"width": 8}, "space": {"width": {}}}, "both in recipe and in space"),
        ({"recipe": {"epochs": 8}}, "epochs is the last of `rungs`"),
        ({"student": {"recipe": {"widht": 8}}}, "did you mean 'width'"),
        ({"trials": 0}, "trials must be at least 1, got 0"),
        ({"trials": "many"}, "trials: expected a whole number, got 'many'"),
        ({"trials": True}, "expected a whole number, got True"),
        ({"rungs": [9, 3]}, r"rungs must be rising epoch counts, got \[9, 3\]"),
        ({"rungs": []}, "rungs must be rising"),
        (
            {"rungs": [2, 4], "recipe": {"stages": [{"epochs": 4}, {}]}},
            "before the last take 4 epochs and the whole schedule has 4; raise rungs, or shorten",
        ),
        (
            {"student": {"recipe": {"stages": [{"epochs": 4}, {}], "epochs": 3}}},
            "the whole schedule has 3; raise student: recipe: epochs, or shorten stages",
        ),
        ({"reduction_factor": 1}, "at least 2, got 1"),
        ({"members": 0}, "members must be at least 1"),
        ({"concurrent": 0}, "concurrent must be at least 1"),
        ({"robustness": {"images": 59}}, "images must be at least 60.*got 59.*enabled: false"),
        ({"robustness": {"coverage": 1.0}}, "coverage must lie in"),
        ({"robustness": {"on": False}}, "unknown key 'on'"),
        ({"splits": {"counts": [1, 2]}}, "expected 3 values"),
        ({"splits": 3}, "expected a mapping"),
        ([], "expected a mapping"),
        ("text", "expected a mapping"),
        (None, "expected a mapping"),
    ],
)
def test_an_error_names_the_mistake(mapping: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec_from_mapping(mapping)


def test_the_student_does_not_inherit_weights_stages_and_auxiliary_tasks() -> None:
    own = {
        "pretrained": "backbone.safetensors",
        "drop_path": 0.1,
        "layer_decay": 0.9,
        "stages": [{"epochs": 2, "train": "head"}, {"lr_scale": 0.1}],
        "rotation_weight": 0.1,
        "superclass_weight": 0.2,
        "superclasses": [["cat", "dog"]],
    }
    assert own.keys() == set(NOT_INHERITED)
    recipe = {**own, "model": "timm:resnet18", "width": 8}
    spec = spec_from_mapping({"recipe": recipe, "student": {"recipe": {"rotation_weight": 0.3}}})
    base, student = spec.base_recipe(), spec.student_recipe()
    assert base.architecture.pretrained == "backbone.safetensors"
    assert (student.architecture.model, student.architecture.width) == ("timm:resnet18", 8)
    assert student.schedule.epochs == base.schedule.epochs
    assert student == Recipe(model="timm:resnet18", width=8, epochs=27, rotation_weight=0.3)
    taught = spec.with_values(
        student=replace(spec.student, recipe={**spec.student.recipe, "stages": own["stages"]})
    )
    assert taught.student_recipe().schedule.stages == base.schedule.stages


def test_broken_yaml_names_file_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("trials: 3\nspace: {width: [1, 2\n")
    with pytest.raises(SpecError, match=r"broken\.yaml, line \d+, column \d+: "):
        load_spec(path)


def test_an_unknown_sweep_lists_the_shipped_ones() -> None:
    with pytest.raises(SpecError, match=r"no sweep 'digit'.*digits"):
        load_spec("digit")


def test_the_default_name_is_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("trials: 3\n")
    assert load_spec(tmp_path / "mine.yaml") == SweepSpec(name="mine", trials=3)


class TestStudentFromTheBestTrial:
    SPEC = spec_from_mapping(
        {
            "recipe": {"batch_size": 64},
            "families": {
                "tuned": {"recipe": {"model": "timm:resnet18", "adamw_lr": 1e-3}},
                "head": {"recipe": {"model": "timm:resnet18", "stages": [{"train": "head"}]}},
            },
            "student": {"start": "best_single", "tuning": {"mixup_alpha": 0.2}},
        }
    )

    def test_it_keeps_the_values_that_the_search_found(self) -> None:
        best = self.SPEC.family_recipes()["tuned"].with_values(adamw_lr=3e-3, train_share=0.5)
        student = self.SPEC.tuned_student_recipe(best)
        assert student.optimizer.adamw_lr == 3e-3
        assert student.augmentation.mixup_alpha == 0.2
        assert student.schedule.train_share == 1.0

    def test_a_trial_that_trained_only_its_head_gives_the_network_and_nothing_else(self) -> None:
        best = self.SPEC.family_recipes()["head"].with_values(adamw_lr=9e-3, input_size=96)
        student = self.SPEC.tuned_student_recipe(best)
        assert student.optimizer.adamw_lr == 1e-3
        assert student.schedule.stages == ()
        assert student.architecture.input_size == 96

    @pytest.mark.parametrize("name", ["images", "cifar10"])
    def test_a_network_from_scratch_keeps_the_learning_rates_that_the_search_found(
        self, name: str
    ) -> None:
        """Those under `tuning` are for pretrained weights."""
        spec = load_spec(name, profile="cpu")
        tuning = {"adamw_lr": 1e-5, "muon_lr": 1e-5, "lr_per_1024": 1e-5, "mixup_alpha": 0.3}
        spec = spec.with_values(student=replace(spec.student, tuning=tuning))
        for family, recipe in spec.family_recipes().items():
            best = recipe.with_values(adamw_lr=0.003, muon_lr=0.03, lr_per_1024=3.0)
            student = spec.tuned_student_recipe(best)
            kept = student.optimizer.name == best.optimizer.name and (
                student.optimizer.peak_lr == best.optimizer.peak_lr
            )
            assert kept is (family == "scratch")
            assert student.augmentation.mixup_alpha == 0.3
            assert student.architecture == best.architecture

    def test_a_head_trained_from_scratch_leaves_the_values_of_its_family(self) -> None:
        spec = spec_from_mapping(
            {
                "families": {
                    "tuned": {"recipe": {"model": "timm:resnet18", "pretrained": "hub",
                                         "optimizer": "adamw"}},
                    "scratch": {"recipe": {"batch_size": 96, "stages": [
                        {"epochs": 1}, {"train": "head"}]}},
                },
                "student": {"start": "best_single", "tuning": {"optimizer": "adamw"}},
            }
        )  # fmt: skip
        best = spec.family_recipes()["scratch"].with_values(batch_size=32)
        student = spec.tuned_student_recipe(best)
        assert (student.optimizer.name, student.optimizer.batch_size) == ("sgd", 96)
        assert student.schedule.stages == ()


@pytest.mark.parametrize(
    ("values", "crops"),
    [
        ({}, False),
        ({"recipe": {"crop_scale": 1.0}}, False),
        ({"recipe": {"crop_scale": 0.5}}, True),
        ({"recipe": {"stages": [{"epochs": 1, "values": {"crop_scale": 0.5}}, {}]}}, True),
        ({"space": {"crop_scale": {"type": "float", "low": 0.3, "high": 1.0}}}, True),
        ({"space": {"crop_scale": {"type": "categorical", "choices": [1.0, 0.25]}}}, True),
        ({"student": {"recipe": {"crop_scale": 0.5}}}, True),
        ({"families": {"a": {"recipe": {"crop_scale": 0.5}}, "b": {}}}, True),
        ({"families": {"a": {"recipe": {"width": 8}}, "b": {}}}, False),
    ],
)
def test_a_sweep_crops_if_any_recipe_of_it_may(values: dict[str, object], crops: bool) -> None:
    assert spec_from_mapping({"name": "t", **values}).crops is crops


def test_photographs_are_cropped_and_digits_are_not() -> None:
    assert load_spec("images").crops
    assert not load_spec("digits").crops


def test_a_sweep_that_extends_another_overrides_its_values_for_a_device(tmp_path: Path) -> None:
    """Also those that the other has in its profiles."""
    base = {
        "trials": 3,
        "recipe": {"width": 8},
        "profiles": {"gpu": {"trials": 30, "recipe": {"width": 16, "depth": 3}}},
    }
    own = {
        "extends": "base.yaml",
        "recipe": {"width": 24},
        "profiles": {"cpu": {"recipe": {"depth": 2}}, "gpu": {"seed": 5}},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    cpu, gpu = (load_spec(tmp_path / "own.yaml", profile=p) for p in ("cpu", "gpu"))
    assert (cpu.trials, cpu.recipe, cpu.seed) == (3, {"width": 24, "depth": 2}, 0)
    assert (gpu.trials, gpu.recipe, gpu.seed) == (30, {"width": 24, "depth": 3}, 5)


def test_the_ensembles_that_may_be_chosen_are_part_of_a_sweep(tmp_path: Path) -> None:
    values = {"source": "search", "weighting": "learned", "diversity": 1.0}
    spec = spec_from_mapping({"selection": values})
    assert to_mapping(spec.selection) == values
    assert spec_from_mapping({}).selection == SelectionSpec()
    for mapping, message in [
        ({"selection": {"source": "trials"}}, "source"),
        ({"selection": {"diversity": -1}}, "0 or more; got -1"),
        ({"selection": {"weights": "learned"}}, "did you mean 'weighting'"),
        ({"deliver": "single", "selection": {"source": "seeds"}}, "trains no seeds"),
    ]:
        with pytest.raises(SpecError, match=message):
            spec_from_mapping(mapping)
