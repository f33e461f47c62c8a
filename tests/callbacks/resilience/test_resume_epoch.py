"""A run goes on inside of an epoch."""

from __future__ import annotations

import shutil
import signal
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flowers.callbacks import ResumeEpoch, SeedSteps
from flowers.cli import training

SMALL = [
    "--data.image_size",
    "32",
    "--data.crop_size",
    "[16,24]",
    "--model.widths",
    "[8,16]",
    "--data.batch_size",
    "20",
]
SMALL += [
    "--trainer.accelerator",
    "cpu",
    "--trainer.log_every_n_steps",
    "1",
    "--trainer.max_epochs",
    "2",
]


def fit(folder, synthetic, *words):
    return training.main(
        [
            "fit",
            *SMALL,
            "--data.root",
            str(synthetic),
            "--trainer.default_root_dir",
            str(folder),
            *words,
        ]
    )


def curve(run, name):
    return [
        (event.step, event.value) for event in EventAccumulator(str(run)).Reload().Scalars(name)
    ]


class KeepBestOfFirstEpoch(SeedSteps):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            shutil.copy(trainer.checkpoint_callbacks[0].best_model_path, "first.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "validations", "epochs"), [("max", 1, 0), ("min", 2, 1)])
def test_a_checkpoint_of_a_validation_goes_on_after_it(
    synthetic, tmp_path, monkeypatch, *, mode, validations, epochs
):
    # Six steps an epoch, validated after the third and the sixth, and between them the rate of
    # learning falls. It is known beforehand, unlike the metrics that can be monitored.
    monkeypatch.setattr(training, "check_monitor", lambda monitor, recalls: None)
    with monkeypatch.context() as patch:
        patch.setattr(training, "SeedSteps", KeepBestOfFirstEpoch)
        words = ["--checkpoint.monitor", "train/lr/dense", "--checkpoint.mode", mode]
        fit(tmp_path, synthetic, "--trainer.val_check_interval", "0.5", *words)
    assert torch.load("first.ckpt", weights_only=True)["global_step"] == 3 * validations
    training.main(["fit", "--ckpt_path", "first.ckpt"])
    whole, resumed = (tmp_path / "lightning_logs" / f"version_{number}" for number in (0, 1))
    assert curve(resumed, "val/loss") == curve(whole, "val/loss")[validations:]
    assert curve(resumed, "train/loss") == curve(whole, "train/loss")[epochs:]


class SignalAfter(SeedSteps):
    def on_train_batch_end(self, trainer, *args, **kwargs):
        if trainer.global_step == 4:
            signal.raise_signal(signal.SIGTERM)


def test_with_a_limit_of_batches_one_is_left_to_end_the_epoch_with(
    synthetic, tmp_path, monkeypatch
):
    limit = ["--trainer.limit_train_batches", "5"]
    with monkeypatch.context() as patch:
        patch.setattr(training, "SeedSteps", SignalAfter)
        with pytest.raises(SystemExit):
            fit(tmp_path, synthetic, *limit)
    words = [
        "--ckpt_path",
        "last",
        "--trainer.default_root_dir",
        str(tmp_path),
        "--data.batch_size",
        "10",
    ]
    with pytest.warns(UserWarning, match="images a step: 10"):
        again = training.main(["fit", *words])
    assert again.trainer.global_step == 4 + 1 + 5


@pytest.mark.parametrize(("of_all", "agree"), [((7, -7), True), ((7, 0), False)])
def test_processes_that_go_on_from_different_checkpoints_are_stopped(of_all, agree):
    strategy = SimpleNamespace(
        root_device=torch.device("cpu"), reduce=lambda steps, reduce_op: torch.tensor(of_all)
    )
    trainer = SimpleNamespace(world_size=2, global_rank=0, global_step=7, strategy=strategy)
    trainer.fit_loop = SimpleNamespace(
        restarting=False, epoch_loop=SimpleNamespace(batch_progress=None)
    )
    if agree:
        ResumeEpoch().on_train_start(trainer, None)
    else:
        with pytest.raises(
            ValueError, match=r"`ckpt_path`: .* got steps 0 to 7 \(7 in process 0\)"
        ):
            ResumeEpoch().on_train_start(trainer, None)
