"""Configuration and manifest of a run."""

from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from flowers.callbacks.tensorboard import FailSafeTensorBoardLogger
from flowers.data import FlowersDataModule, manifest_text
from flowers.run_folder import write_new


class SaveRunConfig(SaveConfigCallback):
    """Writes ``config.yaml`` and ``manifest.csv`` into the run folder.

    TensorBoard and checkpoints store the configuration too. A run that is resumed with other
    options or other data adds numbered files and replaces none.
    """

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the files when ``fit`` begins (Lightning calls this method in one process only)."""
        logger = trainer.logger
        log_dir = getattr(logger, "log_dir", None)
        if stage != "fit" or log_dir is None:
            return
        config = self.parser.dump(self.config, skip_none=False)
        _write_new(Path(log_dir, "config.yaml"), config)
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, FlowersDataModule):
            _write_new(Path(log_dir, "manifest.csv"), manifest_text(data.manifest_rows()))
        if isinstance(logger, FailSafeTensorBoardLogger):
            text = f"```yaml\n{config}\n```"
            logger.attempt(lambda: logger.experiment.add_text("config", text, trainer.global_step))

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the configuration, whose values are the defaults of later commands."""
        checkpoint["config"] = self._stored_config

    @cached_property
    def _stored_config(self) -> str:
        """The configuration with absolute paths, for commands run in another working directory."""
        config = self.config.clone()
        for key in ("data.root", "data.manifest", "data.quarantine", "data.cache_dir"):
            if config.get(key) is not None:
                config[key] = str(Path(config[key]).absolute())
        return self.parser.dump(config, skip_none=False)


def _write_new(file: Path, text: str) -> None:
    """Write a file with the next free number, unless an earlier file already has this text."""
    content = text.encode("utf-8", "surrogateescape")
    for earlier in file.parent.glob(f"{file.stem}*{file.suffix}"):
        if earlier.read_bytes() == content:
            return
    write_new(file.parent, {file.name: content}, option="`default_root_dir`")
