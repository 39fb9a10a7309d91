"""The members as teachers."""

from pathlib import Path

import torch

from ensemble.student.students import _without_tta
from ensemble.student.teacher import EnsembleTeacher
from tests.trainables.test_weights import IMAGES, write_trial
from tests.trainables.training.test_loop import EVERYTHING
from trainables.recipe import Numerics, Recipe
from trainables.weights import load_trained


def test_members_teach_without_tta(tmp_path: Path) -> None:
    write_trial(tmp_path, Recipe(**EVERYTHING, tta="mirror_translate"))
    member, scored = _without_tta(tmp_path), load_trained(tmp_path)
    images = torch.from_numpy(IMAGES.images[:9]).permute(0, 3, 1, 2) / 255
    looks: list[int] = []
    member.net.register_forward_hook(lambda *_: looks.append(1))
    answers = EnsembleTeacher([member], [1.0], 1.0, Numerics())(images)
    assert len(looks) == 1
    assert not torch.allclose(answers, torch.log_softmax(scored(images), dim=1), atol=1e-4)
    scored.tta = "none"
    torch.testing.assert_close(answers, torch.log_softmax(scored(images), dim=1))
