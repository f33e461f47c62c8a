"""Processes that somebody else started."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flowers.cli import training
from flowers.cli.predict import predict
from flowers.runtime import check_num_nodes, launched_devices, plan_devices

CPU = {"accelerator": "cpu"}


@pytest.fixture(autouse=True)
def nobody_started_any(monkeypatch):
    torchrun = ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    for name in (*torchrun, "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_a_plain_start_is_left_to_lightning():
    assert launched_devices() == {}
    assert plan_devices(**CPU, devices=4, num_nodes=1).world_size == 4
    check_num_nodes(1)


def test_torchrun_says_how_many_there_are(monkeypatch):
    said = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3"}
    said |= {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1",
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert launched_devices() == {"devices": 3, "num_nodes": 2}
    assert plan_devices(**CPU, **launched_devices()).world_size == 6
    check_num_nodes(2)
    with pytest.raises(
        ValueError,
        match=r"--trainer\.num_nodes: .* 6 processes, as many as torchrun launched, got 1",
    ):
        plan_devices(**CPU, devices=1, num_nodes=1)


def test_srun_is_believed_too(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(ValueError, match="2 processes, as many as srun launched, got 1"):
        plan_devices(**CPU, devices=1, num_nodes=1)
    check_num_nodes(2)


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (training.main, ["fit"]),
        (training.main, ["fit", "--trainer.devices", "2"]),
    ],
)
def test_no_machine_is_waited_for_in_vain(main, words):
    with pytest.raises(
        ValueError, match=r"--trainer\.num_nodes 2: .* use torchrun --nnodes, .* or srun"
    ):
        main([*words, "--trainer.num_nodes", "2"])


def test_predict_waits_for_no_machine_in_vain(synthetic):
    with pytest.raises(ValueError, match=r"--num_nodes 2: .* use torchrun --nnodes, .* or srun"):
        predict([str(synthetic)], ckpt_path="best.ckpt", num_nodes=2)


@pytest.mark.parametrize("name", ["MASTER_ADDR", "OMPI_COMM_WORLD_SIZE"])
def test_processes_may_be_started_by_hand_or_by_mpirun(monkeypatch, name):
    monkeypatch.setenv(name, "2")
    check_num_nodes(2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_missed_before_there_is_a_run_folder(synthetic, tmp_path):
    overlay = Path(__file__).parents[1] / "configs" / "multi_gpu.yaml"
    with pytest.raises(
        ValueError, match=r"--trainer\.accelerator gpu .* expected devices of this machine, got No"
    ):
        training.main(["fit", "--config", str(overlay), "--data.root", str(synthetic)])
    assert not (tmp_path / "lightning_logs").exists()
