"""Training of ``CNNTask``."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flowers.cli import training

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_training_loss_falls(finished_run):
    events = EventAccumulator(str(finished_run)).Reload()
    losses = [event.value for event in events.Scalars("train/loss")]
    assert losses[-1] < losses[0] - 0.1


def test_the_shipped_recipe_learns_a_small_folder(synthetic):
    words = ["--config", str(CONFIGS / "cnn.yaml"), "--data.root", str(synthetic)]
    words += ["--data.image_size=40", "--data.crop_size=32", "--data.batch_size=16"]
    words += ["--model.widths=[24,48]", "--trainer.max_epochs=10"]
    words += ["--trainer.accelerator=cpu", "--trainer.logger=false"]
    run = training.main(["fit", *words])
    # In 70 steps, an average of the weights whose decay is 0.995 from the first step on does not
    # get better than chance, 0.2.
    assert run.trainer.callback_metrics["val/acc"] > 0.35
