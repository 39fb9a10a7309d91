"""Wrong configurations are refused before training, and changed data before a resume."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from analysis.terminal.plan_view import plan_view
from common.errors import RunError, SpecError
from common.seeds import numpy_generator
from journal.events import STAGES, RunStarted
from journal.journal import read_events
from quorum import pipeline
from quorum.options import RunOptions
from search.space.sweep_files import spec_from_mapping
from search.timetable.planner import require_suitable
from search.timetable.preview import preview
from tests.command_line import user_error
from tests.events import of_type
from tests.opening import plan_hastily, quick_run
from tests.tiny import TINY
from tests.trainables.training.test_loop import SPLITS, start
from trainables.data.image_set import ImageSet
from trainables.nets.build import empty_model
from trainables.recipe import Recipe
from trainables.weights import save_weights

SIDE = 16
IMAGES = ImageSet(
    name="noise",
    images=numpy_generator(0, "bad input").integers(0, 256, (9, SIDE, SIDE, 3), dtype=np.uint8),
    labels=np.arange(9) % 3,
    class_names=("cat", "dog", "café"),
)


def check(*, student: dict[str, Any] | None = None, **recipe: Any) -> None:
    """Check a recipe as a run does before training; search the values that are mappings."""
    space = {name: value for name, value in recipe.items() if isinstance(value, dict)}
    fixed = {name: value for name, value in recipe.items() if name not in space}
    spec = spec_from_mapping(
        {"name": "x", "recipe": fixed, "space": space, "student": {"recipe": student or {}}}
    )
    require_suitable(spec, IMAGES, stages=STAGES)


def choices(*values: object) -> dict[str, object]:
    return {"type": "categorical", "choices": list(values)}


def test_recipes_that_fit_the_images_pass() -> None:
    check()
    check(cutout={"type": "int", "low": 0, "high": SIDE - 1}, width=choices(1, 64))
    check(model=choices("convnet", "wrn-10-1", "timm:test_resnet"), depth=8, translate=SIDE - 1)
    check(superclass_weight=0.1, superclasses=[["cat", "cafe\u0301"]])


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"cutout": {"type": "int", "low": 0, "high": 16}},
         "^space: cutout 16: cutout must be less than .* 16 px, got 16$"),
        ({"translate": 20}, "^translate must be less than .* 16 px, got 20$"),
        ({"stages": [{"epochs": 2, "values": {"cutout": 17}}, {}]}, "^cutout must be .* got 17$"),
        ({"student": {"cutout": 99}}, "^student: recipe: cutout must be .* got 99$"),
        ({"model": choices("convnet", "timm:test_coatnet")},
         "^space: model 'timm:test_coatnet': model 'test_coatnet' cannot take 16 px images: .*; "
         "set dataset.image_size to 160, or choose another"),
        ({"model": choices("convnet", "wrn-17-2")}, "^space: model 'wrn-17-2': model 'wrn-DEPTH"),
        ({"optimizer": choices("sgd", "adamw"),
          "cutout": {"type": "int", "low": 2, "high": 30, "when": {"optimizer": "adamw"}}},
         "^space: optimizer 'adamw', cutout 30: cutout must be less"),
        ({"superclass_weight": 0.1, "superclasses": [["cat"], ["dgo"]]},
         "superclasses: 'dgo' is not a class .* 'dog'"),
        ({"superclass_weight": {"type": "float", "low": 0.0, "high": 1.0}},
         "^space: superclass_weight 1.0: superclass_weight needs `superclasses`"),
        ({"pretrained": "none.safetensors"}, "^pretrained: none.safetensors cannot be read: No su"),
        ({"pretrained": "hub", "model": "wrn-10-1"}, "pretrained: hub needs a model of timm"),
    ],
)  # fmt: skip
def test_recipes_that_do_not_fit_the_images_are_refused(
    recipe: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        check(**recipe)


def test_initial_weights_must_fit_every_network_of_the_space(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(empty_model(Recipe(width=8), classes=7, image_size=32), path)
    check(pretrained=str(path), width=8, activation=choices("relu", "gelu"))
    with pytest.raises(SpecError, match=r"^space: middle 4: pretrained: .* needs \[32, 8"):
        check(pretrained=str(path), width=8, middle=choices(2, 4))


def test_an_impossible_space_is_reported_in_one_line_and_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {**TINY["space"], "cutout": {"type": "int", "low": 0, "high": 40}}  # type: ignore[dict-item]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**TINY, "space": space}))
    line = user_error(capsys, "sweep", tmp_path / "mine.yaml", "--runs", tmp_path / "runs")
    assert "space: cutout 40" in line
    assert not (tmp_path / "runs").exists()


UNUSUAL_NAMES = (
    "العربية",
    "עברית",
    "漢字",
    "👩\u200d👧",
    "a,b;c",
    "Cat",
    "cat",
    "[bold] $x^$ {0}",
    "w" * 200,
)


def write_pictures(root: Path, names: tuple[str, ...], *, each: int) -> None:
    """Write `each` noise images per class."""
    rng = numpy_generator(0, "pictures")
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(each):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.bmp")


def test_class_names_of_every_script_survive_a_run(tmp_path: Path) -> None:
    write_pictures(tmp_path / "set", (*UNUSUAL_NAMES, "line\nbreak\x1b[31m"), each=120)
    dataset = {"name": "images", "path": str(tmp_path / "set")}
    spec = spec_from_mapping({**TINY, "dataset": dataset, "splits": {}})
    with quick_run(tmp_path / "run", spec):
        pass
    (started,) = of_type(read_events(tmp_path / "run" / "journal.jsonl"), RunStarted)
    assert sorted(started.class_names) == sorted((*UNUSUAL_NAMES, "line break [31m"))
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(plan_view(preview(spec, planner=plan_hastily)))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(name[:60] in shown for name in UNUSUAL_NAMES)
    assert "\x1b" not in shown


def test_a_run_whose_images_or_weights_have_changed_is_not_resumed(tmp_path: Path) -> None:
    root, weights = tmp_path / "set", tmp_path / "weights.safetensors"
    write_pictures(root, ("a", "b"), each=90)
    net = empty_model(Recipe(width=8), classes=2, image_size=8)
    save_weights(net, weights)
    recipe = {"batch_size": 64, "width": 8, "pretrained": str(weights)}
    changes = {"dataset": {"name": "images", "path": str(root)}, "splits": {}, "space": {}}
    spec = spec_from_mapping({**TINY, **changes, "recipe": recipe})

    def resume() -> None:
        with quick_run(tmp_path / "run", spec, resume=True):
            pass

    with quick_run(tmp_path / "run", spec) as run:
        folder = run.folder
    resume()
    changed = root / "a" / "3.bmp"
    before = changed.read_bytes()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(changed)
    with pytest.raises(RunError, match=r"the images have changed, .*; restore"):
        resume()
    with pytest.raises(RunError, match="the images have changed"):
        pipeline.distill(folder, RunOptions(mirror=False))
    changed.write_bytes(before)
    resume()
    save_weights(empty_model(Recipe(width=8), classes=3, image_size=8), weights)
    with pytest.raises(RunError, match=r"the weights in .* have changed"):
        resume()
    weights.unlink()
    with pytest.raises(RunError, match=r"the weights in .* are missing"):
        resume()
    folder.selection.touch()  # only the student is missing, which needs no initial weights
    resume()


def test_a_batch_larger_than_the_set_trains_like_the_whole_set() -> None:
    """SGD's learning rate grows with the batch that is used, not the one in the recipe."""
    whole, larger = (
        next(start(Recipe(width=3, epochs=4, batch_size=size), rungs=(4,)).reports())
        for size in (len(SPLITS.train), 100_000)
    )
    assert (larger.lr, larger.train_loss) == (whole.lr, whole.train_loss)


def test_stages_longer_than_the_schedule_are_refused_by_a_dry_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "rungs: [2, 4]\nrecipe: {stages: [{epochs: 6, train: head}, {}]}\n"
    (tmp_path / "mine.yaml").write_text(text)
    line = user_error(capsys, "run", tmp_path / "mine.yaml", "--dry-run")
    assert "6 epochs" in line
    assert "4" in line
