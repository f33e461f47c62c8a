"""What a checkpoint holds, and reading it safely."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
import yaml
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, SequentialLR

from flowers import FlowerPredictor
from flowers.callbacks import AtomicCheckpointIO
from flowers.checkpoint import (
    FORMAT,
    load_weights,
    read_checkpoint,
    read_config,
    stored_config,
)
from flowers.cli import training
from flowers.tasks import CNNTask, TransferTask

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture
def best(finished_run):
    """Return the best checkpoint of a run of four epochs."""
    return finished_run / "checkpoints" / "best.ckpt"


def write_with_config(file, checkpoint, config):
    """Save a checkpoint with another configuration."""
    changed = checkpoint | {"config": yaml.safe_dump(config)}
    AtomicCheckpointIO().save_checkpoint(changed, file)


def modification_times(folder):
    """Return the time of the last change of every file below a folder."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file): file.stat().st_mtime_ns for file in files}


def test_a_checkpoint_holds_plain_values_under_known_names(best):
    checkpoint = torch.load(best, weights_only=True)
    assert checkpoint["hyper_parameters"]["class_names"][0] == "daisy"
    for name in checkpoint["state_dict"]:
        assert name.startswith("net.")
        assert "_orig_mod" not in name  # torch.compile's prefix
    stored = checkpoint["FlowersDataModule"]
    assert stored.keys() >= {"data_fingerprint", "split_fingerprint", "image_size", "resize"}
    assert len(stored["trained_on"]) == 120
    assert yaml.safe_load(checkpoint["config"])["data"]["image_size"] == 32
    task = CNNTask.load_from_checkpoint(best, weights_only=True)
    assert task.hparams.widths == (8, 16)


def test_validate_and_test_need_only_the_checkpoint(best, tmp_path, capsys):
    training.main(["validate", "--ckpt_path", str(best)])
    assert "val/acc: " in capsys.readouterr().out
    run = training.main(["test", "--ckpt_path", str(best)])
    num_correct = round(float(run.trainer.callback_metrics["test/acc"]) * 15)
    assert f"test/acc: {num_correct} of 15 images are correct" in capsys.readouterr().out
    assert run.datamodule.image_size == 32
    assert not [*tmp_path.iterdir()]  # no run folder


def test_a_missing_checkpoint_is_named():
    with pytest.raises(FileNotFoundError, match=r"latest: expected a checkpoint file"):
        training.main(["fit", "--ckpt_path", "latest"])


@pytest.mark.parametrize("content", [b"", b"a text", None])
def test_a_file_that_is_no_checkpoint_is_refused(content, best, tmp_path):
    if content is None:  # the first half of a checkpoint
        whole = best.read_bytes()
        content = whole[: len(whole) // 2]
    file = tmp_path / "x.ckpt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.ckpt: expected a checkpoint of this project"):
        training.main(["test", "--ckpt_path", str(file)])


def test_a_damaged_checkpoint_is_refused(trained_run, tmp_path):
    whole_file = trained_run / "checkpoints" / "best.ckpt"
    whole = whole_file.read_bytes()
    original = read_checkpoint(whole_file)["state_dict"]
    file = tmp_path / "damaged.ckpt"
    rng = np.random.default_rng(0)
    for position in (*rng.integers(0, len(whole), size=40), len(whole) // 2):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))  # a single bit
        file.write_bytes(damaged)
        try:
            weights = read_checkpoint(file)["state_dict"]
        except ValueError:
            continue
        # The bit was one of the padding, or of a date of the archive.
        for name, value in original.items():
            assert torch.equal(value, weights[name])
    archive = ZipFile(whole_file)
    name = next(name for name in archive.namelist() if "/data/" in name)
    start = whole.index(archive.read(name))
    file.write_bytes(whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :])
    message = r"damaged\.ckpt: expected a checkpoint of this project, got a damaged file"
    with pytest.raises(ValueError, match=message):
        FlowerPredictor(file)
    with pytest.raises(ValueError, match="got a damaged file"):
        training.main(["test", "--ckpt_path", str(file)])


def test_a_damaged_state_of_the_optimizer_is_refused(task_checkpoint, tmp_path):
    last = task_checkpoint.parent / "last.ckpt"
    state = torch.load(last, weights_only=True)["optimizer_states"][0]["state"]
    averages = [entry["exp_avg"] for entry in state.values() if "exp_avg" in entry]
    # Averages of convolutions may be stored in another order (channels last).
    flat = [average for average in averages if average.ndim <= 2]
    largest = max(flat, key=torch.Tensor.numel)
    content = bytearray(last.read_bytes())
    position = content.find(largest.contiguous().numpy().tobytes())
    assert position > 0
    content[position + 3] ^= 64
    (tmp_path / "flipped.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match="got a damaged file"):
        training.main(["fit", "--ckpt_path", str(tmp_path / "flipped.ckpt")])


@pytest.mark.parametrize("number", [None, FORMAT + 1])
def test_a_checkpoint_of_another_format_is_refused(number, best, tmp_path):
    checkpoint = torch.load(best, weights_only=True)
    torch.save(checkpoint | {"format": number}, tmp_path / "x.ckpt")
    message = f"expected a checkpoint of format {FORMAT}, got {number}. Use the version of flowers"
    with pytest.raises(ValueError, match=message):
        FlowerPredictor(tmp_path / "x.ckpt")


def test_callbacks_and_classes_from_elsewhere_in_a_stored_config_are_not_used(best, tmp_path):
    checkpoint = torch.load(best, weights_only=True)
    config = yaml.safe_load(checkpoint["config"])
    config["trainer"]["callbacks"] = [{"class_path": "lightning.pytorch.callbacks.LambdaCallback"}]
    file = tmp_path / "hostile.ckpt"
    write_with_config(file, checkpoint, config)
    options = stored_config(read_checkpoint(file), "fit")
    assert "callbacks" not in options["trainer"]
    config["model"]["class_path"] = "antigravity.Task"
    write_with_config(file, checkpoint, config)
    with pytest.raises(ValueError, match="its model is not part of this package"):
        training.main(["test", "--ckpt_path", str(file)])


HOSTILE_OPTIONS = [
    {"data": {"augment": {"class_path": "spy.Augment"}}},
    {"data": {"augment": "spy.Augment"}},
    {"model": {"class_path": "flowers.CNNTask", "init_args": {"lr": {"class_path": "spy.Rate"}}}},
    {"freeze": {"class_path": "spy.Freeze"}},
    {"optimizer": {"class_path": "spy.Optimizer"}, "lr_scheduler": {"class_path": "spy.Schedule"}},
]


@pytest.mark.parametrize("hostile", HOSTILE_OPTIONS, ids="-".join)
@pytest.mark.parametrize("command", ["validate", "fit"])
def test_a_stored_config_imports_no_code(command, hostile, best, tmp_path, monkeypatch):
    (tmp_path / "spy.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    checkpoint = torch.load(best, weights_only=True)
    config = yaml.safe_load(checkpoint["config"])
    for key, value in hostile.items():
        config[key] = (config.get(key) or {}) | value
    file = tmp_path / "x.ckpt"
    write_with_config(file, checkpoint, config)
    if "optimizer" in hostile:  # left out, as callbacks are
        options = stored_config(read_checkpoint(file), command)
        assert not {"optimizer", "lr_scheduler"} & options.keys()
        return
    message = "its configuration names code other than a model of this package"
    with pytest.raises(ValueError, match=message):
        training.main([command, "--ckpt_path", str(file)])


@pytest.mark.parametrize("widths", ["[8,16,32]", "[8,24]"])
def test_evaluating_with_options_of_another_network_is_refused(widths, best):
    message = r"--ckpt_path .*: its network is CNNTask .*, the options .* define"
    with pytest.raises(ValueError, match=message):
        training.main(["validate", "--ckpt_path", str(best), "--model.widths", widths])


def test_resuming_with_a_config_of_another_network_is_refused(one_epoch_run, tmp_path):
    before = modification_times(tmp_path)
    resume = ["--ckpt_path=last", f"--trainer.default_root_dir={tmp_path}"]
    cnn = ["--config", str(CONFIGS / "cnn.yaml"), "--model.widths=[48,96,192]"]
    transfer = ["--config", str(CONFIGS / "transfer.yaml")]
    own = r"its network is CNNTask widths \[8, 16\]"
    with pytest.raises(ValueError, match=rf"{own}.* define CNNTask widths \[48, 96, 192\]"):
        training.main(["fit", *resume, *cnn])
    with pytest.raises(ValueError, match=rf"{own}.* define TransferTask arch mobilenet_v2"):
        training.main(["fit", *resume, *transfer])
    assert modification_times(tmp_path) == before


@pytest.mark.filterwarnings("ignore:.*will be overridden by")
def test_a_resumed_run_needs_its_optimizer_given_again(fit_small, load_last, synthetic, tmp_path):
    optimizer = ["--optimizer=torch.optim.SGD", "--optimizer.lr=0.1", "--optimizer.momentum=0.5"]
    fit_small(tmp_path, synthetic, "--trainer.max_epochs=1", *optimizer)
    words = ["--ckpt_path=last", f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=2"]
    message = r"Give again: --optimizer torch\.optim\.SGD --optimizer\.lr 0\.1"
    with pytest.raises(ValueError, match=message) as refused:
        training.main(["fit", *words])
    missing = str(refused.value).partition("Give again: ")[2].split()
    training.main(["fit", *words, *missing])
    assert load_last(tmp_path / "lightning_logs" / "version_0")["epoch"] == 1


@pytest.mark.parametrize("limit", ["trainer.max_epochs", "early_stopping.patience"])
def test_resuming_a_finished_run_is_reported_and_changes_no_file(
    fit_small, load_last, limit, *, synthetic, tmp_path, caplog
):
    options = [f"--{limit}=1"]
    if limit == "early_stopping.patience":
        options += ["--model.lr=1e-9", "--model.ema_decay=null"]  # it does not improve
    fit_small(tmp_path, synthetic, *options)
    run = tmp_path / "lightning_logs" / "version_0"
    before = modification_times(tmp_path)
    num_epochs = load_last(run)["epoch"]
    words = ["fit", "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    with pytest.raises(SystemExit) as ended:
        training.main(words)
    assert ended.value.code == 0
    assert "this run is finished" in caplog.text
    assert modification_times(tmp_path) == before
    training.main([*words, f"--{limit}=2"])
    assert load_last(run)["epoch"] > num_epochs


def test_a_run_without_a_best_checkpoint_names_its_last(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(FileNotFoundError, match=r"no epoch was validated\. Give .*last\.ckpt"):
        read_checkpoint(tmp_path)


class Call:
    """Becomes a call of a function when its pickle is loaded."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


HOSTILE_VALUES = {
    "bytearray": Call(bytearray, 2**40),
    "storage": Call(torch.UntypedStorage, 2**40),
    "tensor": Call(torch.Tensor, 2**20, 2**20),
    "code": Call(print, "loaded"),
}


@pytest.mark.parametrize("name", HOSTILE_VALUES)
def test_a_checkpoint_takes_no_more_memory_than_its_file(name, best, tmp_path, capsys):
    checkpoint = torch.load(best, weights_only=True)
    torch.save(checkpoint | {"x": HOSTILE_VALUES[name]}, tmp_path / "x.ckpt")
    reason = "code or other objects instead of weights and plain values"
    message = rf"x\.ckpt: expected a checkpoint of this project, got {reason}$"
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / "x.ckpt")
    assert capsys.readouterr().out == ""


def test_the_states_of_schedulers_and_plain_values_are_read(tmp_path):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1)
    steps = MultiStepLR(optimizer, [3, 3, 5])
    schedules = SequentialLR(optimizer, [steps, CosineAnnealingLR(optimizer, 4)], [6])
    state = {"scheduler": schedules.state_dict(), "dtype": torch.bfloat16, "set": {1, 2}}
    torch.save(state, tmp_path / "x.pth")
    assert load_weights(tmp_path / "x.pth") == state


def test_a_weight_beyond_the_end_of_its_file_is_refused(tmp_path):
    file = tmp_path / "x.pth"
    torch.save({"weight": torch.zeros(200)}, file)
    with ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with ZipFile(file, "w") as archive:
        for name, content in parts.items():
            # K and M are the opcodes of a number of one and of two bytes.
            archive.writestr(name, content.replace(b"K\xc8", b"M\xff\xff"))
    with pytest.raises(RuntimeError, match="storage"):
        load_weights(file)


def test_a_compressed_checkpoint_is_refused(best, tmp_path):
    with ZipFile(best) as archive, ZipFile(tmp_path / "x.ckpt", "w", ZIP_DEFLATED) as compressed:
        for name in archive.namelist():
            compressed.writestr(name, archive.read(name))
    with pytest.raises(ValueError, match=r"a file that torch\.save did not write"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_a_file_of_an_old_torch_is_read_and_checked_too(tmp_path):
    file = tmp_path / "x.pth"
    torch.save({"a": torch.ones(3)}, file, _use_new_zipfile_serialization=False)
    assert load_weights(file)["a"].tolist() == [1, 1, 1]
    torch.save({"a": Call(bytearray, 2**40)}, file, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="code or other objects"):
        load_weights(file)


@pytest.mark.parametrize("options", [{"depth": 1_000_000}, {"widths": (2**12, 2**12)}])
def test_a_network_larger_than_the_weights_is_not_constructed(options, best, tmp_path):
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["hyper_parameters"] |= options
    config = yaml.safe_load(checkpoint["config"])
    if "depth" in options:
        config["model"]["init_args"] |= options
    file = tmp_path / "x.ckpt"
    write_with_config(file, checkpoint, config)
    message = "expected options of the checkpoint's network, got a larger network"
    with pytest.raises(ValueError, match=message):
        FlowerPredictor(file)
    if "depth" in options:
        with pytest.raises(ValueError, match=message):
            training.main(["test", "--ckpt_path", str(file)])


def test_a_checkpoint_downloads_no_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    task = TransferTask(["a", "b"], arch="squeezenet1_1", weights="none")
    data = {"image_size": 64, "resize": "stretch", "interpolation": "bicubic"}
    checkpoint = {
        "format": FORMAT,
        "state_dict": task.state_dict(),
        "hyper_parameters": dict(task.hparams) | {"weights": "DEFAULT"},
        "FlowersDataModule": data,
    }
    config = {"model": {"class_path": "flowers.TransferTask"}}
    write_with_config(tmp_path / "x.ckpt", checkpoint, config)
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    assert FlowerPredictor(tmp_path / "x.ckpt", device="cpu")(image).label in ("a", "b")
    assert not [*tmp_path.rglob("*.pth")]


def test_a_stored_config_has_a_bounded_number_of_aliases(best, tmp_path):
    checkpoint = torch.load(best, weights_only=True)
    text = "a0: &a0 {x: 1, y: 2}\n"
    for number in range(1, 40):
        text += f"a{number}: &a{number} {{x: *a{number - 1}, y: *a{number - 1}}}\n"
    torch.save(checkpoint | {"config": text}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"x\.ckpt: .*more than 20 aliases"):
        training.main(["test", "--ckpt_path", str(tmp_path / "x.ckpt")])
    assert read_config("a: &a [1]\nb: *a\n") == {"a": [1], "b": [1]}
