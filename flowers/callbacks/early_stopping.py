"""Ends a training that no longer improves."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import callbacks


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's early stopping, whose patience can be changed when a run is resumed."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state; Lightning would restore the patience too, over the user's."""
        super().load_state_dict(state_dict | {"patience": self.patience})
