"""Turn a folder of labelled photos into a classifier a person can trust."""

from __future__ import annotations

from typing import Any

__all__ = ["FlowerPredictor"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import the predictor when it is asked for: ``python -m flowers --help`` must not wait for torch."""
    if name == "FlowerPredictor":
        from flowers.inference import FlowerPredictor  # noqa: PLC0415

        return FlowerPredictor
    raise AttributeError(f"module 'flowers' has no attribute {name!r}")
