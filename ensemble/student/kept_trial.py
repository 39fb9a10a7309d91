"""A trial that becomes the student as it is, where training did not make a better one."""

from dataclasses import dataclass, replace

from common.statistics.metrics import apply_temperature, fit_temperature, nll
from ensemble.deployment.packaging import TrainedStudent
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.nets.classifier import Classifier
from trainables.prediction import place_model, predict_log_probs
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder, read_record, read_start, trained_recipe
from trainables.weights import load_trained


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeptTrial:
    """A finished trial, ready to be packaged."""

    name: str
    model: Classifier
    recipe: Recipe
    seed: int
    train_seconds: float
    """Training time of the trial."""
    val_nll: float
    """In nats, after one temperature fitted on val."""
    as_trained: bool
    """It predicts with the views of its own recipe."""

    def as_student(self, because: str, *, seconds: float = 0.0) -> TrainedStudent:
        """Return the trial as a student that was not taught, and the reason.

        `seconds` were spent on a training that came to nothing.
        """
        return replace(self.as_trial(), steps=0, train_seconds=seconds, untaught_because=because)

    def as_trial(self) -> TrainedStudent:
        """Return the trial as a network that could ship."""
        return TrainedStudent(
            model=self.model,
            recipe=self.recipe,
            seed=self.seed,
            params=sum(parameter.numel() for parameter in self.model.parameters()),
            steps=None,
            train_seconds=self.train_seconds,
        )


def keep_trial(
    folder: RunFolder,
    name: str,
    *,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    tta: str | None = None,
) -> KeptTrial:
    """Load a trial and score it on val, with the views `tta` instead of its own if not None.

    Raises:
        RunError: a file of the trial is missing or damaged.
    """
    place = folder.trial(name)
    start, record = read_start(place / "start.json"), read_record(place / "record.json")
    model = load_trained(place)
    own = model.tta
    model.tta = own if tta is None else tta
    place_model(model, numerics)
    labels = images.labels[splits.val]
    logp = predict_log_probs(model, images.images, numerics, indices=splits.val)
    return KeptTrial(
        name=name,
        model=model,
        recipe=trained_recipe(start, record).with_values(tta=model.tta),
        seed=start.seed,
        train_seconds=record.seconds,
        val_nll=nll(apply_temperature(logp, fit_temperature(logp, labels)), labels),
        as_trained=model.tta == own,
    )
