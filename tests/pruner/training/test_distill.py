"""Learning from the dense network: its logits are right, found once, and kept whatever happens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.mobilenetv2 import MobileNetV2

from processes import Invoke
from pruner.data.batches import normalized, resized_as_pil
from pruner.data.datasets import Dataset
from pruner.errors import InputError
from pruner.train import Training
from pruner.training.distill import Teacher, distillation_loss, logits_by_chunk
from pruner.training.fine_tune import fine_tune
from records import figures, status
from studies import Finished, WriteStudy


def test_the_loss_pulls_towards_the_teachers_softened_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    wanted = 7.5 * torch.randn(6, 10, generator=generator)
    outputs = torch.randn(6, 10, generator=generator, requires_grad=True)
    for temperature in (1.0, 4.0, 8.0):
        loss = distillation_loss(outputs, wanted, temperature)
        (gradient,) = torch.autograd.grad(loss, outputs)
        softened = (outputs / temperature).softmax(1) - (wanted / temperature).softmax(1)
        assert torch.allclose(gradient, softened / 6, atol=1e-6)
        assert float(distillation_loss(wanted, wanted, temperature)) == pytest.approx(0.0, abs=1e-6)
        assert float(loss.detach()) > 0


def test_logits_are_the_networks_of_images_and_their_mirror_images(dense: MobileNetV2, data: Dataset) -> None:
    split = data.train.first(50)
    chunks = list(logits_by_chunk(dense, split, resolution=32, mirrors=True, start=10, chunk=16))
    assert [len(chunk) for chunk in chunks] == [16, 16, 8]
    with torch.inference_mode():
        wanted = [dense(normalized(resized_as_pil(images, 32))) for images in (split.images, split.images.flip(-1))]
    found = torch.cat(chunks)
    for side in (0, 1):
        assert torch.allclose(found[:, side], wanted[side][10:], atol=1e-5)
    teacher = Teacher(found)
    which, mirrored = torch.tensor([3, 0, 3]), torch.tensor([True, False, False])
    assert torch.equal(teacher.of(which, mirrored), torch.stack([found[3, 1], found[0, 0], found[3, 0]]))


def test_without_logits_there_is_no_learning_from_them(dense: MobileNetV2, data: Dataset) -> None:
    with pytest.raises(InputError, match="distill_temperature"):
        next(fine_tune(dense, data.train, Training(distill_temperature=4.0), mirrors=False))


@pytest.mark.slow
def test_a_study_learns_from_logits_that_were_found_once(
    invoke: Invoke,
    write_study: WriteStudy,
    finished: Finished,
    data: Dataset,
    tmp_path: Path,
) -> None:
    phases = """
trials = 2
[train]
distill_temperature = 4.0
ema_decay = 0.9
bn_recalibration_images = 64
[[train.phases]]
resolution = 32
images_per_epoch = 64
[[train.phases]]
resolution = 40
lr_scale = 0.5
images_per_epoch = 96
"""
    study = write_study(phases, without=["train.epochs", "train.images_per_epoch"])
    options = ("--dense", next((finished[1] / "dense").glob("*.pth")))
    invoke("run", study, "--runs", tmp_path / "a", *options)
    (file,) = (tmp_path / "a/dense").glob("logits-*.npy")
    logits = np.load(file)
    assert logits.shape == (len(data.train), 1, 10)
    history = json.loads((tmp_path / "a/tiny/trials/0000/measurement.json").read_text())["history"]
    assert len(history) == 2

    # What a process that was killed in the middle leaves: some rows, and a piece of one.
    (tmp_path / "b/dense").mkdir(parents=True)
    partial = tmp_path / "b/dense" / f"{file.stem}.partial"
    partial.write_bytes(logits.tobytes()[: 40 * 700 + 13])
    invoke("run", study, "--runs", tmp_path / "b", *options)
    assert np.allclose(np.load(tmp_path / "b/dense" / file.name), logits, atol=1e-5)
    assert not partial.exists()
    one, other = (figures(status(invoke, study, tmp_path / name)) for name in ("a", "b"))
    assert [row["widths"] for row in one] == [row["widths"] for row in other]
