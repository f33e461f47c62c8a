"""Processes that somebody else started: torchrun, or SLURM."""

from __future__ import annotations

import os


def launched_devices() -> dict[str, int]:
    """Return Lightning's ``devices`` and ``num_nodes`` under torchrun, which knows them; else nothing."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return {}
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return {"devices": here, "num_nodes": int(os.environ["WORLD_SIZE"]) // here}


def check_world_size(world_size: int) -> None:
    """Stop where several processes were started that would each do all the work, over each other's files.

    Args:
        world_size: Number of processes that work together.

    Raises:
        ValueError: More were started.
    """
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    started = int(os.environ.get("WORLD_SIZE" if under_torchrun else "SLURM_STEP_NUM_TASKS", "1"))
    if started > world_size:
        raise ValueError(
            f"--trainer.devices, --trainer.num_nodes: expected as many processes as {started} started by "
            f"{'torchrun' if under_torchrun else 'srun'}, got {world_size}; give devices on each machine and machines"
        )
