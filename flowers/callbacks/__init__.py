"""What happens around training."""

from flowers.callbacks.checkpoint import SaveBest, SaveLast
from flowers.callbacks.guard import StopOnBadLoss
from flowers.callbacks.predictions import WritePredictions
from flowers.callbacks.progress import PrintEpochs
from flowers.callbacks.record import RecordRun
from flowers.callbacks.seed import SeedSteps

__all__ = ["PrintEpochs", "RecordRun", "SaveBest", "SaveLast", "SeedSteps", "StopOnBadLoss", "WritePredictions"]
