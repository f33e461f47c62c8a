"""Processes that somebody else started."""

from __future__ import annotations

import pytest

from flowers import cli, predict
from flowers.launch import check_num_nodes, check_world_size, launched_devices


@pytest.fixture(autouse=True)
def nobody_started_any(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)


def test_a_plain_start_is_left_to_lightning():
    assert launched_devices() == {}
    check_world_size(1)
    check_world_size(4)
    check_num_nodes(1)


def test_torchrun_says_how_many_there_are(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    assert launched_devices() == {"devices": 3, "num_nodes": 2}
    check_world_size(6)
    check_num_nodes(2)
    with pytest.raises(ValueError, match=r"--trainer\.devices, --trainer\.num_nodes: .* 6 started by torchrun, got 1"):
        check_world_size(1)


def test_srun_is_believed_too(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(ValueError, match="2 started by srun, got 1"):
        check_world_size(1)
    check_num_nodes(2)


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (cli.main, ["fit"]),
        (cli.main, ["fit", "--trainer.devices", "2"]),
        (predict.main, ["--ckpt_path", "best.ckpt", "--data.predict_path", "photos"]),
    ],
)
def test_no_machine_is_waited_for_in_vain(main, words):
    with pytest.raises(ValueError, match=r"--trainer\.num_nodes 2: .* use torchrun --nnodes, .* or srun"):
        main([*words, "--trainer.num_nodes", "2"])


def test_processes_may_be_started_by_hand(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    check_num_nodes(2)
