from __future__ import annotations

from types import SimpleNamespace

import pytest

from flowers.callbacks import PrintEffectiveBatch
from flowers.cli import training


def trainer(*, batch_size=32, processes=1, accumulated=1):
    return SimpleNamespace(
        datamodule=SimpleNamespace(batch_size=batch_size),
        world_size=processes,
        accumulate_grad_batches=accumulated,
    )


def test_the_effective_batch_is_reported_only_where_it_is_not_the_batch_size(caplog):
    PrintEffectiveBatch().on_fit_start(trainer(), None)
    assert not caplog.text
    PrintEffectiveBatch().on_fit_start(trainer(processes=2, accumulated=3), None)
    assert "Effective batch: 192 images a step (processes: 2, --data.batch_size 32" in caplog.text


def test_as_many_images_a_step_from_more_processes_keep_the_steps():
    before = PrintEffectiveBatch()
    before.on_fit_start(trainer(batch_size=64), None)
    resumed = PrintEffectiveBatch()
    resumed.load_state_dict(before.state_dict())
    with pytest.warns(UserWarning, match="The order of the images is unchanged"):
        resumed.on_fit_start(trainer(batch_size=32, processes=2), None)


def test_resuming_with_another_effective_batch_warns(one_epoch_run, tmp_path):
    words = ["--ckpt_path", "last", "--trainer.default_root_dir", str(tmp_path)]
    words += ["--trainer.max_epochs", "2", "--trainer.accumulate_grad_batches", "2"]
    message = r"processes: 1 \(before: 1\), images a step: 64 \(before: 32\)\. The number of steps"
    with pytest.warns(UserWarning, match=message):
        training.main(["fit", *words])
