from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer

from flowers.callbacks import FreezeBackbone
from flowers.callbacks.cache_features import cache_features
from flowers.data import BatchAugmentation, FlowersDataModule
from flowers.models import split_stages
from flowers.tasks import CNNTask, TransferTask


@pytest.fixture
def data(synthetic):
    plain = BatchAugmentation(cutmix_prob=0.0)
    return FlowersDataModule(
        str(synthetic), image_size=32, crop_size=32, batch_size=16, augment=plain
    )


def make_task(data, **options):
    return TransferTask(data.class_names, arch="mobilenet_v3_small", weights="none", **options)


def train(task, data, *callbacks, epochs=1, **options):
    trainer = Trainer(
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        callbacks=list(callbacks),
        **options,
    )
    trainer.fit(task, datamodule=data)
    return trainer


def changed(task, before):
    """Return the names of the parameters and buffers that differ."""
    return {
        name
        for name, value in task.net.state_dict().items()
        if not torch.equal(value, before[name])
    }


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("stages", [1, 3])
def test_frozen_parameters_and_buffers_do_not_change_and_the_others_do(data, stages, ema_decay):
    task = make_task(data, ema_decay=ema_decay)
    task.net.backbone.train()
    before = copy.deepcopy(task.net.state_dict())
    # The head learns alone for one epoch, then with one more stage in each.
    train(task, data, FreezeBackbone(1, stages=stages), epochs=stages, limit_train_batches=2)
    changed_names = changed(task, before)
    # The first of three stages is frozen until the end, or the only one.
    frozen_stage = split_stages(task.net.backbone, stages)[0]
    frozen = {id(value) for value in [*frozen_stage.parameters(), *frozen_stage.buffers()]}
    frozen_names = set()
    for name, value in [*task.net.named_parameters(), *task.net.named_buffers()]:
        if id(value) in frozen:
            frozen_names.add(name)
    assert len(frozen_names) == len(frozen) > 0
    assert changed_names.isdisjoint(frozen_names)
    assert "head.1.weight" in changed_names
    if stages > 1:
        assert "backbone.classifier.0.weight" in changed_names
        assert any("running_mean" in name for name in changed_names)


def test_two_steps_do_not_change_the_frozen_backbone_of_any_family(family, synthetic):
    arch, size = family
    data = FlowersDataModule(str(synthetic), image_size=size, crop_size=size, batch_size=2)
    task = TransferTask(data.class_names, arch=arch, weights="none")
    before = copy.deepcopy(task.net.state_dict())
    train(
        task,
        data,
        FreezeBackbone(1),
        limit_train_batches=2,
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )
    assert changed(task, before) == {"head.1.weight", "head.1.bias"}


def test_stages_are_unfrozen_one_after_the_other():
    freeze = FreezeBackbone(2, stages=3)
    assert [freeze.num_frozen(epoch) for epoch in range(7)] == [3, 3, 2, 1, 0, 0, 0]
    assert [FreezeBackbone(1).num_frozen(epoch) for epoch in range(3)] == [1, 0, 0]
    assert [FreezeBackbone(0).num_frozen(epoch) for epoch in range(2)] == [0, 0]
    assert [FreezeBackbone(None).num_frozen(epoch) for epoch in range(2)] == [1, 1]


def test_the_optimizer_has_all_parameter_groups_from_the_first_step(data):
    task = make_task(data, stage_decay=0.5)
    trainer = train(task, data, FreezeBackbone(5), limit_train_batches=1)
    [optimizer] = trainer.optimizers
    parameters = []
    rates = {}
    for group in optimizer.param_groups:
        parameters += [id(parameter) for parameter in group["params"]]
        rates[group["name"].partition("/")[0]] = group["initial_lr"]
        if group["weight_decay"]:
            assert all(parameter.ndim > 1 for parameter in group["params"])
    assert sorted(parameters) == sorted(id(parameter) for parameter in task.net.parameters())
    expected = {f"stage_{number}": 1e-3 * 0.5 ** (4 - number) for number in range(4)}
    assert rates == pytest.approx(expected | {"head": 1e-3})


def test_a_probe_trains_the_head_on_features_of_its_backbone(data):
    task = make_task(data, dropout=0.0, ema_decay=None)
    before = copy.deepcopy(task.net.state_dict())
    train(task, data, FreezeBackbone(None), epochs=2)
    assert changed(task, before) == {"head.1.weight", "head.1.bias"}
    assert data.features is None  # the data module has its images again
    features = cache_features(task, data)
    indices = data.indices["val"][:4]
    images = torch.from_numpy(data.pixels[indices]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = task.net.eval().backbone(task.net.standardize(images))
    assert torch.allclose(expected, torch.from_numpy(features[indices]), atol=1e-5)
    assert np.isnan(features[data.indices["test"]]).all()  # they are not needed


def test_after_a_probe_the_data_module_has_images_again(data):
    task = make_task(data)
    train(task, data, FreezeBackbone(None))
    quiet = {"logger": False, "accelerator": "cpu", "enable_progress_bar": False}
    answers = []
    for batch in Trainer(**quiet).predict(task, datamodule=data):
        answers += batch
    probs = torch.tensor([[*answer.probabilities.values()] for answer in answers])
    images = torch.from_numpy(data.pixels[data.indices["test"]]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        assert torch.allclose(task.eval()(images).softmax(dim=1), probs, atol=1e-4)
    before = copy.deepcopy(task.net.state_dict())
    train(task.train(), data, limit_train_batches=2)
    assert "backbone.features.0.0.weight" in changed(task, before)


def test_a_frozen_backbone_is_deterministic_while_training(data):
    task = make_task(data, dropout=0.0)

    class Compare(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            images = torch.rand(4, 3, 32, 32)
            assert pl_module.training
            assert torch.equal(pl_module(images), pl_module(images))

    train(task, data, FreezeBackbone(1), Compare(), limit_train_batches=2)


def test_a_probe_has_the_validation_metrics_of_its_checkpoint_on_images(data, synthetic, tmp_path):
    task = make_task(data, ema_decay=None)
    trainer = train(task, data, FreezeBackbone(None), epochs=2)
    on_features = {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("val/")
    }
    trainer.save_checkpoint(tmp_path / "probe.ckpt")
    again = TransferTask.load_from_checkpoint(tmp_path / "probe.ckpt", weights_only=True)
    images = FlowersDataModule(str(synthetic), image_size=32, crop_size=32, batch_size=7)
    [on_images] = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False).validate(
        again, datamodule=images, verbose=False
    )
    assert on_images == pytest.approx(on_features, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unfreeze_epoch": -1}, "`unfreeze_epoch`: expected 0 or more"),
        ({"unfreeze_epoch": 1, "stages": 0}, "`stages`: expected 1 or more"),
        (
            {"unfreeze_epoch": 0, "stages": 2},
            "`stages`: expected 1 unless `unfreeze_epoch` is 1 or more",
        ),
    ],
)
def test_an_incorrect_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        FreezeBackbone(**options)


@pytest.mark.parametrize("unfreeze_epoch", [2, None])
def test_a_random_backbone_is_not_frozen(data, unfreeze_epoch):
    with pytest.raises(ValueError, match="expected a `TransferTask`"):
        train(CNNTask(data.class_names, widths=(8,)), data, FreezeBackbone(unfreeze_epoch))


def test_a_probe_needs_a_cache(synthetic):
    streamed = FlowersDataModule(
        str(synthetic), image_size=32, crop_size=32, cache=False, num_workers=0
    )
    with pytest.raises(ValueError, match=r"expected `cache` true"):
        train(make_task(streamed), streamed, FreezeBackbone(None))
