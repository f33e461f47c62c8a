"""Leaves what a run needs to be believed and repeated, and says at its end where everything lies."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from flowers.callbacks.checkpoint import SaveBest
from flowers.callbacks.tensorboard import ForgivingLogger
from flowers.data import FlowersDataModule, manifest_text
from flowers.run_folder import numbered, write_new


class SaveRunConfig(SaveConfigCallback):
    """Writes ``config.yaml`` and ``manifest.csv`` into the run folder; TensorBoard and checkpoints get the config too.

    A resumed run that was given other options, or other data, adds files with a number instead of
    replacing any.
    """

    @property
    def config_text(self) -> str:
        """The resolved configuration as YAML."""
        text: str = self.parser.dump(self.config, skip_none=False)
        return text

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the files when a fit begins (Lightning calls this in one process only)."""
        logger = trainer.logger
        log_dir = getattr(logger, "log_dir", None)
        if stage != "fit" or log_dir is None:
            return
        folder = Path(log_dir)
        _write_new(folder / "config.yaml", self.config_text)
        if isinstance(data := trainer.datamodule, FlowersDataModule):  # type: ignore[attr-defined]
            _write_new(folder / "manifest.csv", manifest_text(data.manifest_rows()))
        if isinstance(logger, ForgivingLogger):
            text = f"```yaml\n{self.config_text}\n```"
            logger.attempt(lambda: logger.experiment.add_text("config", text, trainer.global_step))

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the configuration into the checkpoint, from which later verbs take what is not typed."""
        config = self.config.clone()
        for key in ("data.root", "data.manifest", "data.quarantine", "data.cache_dir"):
            if config.get(key) is not None:  # the checkpoint may be used from another folder
                config[key] = str(Path(config[key]).expanduser().absolute())
        checkpoint["config"] = self.parser.dump(config, skip_none=False)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the summary."""
        best = next(
            (
                callback
                for callback in trainer.checkpoint_callbacks
                if isinstance(callback, SaveBest)
            ),
            None,
        )
        if not (trainer.is_global_zero and best is not None and best.best_model_path):
            return
        checkpoint, run = (
            _relative(best.best_model_path),
            _relative(Path(best.best_model_path).parent.parent),
        )
        print(
            f"\nBest epoch       {best.best_epoch} of {trainer.current_epoch} (counted from 0)\n"
            f"  {best.monitor:<14} {best.best_model_score:.4f}  (val/loss {best.best_loss:.4f}), selected on it\n"
            f"Run folder       {run}\n"
            f"Best checkpoint  {checkpoint}\n"
            f"Test it          python -m flowers test --ckpt_path {shlex.quote(str(run))}\n"
            f"See the curves   tensorboard --logdir {shlex.quote(str(run.parent))}\n"
        )


def _relative(path: str | Path) -> Path:
    """Return the path as seen from the working folder, where that is shorter."""
    relative = Path(os.path.relpath(path))
    return Path(path) if relative.parts[:1] == ("..",) else relative


def _write_new(file: Path, text: str) -> None:
    """Write a file, or one with the next free number where another text stands there already."""
    content = text.encode("utf-8", "surrogateescape")
    number = 1
    while (earlier := numbered(file, number)).exists():
        if earlier.read_bytes() == content:
            return
        number += 1
    write_new(file.parent, {file.name: content}, option="--trainer.default_root_dir")
