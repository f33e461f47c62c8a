"""``TransferTask`` on the command line."""

from __future__ import annotations

import pytest
import torch
import yaml
from torchvision.models import get_model

from flowers.cli import training
from flowers.tasks import TransferTask

ARCH = "mobilenet_v3_small"
SMALL = ["--data.image_size", "40", "--data.crop_size", "32", "--data.batch_size", "32"]
SMALL += ["--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "1"]
RANDOM = ["--model", "TransferTask", "--model.weights", "none"]


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Return a file of weights as torchvision writes them."""
    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(get_model(ARCH, weights=None).state_dict(), file)
    return file


def fit(folder, root, weights, *options):
    words = ["--data.root", str(root), "--trainer.default_root_dir", str(folder), *SMALL]
    words += ["--model", "TransferTask", "--model.arch", ARCH, "--model.weights", str(weights)]
    return training.main(["fit", *words, *options])


@pytest.fixture(scope="session")
def probed(synthetic, weights, tmp_path_factory):
    """Return the run folder of a linear probe: the backbone is frozen in all epochs."""
    folder = tmp_path_factory.mktemp("probe")
    fit(folder, synthetic, weights, "--freeze.unfreeze_epoch", "null", "--trainer.max_epochs", "2")
    return folder / "lightning_logs" / "version_0"


def test_the_checkpoint_of_a_probe_is_used_as_any_other(probed, weights):
    best = probed / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(best, weights_only=True)
    assert checkpoint["hyper_parameters"]["weights"] == "none"
    for text in (checkpoint["config"], (probed / "config.yaml").read_text()):
        assert yaml.safe_load(text)["model"]["init_args"]["weights"] == str(weights)
    pretrained = torch.load(weights, weights_only=True)
    for name, value in checkpoint["state_dict"].items():
        if name.startswith("net.backbone."):
            assert torch.equal(pretrained[name.removeprefix("net.backbone.")], value)
    task = TransferTask.load_from_checkpoint(best, weights_only=True)
    assert task.hparams.arch == ARCH
    training.main(["test", "--ckpt_path", str(best)])
    page = (probed / "report.html").read_text()
    assert "There are no overlays" not in page
    num_overlays = page.count('<label class="switch">')
    assert num_overlays > 0
    assert page.count("data:image/jpeg") == page.count('<div class="card">') + num_overlays


def test_a_new_training_starts_with_the_weights_of_a_checkpoint(probed, synthetic, tmp_path):
    best = probed / "checkpoints" / "best.ckpt"
    before = torch.load(best, weights_only=True)["state_dict"]
    options = ["--trainer.max_epochs", "1", "--model.lr", "1e-12", "--model.ema_decay", "null"]
    run = fit(tmp_path, synthetic, best, *options)
    after = run.model.state_dict()
    for key in ("net.head.1.weight", "net.backbone.features.0.0.weight"):
        assert torch.allclose(after[key], before[key], atol=1e-6)
    assert run.trainer.current_epoch == 1


def test_a_probe_can_be_resumed_with_a_trainable_backbone(probed, tmp_path):
    best = probed / "checkpoints" / "best.ckpt"
    before = torch.load(best, weights_only=True)["state_dict"]
    words = ["--ckpt_path", str(best), "--trainer.default_root_dir", str(tmp_path)]
    words += ["--freeze.unfreeze_epoch", "0", "--trainer.max_epochs", "3"]
    after = training.main(["fit", *words]).model.state_dict()
    first = "net.backbone.features.0.0.weight"
    assert not torch.equal(after[first], before[first])


def test_a_resumed_training_warns_of_options_without_effect(probed, tmp_path):
    best = probed / "checkpoints" / "best.ckpt"
    words = ["--ckpt_path", str(best), "--trainer.default_root_dir", str(tmp_path)]
    words += ["--model.stage_decay", "0.3", "--trainer.max_epochs", "3"]
    message = r"`stage_decay` 0\.3 \(checkpoint: 0\.5\) has no effect"
    with pytest.warns(UserWarning, match=message):
        training.main(["fit", *words])


def test_images_and_augmentation_follow_the_weights_unless_they_are_given(synthetic):
    words = [*RANDOM, "--data.root", str(synthetic), "--data.batch_size", "2"]
    words += ["--trainer.accelerator", "cpu", "--trainer.fast_dev_run", "true"]
    words += ["--model.arch", ARCH]
    run = training.main(["fit", *words])
    task = TransferTask(["a", "b"], weights="none")
    assert run.model.lr == task.lr  # not that of the default task
    assert run.model.ema_decay == task.ema_decay
    data = run.datamodule
    assert (data.image_size, data.crop_size, data.interpolation) == (224, 224, "bilinear")
    words += ["--data.image_size", "64"]
    data = training.main(["fit", *words]).datamodule
    assert (data.image_size, data.crop_size, data.interpolation) == (64, 64, "bilinear")
    assert (data.augment.cutmix_prob, data.augment.min_scale) == (0.0, 0.5)
    words += ["--data.crop_size", "48", "--data.augment.cutmix_prob", "0.2"]
    data = training.main(["fit", *words]).datamodule
    assert (data.image_size, data.crop_size) == (64, 48)
    assert (data.augment.cutmix_prob, data.augment.min_scale) == (0.2, 0.5)


def test_the_printed_configuration_has_the_defaults_of_the_task(synthetic, capsys):
    words = ["--model", "TransferTask", "--model.arch", "efficientnet_b0"]
    words += ["--data.root", str(synthetic), "--print_config"]
    with pytest.raises(SystemExit):
        training.main(["fit", *words])
    config = yaml.safe_load(capsys.readouterr().out)
    task = TransferTask(["a", "b"], weights="none")
    assert config["model"]["init_args"]["lr"] == task.lr
    assert config["model"]["init_args"]["ema_decay"] == task.ema_decay
    assert (config["data"]["image_size"], config["data"]["interpolation"]) == (224, "bicubic")


@pytest.mark.parametrize(
    "words",
    [
        [*RANDOM, "--model.arch", ARCH, "--data.cache", "false"],
        ["--model", "CNNTask", "--model.widths", "[8]"],
    ],
)
def test_a_probe_that_cannot_be_trained_is_refused_before_there_is_a_run_folder(
    words, synthetic, tmp_path
):
    options = [*SMALL, "--data.root", str(synthetic), "--freeze.unfreeze_epoch", "null"]
    message = r"--freeze\.unfreeze_epoch( null)?: expected (a )?--"
    with pytest.raises(ValueError, match=message):
        training.main(["fit", *words, *options])
    assert not (tmp_path / "lightning_logs").exists()
