"""Predictions to numbers, tables and figures; no Lightning."""

from flowers.evaluation.intervals import wilson_interval

__all__ = ["wilson_interval"]
