"""Processes that somebody else started."""

from __future__ import annotations

import pytest

from flowers.launch import check_world_size, launched_devices


@pytest.fixture(autouse=True)
def nobody_started_any(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


def test_a_plain_start_is_left_to_lightning():
    assert launched_devices() == {}
    check_world_size(1)
    check_world_size(4)


def test_torchrun_says_how_many_there_are(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    assert launched_devices() == {"devices": 3, "num_nodes": 2}
    check_world_size(6)
    with pytest.raises(ValueError, match=r"--trainer\.devices, --trainer\.num_nodes: .* 6 started by torchrun, got 1"):
        check_world_size(1)


def test_srun_is_believed_too(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(ValueError, match="2 started by srun, got 1"):
        check_world_size(1)
