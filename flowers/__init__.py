"""Turn a folder of labelled photos into a classifier a person can trust."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowers.data import FlowersDataModule
    from flowers.deploy import FlowerPredictor
    from flowers.tasks import CNNTask, TransferTask

__all__ = ["CNNTask", "FlowerPredictor", "FlowersDataModule", "TransferTask"]

__version__ = version("flowers")
_MODULES = {
    "CNNTask": "flowers.tasks",
    "FlowerPredictor": "flowers.deploy",
    "FlowersDataModule": "flowers.data",
    "TransferTask": "flowers.tasks",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import a class when it is accessed: ``python -m flowers --help`` must not import torch."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'flowers' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names in the package, including classes that are not imported yet."""
    return sorted([*globals(), *__all__])
