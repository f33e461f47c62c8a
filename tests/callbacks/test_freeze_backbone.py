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
def test_frozen_parameters_and_buffers_do_not_move_and_the_rest_does(data, stages, ema_decay):
    task = make_task(data, ema_decay=ema_decay)
    task.net.backbone.train()
    before = copy.deepcopy(task.net.state_dict())
    # Head alone for one epoch, then one stage more in each.
    train(task, data, FreezeBackbone(1, stages=stages), epochs=stages, limit_train_batches=2)
    moved = changed(task, before)
    frozen = split_stages(task.net.backbone, stages)[: 1 if stages > 1 else None]
    names = {id(p): name for name, p in [*task.net.named_parameters(), *task.net.named_buffers()]}
    still = {names[id(x)] for stage in frozen for x in [*stage.parameters(), *stage.buffers()]}
    assert still
    assert moved.isdisjoint(still)
    assert "head.1.weight" in moved
    if stages > 1:
        assert "backbone.classifier.0.weight" in moved
        assert any("running_mean" in name for name in moved)


def test_two_steps_move_nothing_of_any_familys_frozen_backbone(family, synthetic):
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


def test_stages_begin_to_learn_one_after_the_other():
    freeze = FreezeBackbone(2, stages=3)
    assert [freeze.num_frozen(epoch) for epoch in range(7)] == [3, 3, 2, 1, 0, 0, 0]
    assert [FreezeBackbone(1).num_frozen(epoch) for epoch in range(3)] == [1, 0, 0]
    assert [FreezeBackbone(0).num_frozen(epoch) for epoch in range(2)] == [0, 0]
    assert [FreezeBackbone(None).num_frozen(epoch) for epoch in range(2)] == [1, 1]


def test_every_group_is_there_from_the_first_step(data):
    task = make_task(data, stage_decay=0.5)
    trainer = train(task, data, FreezeBackbone(5), limit_train_batches=1)
    [optimizer] = trainer.optimizers
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in task.net.parameters())
    rates = {
        group["name"].partition("/")[0]: group["initial_lr"] for group in optimizer.param_groups
    }
    assert rates == pytest.approx(
        {f"stage_{i}": 1e-3 * 0.5 ** (4 - i) for i in range(4)} | {"head": 1e-3}
    )
    assert all(p.ndim > 1 for g in optimizer.param_groups if g["weight_decay"] for p in g["params"])


@pytest.mark.parametrize("views", [0, 2])
def test_a_probe_learns_from_features_that_are_the_networks_own(data, views):
    task = make_task(data, dropout=0.0, ema_decay=None)
    before = copy.deepcopy(task.net.state_dict())
    train(task, data, FreezeBackbone(None, views=views), epochs=2)
    assert changed(task, before) == {"head.1.weight", "head.1.bias"}
    assert data.features == []  # the data module has its images again
    features = cache_features(task, data, views=views)
    assert len(features) == 1 + views
    chosen = data.indices["val"][:4]
    images = torch.from_numpy(data.pixels[chosen]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = task.net.eval().backbone(task.net.standardize(images))
    assert torch.allclose(expected, torch.from_numpy(features[0][chosen]), atol=1e-5)
    assert np.isnan(features[0][data.indices["test"]]).all()  # which are not looked at
    if views:
        train_images = data.indices["train"]
        assert not (features[1][train_images] == features[2][train_images]).all()


def test_what_follows_a_probe_sees_images_again(data):
    task = make_task(data)
    train(task, data, FreezeBackbone(None))
    quiet = {"logger": False, "accelerator": "cpu", "enable_progress_bar": False}
    answers = [
        answer for batch in Trainer(**quiet).predict(task, datamodule=data) for answer in batch
    ]
    probs = torch.tensor([[*answer.probabilities.values()] for answer in answers])
    images = torch.from_numpy(data.pixels[data.indices["test"]]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        assert torch.allclose(task.eval()(images).softmax(dim=1), probs, atol=1e-4)
    before = copy.deepcopy(task.net.state_dict())
    train(task.train(), data, limit_train_batches=2)
    assert "backbone.features.0.0.weight" in changed(task, before)


def test_a_frozen_backbone_is_the_same_function_at_every_step(data):
    task = make_task(data, dropout=0.0)

    class Compare(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            images = torch.rand(4, 3, 32, 32)
            assert pl_module.training
            assert torch.equal(pl_module(images), pl_module(images))

    train(task, data, FreezeBackbone(1), Compare(), limit_train_batches=2)


def test_features_of_fewer_bits_are_refused(data):
    with pytest.raises(ValueError, match=r"`precision`: expected 32-true or a mixed one"):
        train(make_task(data), data, FreezeBackbone(None), precision="bf16-true")


def test_a_probe_is_validated_as_its_checkpoint_is_with_images(data, synthetic, tmp_path):
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
    ("options", "said"),
    [
        ({"unfreeze_epoch": -1}, "`unfreeze_epoch`: expected 0 or more"),
        ({"unfreeze_epoch": 1, "stages": 0}, "`stages`: expected 1 or more"),
        (
            {"unfreeze_epoch": 1, "views": 2},
            "`views`: expected `unfreeze_epoch` null",
        ),
        (
            {"unfreeze_epoch": 0, "stages": 2},
            "`stages`: expected `unfreeze_epoch` 1 or more",
        ),
    ],
)
def test_a_wrong_option_is_named(options, said):
    with pytest.raises(ValueError, match=said):
        FreezeBackbone(**options)


def test_a_probe_needs_a_backbone_that_has_learnt_and_a_cache(data, synthetic):
    with pytest.raises(ValueError, match="expected a `TransferTask`"):
        train(CNNTask(data.class_names, widths=(8,)), data, FreezeBackbone(None))
    streamed = FlowersDataModule(
        str(synthetic), image_size=32, crop_size=32, cache=False, num_workers=0
    )
    with pytest.raises(ValueError, match=r"expected `cache` true"):
        train(make_task(streamed), streamed, FreezeBackbone(None))
