"""What must happen at the start of the process, before Lightning is imported."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from pathlib import Path

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # Linux's control groups, version 2
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def prepare() -> None:
    """Set the allocator and the threads, and stop where torch and torchvision do not fit together.

    Raises:
        SystemExit: torchvision is built for another torch.
    """
    keep_freed_memory()
    end_with_the_starter()
    import torch  # noqa: PLC0415 (the allocator comes first)

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(num_allowed_cores())
    # TensorFloat-32 for float32 matrix products, where a GPU has it; nothing changes elsewhere.
    torch.set_float32_matmul_precision("high")
    try:
        import torchvision  # noqa: F401, PLC0415
    except RuntimeError as error:
        sys.exit(
            f"flowers: torch {torch.__version__} and the installed torchvision are builds that do not fit together "
            f"({error}). Install both from one index, for example: pip install --force-reinstall torch torchvision"
        )


def end_with_the_starter() -> None:
    """Have Linux end this process when the one that started it dies, if that was Lightning or torchrun.

    Killed while they look for each other, Lightning's first process would leave the others waiting
    for half an hour. Killed at any time, torchrun would leave all of them on the devices; they may
    save before they end.
    """
    if sys.platform == "linux" and "LOCAL_RANK" in os.environ:
        number = signal.SIGTERM if "TORCHELASTIC_RUN_ID" in os.environ else signal.SIGKILL
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step instead of handing it back to the system.

    Every training step allocates the same large blocks; mapping and zeroing them anew takes up to
    40 % of a step on a small CPU. Does nothing outside of glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_MMAP_MAX, 0)


def num_allowed_cores() -> int:
    """Return how many cores this process may use: of the machine, of its affinity mask, of its control group."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        quota, period = _CPU_MAX.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))
