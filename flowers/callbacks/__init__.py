"""Lightning callbacks.

A callback with options has a group of them on the command line, such as ``--freeze`` of
``FreezeBackbone``. The others have nothing to choose.
"""

from flowers.callbacks.calibrate import Calibrate
from flowers.callbacks.collect_predictions import is_all
from flowers.callbacks.console import PrintInterval, console_callbacks
from flowers.callbacks.early_stopping import EarlyStopping
from flowers.callbacks.freeze_backbone import FreezeBackbone
from flowers.callbacks.monitor import check_monitor
from flowers.callbacks.print_effective_batch import PrintEffectiveBatch
from flowers.callbacks.resilience.lock_run_folder import LockRunFolder
from flowers.callbacks.resilience.resume_epoch import ResumeEpoch
from flowers.callbacks.resilience.seed_steps import SeedSteps
from flowers.callbacks.resilience.stop_on_signal import StopOnSignal
from flowers.callbacks.resilience.terminate_on_nan import TerminateOnNaN
from flowers.callbacks.save_checkpoint import AtomicCheckpointIO, SaveBest, SaveLast
from flowers.callbacks.save_run_config import SaveRunConfig
from flowers.callbacks.tensorboard import FailSafeTensorBoardLogger, LogToTensorBoard
from flowers.callbacks.warn_at_chance import WarnAtChance
from flowers.callbacks.write_report import WriteReport
