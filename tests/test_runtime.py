"""Threads, devices and processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flowers import runtime
from flowers.__main__ import run_function
from flowers.checkpoint import read_checkpoint
from flowers.cli import training
from flowers.cli.predict import predict
from flowers.runtime import check_num_nodes, launched_devices, plan_devices

CPU = {"accelerator": "cpu"}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    torchrun = ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    for name in (*torchrun, "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_launcher_lightning_starts_the_processes():
    assert launched_devices() == {}
    assert plan_devices(**CPU, devices=1, num_nodes=1).world_size == 1
    check_num_nodes(1)


def test_more_processes_than_cores_are_refused(monkeypatch, synthetic, tmp_path):
    monkeypatch.setattr(runtime, "num_allowed_cores", lambda: 4)
    assert plan_devices(**CPU, devices=4, num_nodes=1).world_size == 4
    assert plan_devices(**CPU, devices=4, num_nodes=2).world_size == 8
    with pytest.raises(ValueError, match="`devices` 5: expected at most 4"):
        plan_devices(**CPU, devices=5, num_nodes=1)
    words = ["--data.root", str(synthetic), "--trainer.accelerator", "cpu"]
    with pytest.raises(
        ValueError, match=r"--trainer\.devices 99: expected at most 4, one for each core"
    ):
        training.main(["fit", *words, "--trainer.devices", "99"])
    assert not (tmp_path / "lightning_logs").exists()


def test_torchrun_gives_the_number_of_processes(monkeypatch):
    variables = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3"}
    for name in ("RANK", "LOCAL_RANK", "GROUP_RANK"):
        variables[name] = "0"
    variables |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched_devices() == {"devices": 3, "num_nodes": 2}
    assert plan_devices(**CPU, **launched_devices()).world_size == 6
    check_num_nodes(2)
    with pytest.raises(
        ValueError,
        match=r"`num_nodes`: .* 6 processes, as many as torchrun launched, got 1",
    ):
        plan_devices(**CPU, devices=1, num_nodes=1)


def test_srun_gives_the_number_of_processes(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(ValueError, match="2 processes, as many as srun launched, got 1"):
        plan_devices(**CPU, devices=1, num_nodes=1)
    check_num_nodes(2)


@pytest.mark.parametrize("words", [[], ["--trainer.devices", "2"]])
def test_fit_on_several_machines_needs_a_launcher(words):
    message = r"--trainer\.num_nodes 2: .* use torchrun --nnodes, .* or srun"
    with pytest.raises(ValueError, match=message):
        training.main(["fit", *words, "--trainer.num_nodes", "2"])


def test_predict_on_several_machines_needs_a_launcher(synthetic):
    words = [str(synthetic), "--ckpt_path", "best.ckpt", "--num_nodes", "2"]
    with pytest.raises(ValueError, match=r"--num_nodes 2: .* use torchrun --nnodes, .* or srun"):
        run_function(predict, words)


@pytest.mark.parametrize("name", ["MASTER_ADDR", "OMPI_COMM_WORLD_SIZE"])
def test_processes_may_be_launched_by_hand_or_by_mpirun(monkeypatch, name):
    monkeypatch.setenv(name, "2")
    check_num_nodes(2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_reported_before_there_is_a_run_folder(synthetic, tmp_path):
    overlay = Path(__file__).parents[1] / "configs" / "multi_gpu.yaml"
    with pytest.raises(
        ValueError, match=r"--trainer\.accelerator gpu .* expected devices of this machine, got No"
    ):
        training.main(["fit", "--config", str(overlay), "--data.root", str(synthetic)])
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 4), ("150000 100000", 2), ("10000 100000", 1), ("x", 4)]
)
def test_the_number_of_cores_follows_affinity_and_cgroup(quota, cores, monkeypatch, tmp_path):
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    monkeypatch.setattr(runtime, "CPU_MAX", file)
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert runtime.num_allowed_cores() == cores


def test_a_torchvision_of_another_torch_is_reported(monkeypatch):
    class BrokenTorchvision:
        def find_spec(self, name, path=None, target=None):
            if name == "torchvision":
                raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # other tests use one
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda precision: None)
    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.setattr(sys, "meta_path", [BrokenTorchvision(), *sys.meta_path])
    with pytest.raises(
        SystemExit,
        match=r"do not match.*nms.*pip install --force-reinstall torch torchvision",
    ):
        runtime.prepare()


@pytest.mark.slow
def test_two_processes_of_torchrun_evaluate_as_one_does(run_in_two, synthetic, tmp_path):
    cpu = "--trainer.accelerator=cpu"
    # Nine batches to validate and to test: four for the first process, five for the second.
    words = [f"--data.root={synthetic}", "--data.batch_size=5", "--data.image_size=32"]
    words += ["--data.crop_size=24", "--data.val_fraction=0.3", "--data.test_fraction=0.3"]
    words += ["--model.widths=[8,16]", "--model.ema_decay=0.5", "--trainer.max_epochs=5"]
    run_in_two(["fit", cpu, *words])
    [run] = (tmp_path / "lightning_logs").iterdir()
    file = run / "checkpoints" / "best.ckpt"
    best = read_checkpoint(file)
    validated = training.main(["validate", f"--ckpt_path={file}"])
    assert 0.05 < best["calibration"]["temperature"] < 20
    assert validated.model.calibration == best["calibration"]
    events = EventAccumulator(str(run)).Reload()
    for name, value in validated.trainer.callback_metrics.items():
        logged = events.Scalars(name)[best["epoch"]].value
        assert logged == pytest.approx(float(value), rel=1e-6), name

    tested_by_two, _ = run_in_two(["test", cpu, f"--ckpt_path={file}"])
    tested_by_one = training.main(["test", f"--ckpt_path={file}"]).trainer.callback_metrics
    expected = {name: float(value) for name, value in tested_by_one.items()}
    assert tested_by_two == pytest.approx(expected, rel=1e-6)
    report_of_two = json.loads((run / "report.json").read_text())
    report_of_one = json.loads((run / "report-2.json").read_text())
    assert report_of_two["images"] == 45
    # The durations and devices differ.
    assert report_of_two["details"].pop("Test") != report_of_one["details"].pop("Test")
    assert report_of_two == report_of_one
    assert (run / "predictions.csv").read_bytes() == (run / "predictions-2.csv").read_bytes()

    resume = ["--ckpt_path", "last", "--trainer.devices", "1", "--trainer.max_epochs", "6"]
    message = r"processes: 1 \(before: 2\), images a step: 5 \(before: 10\)"
    with pytest.warns(UserWarning, match=message):
        training.main(["fit", *resume])
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["epoch"] == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected a folder with one folder of images per class, got no"),
        (["--data.folds", "30", "--data.test_fraction", "0"], "--data.root: class"),
    ],
)
def test_an_error_of_the_data_ends_both_processes_and_leaves_no_run_folder(
    words, message, run_in_two, photos, tmp_path
):
    root = photos(cat=6, dog=6) if words else "missing"
    words += ["--data.root", str(root), "--trainer.accelerator", "cpu"]
    _, printed = run_in_two(["fit", *words], status=1)
    assert message in printed
    assert not (tmp_path / "lightning_logs").exists()


def _curves(folder):
    """Return the curves of the run below a folder."""
    events = EventAccumulator(str(folder / "lightning_logs" / "version_0")).Reload()
    curves = {}
    for name in ("train/loss", "train/acc", "val/loss", "val/acc"):
        curves[name] = [event.value for event in events.Scalars(name)]
    return curves


@pytest.mark.slow
def test_two_processes_of_torchrun_learn_as_one_with_twice_the_batch(
    run_in_two, synthetic, tmp_path, capsys
):
    # Without batch norm, dropout and mixing of images, which depend on the batch of a process.
    words = ["--model", "TransferTask", "--model.arch", "squeezenet1_1", "--model.weights", "none"]
    words += ["--model.dropout", "0", "--data.augment.cutmix_prob", "0"]
    words += ["--data.augment.mixup_prob", "0", "--data.root", str(synthetic)]
    words += ["--data.image_size", "48", "--data.crop_size", "40", "--trainer.max_epochs", "3"]
    words += ["--trainer.accelerator", "cpu", "--trainer.default_root_dir"]
    message = "Effective batch: 16 images a step (processes: 2, --data.batch_size 8"

    training.main(["fit", *words, "one", "--data.batch_size", "16"])
    assert message not in "".join(capsys.readouterr())
    _, printed = run_in_two(["fit", *words, "two", "--data.batch_size", "8"])
    assert message in printed
    one = _curves(tmp_path / "one")
    assert one["train/loss"][0] > one["train/loss"][2]
    for name, values in _curves(tmp_path / "two").items():
        assert values == pytest.approx(one[name], rel=2e-4), name
