"""What happens around training."""

from flowers.callbacks.batch import PrintEffectiveBatch
from flowers.callbacks.calibrate import Calibrate
from flowers.callbacks.checkpoint import AtomicCheckpointIO, SaveBest, SaveLast
from flowers.callbacks.collect import is_all
from flowers.callbacks.console import PrintEpochs, PrintInterval, console_callbacks
from flowers.callbacks.early_stopping import EarlyStopping
from flowers.callbacks.freeze import FreezeBackbone
from flowers.callbacks.guard import StopOnBadLoss
from flowers.callbacks.hold import HoldRunFolder
from flowers.callbacks.monitor import check_monitor, linked_mode
from flowers.callbacks.record import RecordRun
from flowers.callbacks.report import WriteReport
from flowers.callbacks.resume import ResumeEpoch
from flowers.callbacks.seed import SeedSteps
from flowers.callbacks.signals import StopOnSignal
from flowers.callbacks.tensorboard import ForgivingLogger, LogToTensorBoard
from flowers.callbacks.warn_at_chance import WarnAtChance

__all__ = [
    "AtomicCheckpointIO",
    "Calibrate",
    "EarlyStopping",
    "ForgivingLogger",
    "FreezeBackbone",
    "HoldRunFolder",
    "LogToTensorBoard",
    "PrintEffectiveBatch",
    "PrintEpochs",
    "PrintInterval",
    "RecordRun",
    "ResumeEpoch",
    "SaveBest",
    "SaveLast",
    "SeedSteps",
    "StopOnBadLoss",
    "StopOnSignal",
    "WarnAtChance",
    "WriteReport",
    "check_monitor",
    "console_callbacks",
    "is_all",
    "linked_mode",
]
