from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional

from flowers.cli import training
from flowers.data import FlowersDataModule
from flowers.tasks import CNNTask

NAMES = ["daisy", "dandelion", "roses", "sunflowers", "tulips"]


def task(**options) -> CNNTask:
    return CNNTask(NAMES, **({"widths": (8, 16)} | options))


def trainer(tmp_path) -> Trainer:
    return Trainer(
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        max_epochs=1,
        use_distributed_sampler=False,
    )


@pytest.fixture
def data(synthetic):
    return FlowersDataModule(str(synthetic), image_size=32, crop_size=24, batch_size=32)


def test_validation_metrics_are_those_of_scikit_learn(data, tmp_path):
    from sklearn.metrics import accuracy_score, f1_score

    net = task().eval()
    [metrics] = trainer(tmp_path).validate(net, data, verbose=False)
    labels = []
    logits = []
    with torch.no_grad():
        for batch in data.val_dataloader():
            logits.append(net(batch.images / 255))
            labels.append(batch.targets)
    labels = torch.cat(labels)
    logits = torch.cat(logits)
    assert metrics["val/acc"] == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert metrics["val/f1"] == pytest.approx(f1_score(labels, logits.argmax(1), average="macro"))
    assert metrics["val/loss"] == pytest.approx(
        float(functional.cross_entropy(logits, labels)), abs=1e-5
    )


def test_test_metrics_do_not_depend_on_the_batch_size(synthetic, tmp_path):
    net = task().eval()
    results = []
    for batch_size in (1, 4, 64):
        data = FlowersDataModule(str(synthetic), image_size=32, crop_size=24, batch_size=batch_size)
        results += trainer(tmp_path).test(net, data, verbose=False)
    for other in results[1:]:
        assert other == pytest.approx(results[0], abs=1e-5)


def test_soft_targets_and_class_weights_enter_the_training_loss():
    weighted = task(class_weights=[1.0, 2.0, 3.0, 4.0, 5.0], label_smoothing=0.0).eval()
    weighted.log = weighted.log_dict = lambda *args, **kwargs: None  # there is no trainer
    images = torch.rand(4, 3, 32, 32)
    labels = torch.tensor([0, 1, 2, 4])
    soft = torch.full((4, 5), 0.2)
    logits = weighted(images)
    hard_loss = weighted.training_step((images, labels, labels), 0)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    each = functional.cross_entropy(logits, labels, weight=weights, reduction="none")
    assert torch.isclose(hard_loss, each.mean())
    same_as_soft = weighted.training_step(
        (images, functional.one_hot(labels, 5).float(), labels), 0
    )
    assert torch.isclose(same_as_soft, hard_loss)
    soft_loss = weighted.training_step((images, soft, labels), 0)
    by_hand = -(soft * weights * logits.log_softmax(1)).sum() / 4
    assert torch.isclose(soft_loss, by_hand)


def test_hyperparameters_are_flat_and_plain():
    hparams = dict(task(ema_decay=0.9).hparams)
    assert hparams["class_names"] == NAMES
    assert tuple(hparams["widths"]) == (8, 16)
    assert hparams["ema_decay"] == 0.9
    for value in hparams.values():
        assert isinstance(value, str | int | float | bool | list | tuple | None)


def test_a_misspelt_option_is_refused():
    with pytest.raises(TypeError, match="lrr"):
        CNNTask(NAMES, lrr=0.1)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("lr", 0),
        ("weight_decay", -1),
        ("warmup_fraction", 1),
        ("label_smoothing", 1),
        ("ema_decay", 1.5),
        ("class_weights", [1.0]),
        ("widths", ()),
        ("depth", -1),
        ("stem_stride", 0),
        ("dropout", 2),
    ],
)
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(ValueError, match=rf"`{option}`: expected"):
        task(**{option: value})


def test_the_average_of_the_weights_is_lightnings_own():
    assert task().configure_callbacks() == []
    [callback] = task(ema_decay=0.9).configure_callbacks()
    assert isinstance(callback, WeightAveraging)


def test_a_checkpoint_of_other_classes_is_refused():
    other = CNNTask(["cat", "dog", "emu", "fox", "gnu"], widths=(8,))
    expected = r"`ckpt_path`: .*`root`, \['cat'.* got \['daisy'"
    with pytest.raises(ValueError, match=expected):
        other.on_load_checkpoint({"hyper_parameters": {"class_names": NAMES}})


def test_testing_a_checkpoint_on_a_folder_of_other_classes_is_refused(finished_run, photos):
    root = photos(ant=10, bee=10, cat=10, dog=10, emu=10)
    best = str(finished_run / "checkpoints" / "best.ckpt")
    with pytest.raises(ValueError, match=r"expected a checkpoint with the classes of --data\.root"):
        training.main(["test", "--ckpt_path", best, "--data.root", str(root)])


def test_a_longer_schedule_is_resumed_at_its_own_learning_rate(one_epoch_run, tmp_path, caplog):
    words = ["--ckpt_path", "last", "--trainer.default_root_dir", str(tmp_path)]
    training.main(["fit", *words, "--trainer.max_epochs=3"])
    assert "learning rate changes from 0 to 0.0" in caplog.text
    events = EventAccumulator(str(one_epoch_run)).Reload()
    rates = []
    for tag in events.Tags()["scalars"]:
        if tag.startswith("train/lr"):
            rates += [event.value for event in events.Scalars(tag)]
    assert min(rates) > 0
