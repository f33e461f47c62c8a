"""Devices and processes: those asked for, and those that torchrun or SLURM started."""

from __future__ import annotations

import os

from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException


def launched_devices() -> dict[str, int]:
    """Return Lightning's ``devices`` and ``num_nodes`` under torchrun, which knows them; else nothing."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return {}
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return {"devices": here, "num_nodes": int(os.environ["WORLD_SIZE"]) // here}


def check_num_nodes(num_nodes: int) -> None:
    """Stop where the other machines would be waited for in vain: Lightning starts processes on its own one only.

    Args:
        num_nodes: Number of machines.

    Raises:
        ValueError: Nobody started anything on the others.
    """
    # With MASTER_ADDR and NODE_RANK, which Lightning reads too, somebody starts it on each machine
    # by hand; or jsrun or mpirun does.
    elsewhere = {"MASTER_ADDR", "JSM_NAMESPACE_SIZE", "OMPI_COMM_WORLD_SIZE"}
    if num_nodes > _started()[0] and elsewhere.isdisjoint(os.environ):
        raise ValueError(
            f"--trainer.num_nodes {num_nodes}: expected to be started on each of the machines, got a start on this one "
            "only; use torchrun --nnodes, which needs no --trainer.num_nodes, or srun"
        )


def plan_devices(*, accelerator: str, devices: int | str | list[int], num_nodes: int) -> Fabric:
    """Return what Lightning makes of the options ``--trainer.…`` of these names, before anything is started.

    Args:
        accelerator: Kind of device.
        devices: How many on a machine, or which.
        num_nodes: Number of machines.

    Raises:
        ValueError: This machine has no such devices, or more processes were started than devices
            asked for: they would each do all the work, over each other's files.
    """
    asked = {"accelerator": accelerator, "devices": devices, "num_nodes": num_nodes}
    try:
        fabric = Fabric(**asked)  # type: ignore[arg-type]
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        words = " ".join(f"--trainer.{name} {value}" for name, value in asked.items())
        raise ValueError(
            f"{words} (typed, or in a --config): expected devices of this machine, got {error}"
        ) from error
    started, starter = _started()
    if started > fabric.world_size:
        raise ValueError(
            f"--trainer.devices, --trainer.num_nodes: expected as many processes as {started} started by {starter}, "
            f"got {fabric.world_size}; under torchrun leave both out, else give a machine's devices and the number of "
            "machines"
        )
    return fabric


def _started() -> tuple[int, str]:
    """Return how many processes were started, and by what."""
    starter = "torchrun" if "TORCHELASTIC_RUN_ID" in os.environ else "srun"
    number = "WORLD_SIZE" if starter == "torchrun" else "SLURM_STEP_NUM_TASKS"
    return int(os.environ.get(number, "1")), starter
