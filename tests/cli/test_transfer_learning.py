"""Transfer learning as a person does it: from the command line, interrupted, and without its "
"weights at hand."""

from __future__ import annotations

import os
import signal

import pytest
import torch
import yaml
from torchvision.models import get_model

from flowers.callbacks import SeedSteps
from flowers.cli import training
from flowers.tasks import TransferTask

ARCH = "mobilenet_v3_small"
SMALL = [
    "--data.image_size",
    "40",
    "--data.crop_size",
    "32",
    "--data.batch_size",
    "32",
    "--trainer.accelerator",
    "cpu",
]
SMALL += ["--trainer.log_every_n_steps", "1"]


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A file of weights as torchvision writes them."""
    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("weights") / "trunk.pth"
    torch.save(get_model(ARCH, weights=None).state_dict(), file)
    return file


def fit(folder, root, weights, *args):
    words = [
        "--model",
        "TransferTask",
        "--model.arch",
        ARCH,
        "--model.weights",
        str(weights),
        *SMALL,
    ]
    return training.main(
        [
            "fit",
            "--data.root",
            str(root),
            "--trainer.default_root_dir",
            str(folder),
            *words,
            *map(str, args),
        ]
    )


# The head learns alone, then with the last of two stages, then with both.
UNFREEZING = ["--freeze.unfreeze_epoch", "1", "--freeze.stages", "2", "--trainer.max_epochs", "4"]


class KillAt(SeedSteps):
    """Ends the process as ``kill -9`` does, in the epoch that unfreezes the last stage."""

    def on_train_batch_end(self, trainer, *args, **kwargs):
        if trainer.current_epoch == 2 and trainer.global_step % 3 == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def _fit_and_die(folder, root, weights):
    torch.set_num_threads(1)
    training.SeedSteps = KillAt
    fit(folder, root, weights, *UNFREEZING)


def test_killed_while_unfreezing_and_resumed_equals_never_interrupted_bit_for_bit(
    synthetic, weights, tmp_path, forkserver
):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    mine = tmp_path / "mine.pth"
    mine.write_bytes(weights.read_bytes())
    process = forkserver.Process(target=_fit_and_die, args=(tmp_path / "killed", synthetic, mine))
    process.start()
    fit(tmp_path / "whole", synthetic, mine, *UNFREEZING)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    mine.unlink()  # a checkpoint is restored without them
    runs = [
        tmp_path / name / "lightning_logs" / "version_0" / "checkpoints"
        for name in ("whole", "killed")
    ]
    assert torch.load(runs[1] / "last.ckpt", weights_only=True)["epoch"] == 1
    training.main(["fit", "--ckpt_path", str(runs[1] / "last.ckpt")])
    whole, resumed = (torch.load(run / "last.ckpt", weights_only=True) for run in runs)
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(whole[part][key], resumed[part][key]) for key in whole[part])
    start = torch.load(weights, weights_only=True)
    first = "features.0.0.weight"
    assert not torch.equal(
        start[first], whole["state_dict"][f"net.backbone.{first}"]
    )  # all of it has learnt in the end


@pytest.fixture(scope="session")
def probed(synthetic, weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    fit(folder, synthetic, weights, "--freeze.unfreeze_epoch", "null", "--trainer.max_epochs", "2")
    return folder / "lightning_logs" / "version_0"


def test_the_checkpoint_of_a_probe_is_an_ordinary_one(probed, weights, tmp_path, capsys):
    checkpoint = torch.load(probed / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["weights"] == "none"
    assert yaml.safe_load(checkpoint["config"])["model"]["init_args"]["weights"] == str(weights)
    assert yaml.safe_load((probed / "config.yaml").read_text())["model"]["init_args"][
        "weights"
    ] == str(weights)
    start = torch.load(weights, weights_only=True)
    backbone = {
        k.removeprefix("net.backbone."): v
        for k, v in checkpoint["state_dict"].items()
        if "backbone" in k
    }
    assert all(torch.equal(start[key], value) for key, value in backbone.items())
    task = TransferTask.load_from_checkpoint(
        probed / "checkpoints" / "best.ckpt", weights_only=True
    )
    assert task.hparams.arch == ARCH
    training.main(["test", "--ckpt_path", str(probed / "checkpoints" / "best.ckpt")])
    page = (probed / "report.html").read_text()
    assert "There are no overlays" not in page
    assert page.count("data:image/jpeg") == 2 * page.count('<div class="card">')


def test_a_new_training_begins_with_the_weights_of_a_probe(probed, synthetic, tmp_path):
    best = probed / "checkpoints" / "best.ckpt"
    before = torch.load(best, weights_only=True)["state_dict"]
    run = fit(
        tmp_path,
        synthetic,
        best,
        "--trainer.max_epochs",
        "1",
        "--model.lr",
        "1e-12",
        "--model.ema_decay",
        "null",
    )
    after = run.model.state_dict()
    for key in ("net.head.1.weight", "net.backbone.features.0.0.weight"):
        assert torch.allclose(after[key], before[key], atol=1e-6)
    assert run.trainer.current_epoch == 1


def test_a_probe_can_be_fine_tuned_on(probed, tmp_path):
    best = probed / "checkpoints" / "best.ckpt"
    before = torch.load(best, weights_only=True)["state_dict"]
    (tmp_path / "tuned").mkdir()
    words = ["--freeze.unfreeze_epoch", "0", "--trainer.max_epochs", "4"]
    run = training.main(
        [
            "fit",
            "--ckpt_path",
            str(best),
            *words,
            "--trainer.default_root_dir",
            str(tmp_path / "tuned"),
        ]
    )
    after = run.model.state_dict()
    first = "net.backbone.features.0.0.weight"
    assert not torch.equal(after[first], before[first])


def test_the_images_are_those_the_weights_were_trained_on_unless_told_otherwise(synthetic):
    args = [
        "fit",
        "--data.root",
        str(synthetic),
        "--model",
        "TransferTask",
        "--model.weights",
        "none",
    ]
    quick = [
        "--data.batch_size",
        "2",
        "--trainer.accelerator",
        "cpu",
        "--trainer.fast_dev_run",
        "true",
    ]
    run = training.main([*args, *quick, "--model.arch", "efficientnet_b0"])
    data, task = run.datamodule, TransferTask(["a", "b"], weights="none")
    assert (run.model.lr, run.model.ema_decay) == (
        task.lr,
        task.ema_decay,
    )  # not those of the default task
    assert (data.image_size, data.crop_size, data.interpolation) == (224, 224, "bicubic")
    typed = ["--model.arch", "mobilenet_v3_small", "--data.image_size", "64"]
    data = training.main([*args, *quick, *typed]).datamodule
    assert (data.image_size, data.crop_size, data.interpolation) == (64, 64, "bilinear")
    assert (data.augment.cutmix_prob, data.augment.min_scale) == (0.0, 0.5)
    data = training.main(
        [*args, *quick, *typed, "--data.crop_size", "48", "--data.augment.cutmix_prob", "0.2"]
    ).datamodule
    assert (data.image_size, data.crop_size) == (64, 48)
    assert (data.augment.cutmix_prob, data.augment.min_scale) == (0.2, 0.5)


def test_the_printed_configuration_is_the_one_that_runs(synthetic, capsys):
    words = [
        "--model",
        "TransferTask",
        "--model.arch",
        "efficientnet_b0",
        "--data.root",
        str(synthetic),
    ]
    with pytest.raises(SystemExit):
        training.main(["fit", *words, "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    task = TransferTask(["a", "b"], weights="none")
    assert config["model"]["init_args"]["lr"] == task.lr
    assert config["model"]["init_args"]["ema_decay"] == task.ema_decay
    assert (config["data"]["image_size"], config["data"]["interpolation"]) == (224, "bicubic")


def test_a_resumed_training_says_which_options_it_does_not_take(probed, tmp_path):
    other = [
        "--ckpt_path",
        str(probed / "checkpoints" / "best.ckpt"),
        "--trainer.default_root_dir",
        str(tmp_path),
    ]
    expected = r"`stage_decay` 0\.3 \(checkpoint: 0\.5\) has no effect"
    with pytest.warns(UserWarning, match=expected):
        training.main(["fit", *other, "--model.stage_decay", "0.3", "--trainer.max_epochs", "3"])


@pytest.mark.parametrize(
    "words", [["--data.cache", "false"], ["--model", "CNNTask", "--model.widths", "[8]"]]
)
def test_what_a_probe_cannot_do_is_said_before_there_is_a_run_folder(words, synthetic, tmp_path):
    model = (
        []
        if "CNNTask" in words
        else ["--model", "TransferTask", "--model.arch", ARCH, "--model.weights", "none"]
    )
    with pytest.raises(ValueError, match=r"--freeze\.unfreeze_epoch null: expected (a )?--"):
        training.main(
            [
                "fit",
                "--data.root",
                str(synthetic),
                *model,
                *words,
                *SMALL,
                "--freeze.unfreeze_epoch",
                "null",
            ]
        )
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.parametrize(
    ("arch", "sizes", "said"),
    [
        (
            "vit_b_16",
            (192, 192),
            r"--data\.image_size: .* got 192 pixels \(Wrong image height! Expected 224",
        ),
        ("alexnet", (64, 16), r"--data\.crop_size: .* got 16 pixels"),
    ],
)
def test_a_size_that_the_network_cannot_take_is_named_before_there_is_a_run_folder(
    arch, sizes, said, synthetic, tmp_path
):
    typed = ["--data.image_size", str(sizes[0]), "--data.crop_size", str(sizes[1])]
    model = ["--model", "TransferTask", "--model.arch", arch, "--model.weights", "none"]
    with pytest.raises(ValueError, match=said):
        training.main(["fit", "--data.root", str(synthetic), *model, *typed])
    assert not (tmp_path / "lightning_logs").exists()
