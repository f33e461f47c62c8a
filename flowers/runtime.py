"""Settings of the process: allocator, threads, devices, and which Lightning messages are silenced.

This module is imported before torch and Lightning, which its functions import themselves.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import platform
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.fabric import Fabric

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # control groups of Linux, version 2
# Environment variables of other ways to launch processes: by hand on each machine (MASTER_ADDR),
# by jsrun, or by mpirun.
_OTHER_LAUNCHERS = {"MASTER_ADDR", "JSM_NAMESPACE_SIZE", "OMPI_COMM_WORLD_SIZE"}
# Messages of Lightning that do not apply to this project.
_WARNINGS = (
    ".*does not have many workers.*",  # the cache needs no workers
    ".*callbacks used to create the checkpoint.*",  # evaluation needs fewer callbacks
    ".*loading a checkpoint outside the 'fit' stage.*",
    "Precision .* is not supported by the model summary",
    "Checkpoint directory .* exists and is not empty",  # a run is resumed in its own folder
    ".*is smaller than the logging interval.*",  # with few steps, curves of epochs suffice
    ".*isinstance.treespec, LeafSpec.*",  # Lightning uses a deprecated class of torch
)
_INFOS = (
    "Tip:",
    "Found current_model_state in the checkpoint",
    "TPU available",
    "GPU available",
    "LOCAL_RANK: 0",
    "Restoring states from the checkpoint path",
    "to estimate number of stepping batches",
    "`Trainer.fit` stopped",
)


def prepare() -> None:
    """Set allocator, garbage collector and threads; check that torch and torchvision match.

    Raises:
        SystemExit: torchvision is built for another version of torch.
    """
    keep_freed_memory()
    end_with_launcher()
    # Importing torch and torchvision creates 500,000 objects, which the garbage collector would
    # scan repeatedly.
    gc.disable()
    import torch  # noqa: PLC0415 (the allocator comes first)

    try:
        import torchvision  # noqa: F401, PLC0415
    except RuntimeError as error:
        sys.exit(
            f"flowers: torch {torch.__version__} and the installed torchvision do not match "
            f"({error}). Install both from one index, for example: pip install --force-reinstall "
            f"torch torchvision"
        )
    finally:
        gc.freeze()
        gc.enable()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(num_allowed_cores())
    # Use TensorFloat-32 for float32 matrix products on GPUs that support it.
    torch.set_float32_matmul_precision("high")


def end_with_launcher() -> None:
    """On Linux, end this process when the process of Lightning or torchrun that launched it dies.

    Otherwise a process that Lightning launched would wait for half an hour, and a process that
    torchrun launched would keep its device. Under torchrun the process gets SIGTERM, which lets it
    save a checkpoint first.
    """
    if sys.platform == "linux" and "LOCAL_RANK" in os.environ:
        number = signal.SIGTERM if "TORCHELASTIC_RUN_ID" in os.environ else signal.SIGKILL
        ctypes.CDLL(None).prctl(1, int(number))  # PR_SET_PDEATHSIG of linux/prctl.h


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step instead of returning it to the system.

    Every training step allocates the same large blocks. Mapping and zeroing them again takes up to
    40 % of a step on a small CPU.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD of malloc.h
        libc.mallopt(-4, 0)  # M_MMAP_MAX


def num_allowed_cores() -> int:
    """Return the number of cores this process may use, by its affinity mask and control group."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = map(int, CPU_MAX.read_text(encoding="ascii").split())
    except (OSError, ValueError):  # without a limit, the quota is "max"
        return cores
    return max(1, min(cores, round(quota / period)))


def launched_devices() -> dict[str, int]:
    """Return Lightning's ``devices`` and ``num_nodes`` under torchrun; otherwise an empty dict."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return {}
    devices = int(os.environ["LOCAL_WORLD_SIZE"])
    return {"devices": devices, "num_nodes": int(os.environ["WORLD_SIZE"]) // devices}


def check_num_nodes(num_nodes: int) -> None:
    """Check that each machine has a process: Lightning would wait for ever for missing ones.

    Args:
        num_nodes: Number of machines.

    Raises:
        ValueError: Fewer processes are launched than there are machines.
    """
    num_launched, _ = _launched_processes()
    if num_nodes > num_launched and _OTHER_LAUNCHERS.isdisjoint(os.environ):
        raise ValueError(
            f"`num_nodes` {num_nodes}: expected a launch on every machine, got a launch on this "
            "machine only; use torchrun --nnodes, which needs no `num_nodes`, or srun"
        )


def plan_devices(*, accelerator: str, devices: int | str | list[int], num_nodes: int) -> Fabric:
    """Return a Fabric with the devices that Lightning will use, without launching any process.

    Args:
        accelerator: Kind of device.
        devices: Number of devices of each machine, or their indices.
        num_nodes: Number of machines.

    Raises:
        ValueError: This machine lacks the requested devices, or has fewer cores than processes; or
            more processes were launched than devices are requested, which would overwrite each
            other's files.
    """
    from lightning.fabric import Fabric  # noqa: PLC0415 (takes seconds)

    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes)
    except Exception as error:  # Lightning raises errors of many types
        raise ValueError(
            f"`accelerator` {accelerator} `devices` {devices}: expected devices of this machine, "
            f"got {error}"
        ) from error
    num_launched, launcher = _launched_processes()
    if num_launched > fabric.world_size:
        raise ValueError(
            f"`devices`, `num_nodes`: expected {num_launched} processes, as many as {launcher} "
            f"launched, got {fabric.world_size}; under torchrun leave out both options"
        )
    most = max(num_allowed_cores(), num_launched)
    if fabric.device.type == "cpu" and fabric.world_size > most * num_nodes:
        raise ValueError(f"`devices` {devices}: expected at most {most}, one for each core")
    return fabric


def _launched_processes() -> tuple[int, str]:
    """Return the number of launched processes, and the launcher."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ.get("WORLD_SIZE", "1")), "torchrun"
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")), "srun"


def silence_lightning() -> None:
    """Silence messages of Lightning that do not apply to this project."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_relevant)


def _is_relevant(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(text in message for text in _INFOS)
