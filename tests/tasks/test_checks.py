from __future__ import annotations

import pytest
import torch
from torch import nn

from flowers.cli import training
from flowers.models import flower_cnn
from flowers.tasks import check_size
from flowers.tasks.checks import check_weights, expect, warn_of_restored


def test_a_condition_that_does_not_hold_names_the_parameter():
    expect(True, "lr", "a number above 0", 1.0)
    with pytest.raises(ValueError, match=r"`lr`: expected a number above 0, got -1\.0"):
        expect(False, "lr", "a number above 0", -1.0)


def test_checking_a_size_does_not_change_the_network():
    net = flower_cnn(5, widths=(8, 16)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    check_size(net, 32, "--data.image_size")
    assert net.training
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_size_that_the_network_does_not_take_is_named():
    with pytest.raises(ValueError, match=r"--size: expected a size .*, got 8 pixels"):
        check_size(nn.Conv2d(3, 4, kernel_size=16), 8, "--size")


@pytest.mark.parametrize(
    ("arch", "sizes", "message"),
    [
        (
            "timm/vit_tiny_patch16_224",
            (192, 192),
            r"--data\.image_size: .* got 192 pixels \(Input height \(192\) doesn't match",
        ),
        ("alexnet", (64, 16), r"--data\.crop_size: .* got 16 pixels"),
    ],
)
def test_sizes_are_checked_before_there_is_a_run_folder(arch, sizes, message, synthetic, tmp_path):
    words = ["--data.image_size", str(sizes[0]), "--data.crop_size", str(sizes[1])]
    words += ["--model", "TransferTask", "--model.arch", arch, "--model.weights", "none"]
    with pytest.raises(ValueError, match=message):
        training.main(["fit", "--data.root", str(synthetic), *words])
    assert not (tmp_path / "lightning_logs").exists()


def test_weights_of_another_network_are_refused():
    net = flower_cnn(5, widths=(8, 16))
    stored = {f"net.{name}": value for name, value in net.state_dict().items()}
    check_weights(net, stored | {"train_metrics.loss.mean_value": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"`ckpt_path`: .* weights that differ, such as net\."):
        check_weights(flower_cnn(5, widths=(8, 24)), stored)
    stored.popitem()
    with pytest.raises(ValueError, match="got 1 weights that differ"):
        check_weights(net, stored)


def test_options_stored_in_the_optimizer_have_no_effect_when_resuming():
    stored = {"lr": 0.1, "weight_decay": 0.0, "ema_decay": 0.9}
    warn_of_restored(stored | {"ema_decay": None}, stored)
    with pytest.warns(UserWarning, match=r"^`lr` 0\.2 \(checkpoint: 0\.1\) has no effect"):
        warn_of_restored(stored | {"lr": 0.2}, stored)
    for options, hint in (({"lr": 0.2}, "leave out `ckpt_path`"), ({"arch": "x"}, "as `weights`")):
        with pytest.warns(UserWarning, match=hint):
            warn_of_restored(options, stored)
