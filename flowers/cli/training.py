"""The command line: Lightning's, with the project's callbacks, links and defaults."""

from __future__ import annotations

from argparse import ArgumentParser
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from flowers.callbacks import (
    AtomicCheckpointIO,
    Calibrate,
    EarlyStopping,
    ForgivingLogger,
    FreezeBackbone,
    LockRunFolder,
    LogToTensorBoard,
    PrintEffectiveBatch,
    PrintInterval,
    ResumeEpoch,
    SaveBest,
    SaveLast,
    SaveRunConfig,
    SeedSteps,
    StopOnSignal,
    TerminateOnNaN,
    WarnAtChance,
    WriteReport,
    check_monitor,
    console_callbacks,
    is_all,
    linked_mode,
)
from flowers.checkpoint import (
    check_network,
    check_optimizer,
    checkpoint_file,
    read_checkpoint,
    stored_config,
    why_finished,
)
from flowers.cli.arguments import OneLineErrors, add_flags, class_parser, find_mistake, option_names
from flowers.cli.known_options import known_options, remember_options
from flowers.cli.short_help import full_help, short_help
from flowers.data import BatchAugmentation, FlowersDataModule
from flowers.launch import check_num_nodes, launched_devices, plan_devices
from flowers.quiet import quieten_lightning
from flowers.run_folder import last_checkpoint, run_folder
from flowers.tasks import ClassificationTask, CNNTask, TransferTask, check_size

_TRAINER_DEFAULTS = {
    "max_epochs": 40,
    "log_every_n_steps": 5,  # Lightning's 50 draws no curve where an epoch has 20 steps
    "use_distributed_sampler": False,  # the data module's sampler counts every image once
}
_DEFAULT_MODEL = "flowers.CNNTask"


class _Parser(OneLineErrors, LightningArgumentParser):
    """A parser with errors in one line."""


class FlowersCLI(LightningCLI):
    """``fit``, ``validate`` and ``test`` for a ``ClassificationTask`` and the ``FlowersDataModule``."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the trainer's methods that are commands; ``predict`` is one of its own, for any photos."""
        commands = LightningCLI.subcommands()
        return {name: commands[name] for name in ("fit", "validate", "test")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks as option groups, and say once what several parts need."""
        parser.add_lightning_class_args(SaveBest, "checkpoint")
        parser.add_lightning_class_args(SaveLast, "last_checkpoint")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(LearningRateMonitor, "lr_monitor")
        parser.add_lightning_class_args(FreezeBackbone, "freeze")
        parser.add_lightning_class_args(Calibrate, "calibration")
        parser.add_lightning_class_args(LogToTensorBoard, "tensorboard")
        parser.add_lightning_class_args(WriteReport, "report")
        parser.set_defaults(
            {
                "model": {"class_path": _DEFAULT_MODEL},
                "early_stopping.patience": 15,
                "early_stopping.check_on_train_epoch_end": False,  # else an epoch without validation is an error
                "lr_monitor.logging_interval": "step",
            }
        )
        parser.link_arguments(
            "data.class_names", "model.init_args.class_names", apply_on="instantiate"
        )
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_integer_seed)
        parser.link_arguments("checkpoint.monitor", "early_stopping.monitor")
        parser.link_arguments(
            ("checkpoint.monitor", "checkpoint.mode"), "early_stopping.mode", linked_mode
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, with the configuration stored in the checkpoint of ``--ckpt_path`` below what is typed."""
        assert isinstance(args, list)
        verb, *rest = args
        self._answer(verb, rest)
        weights = _typed(rest, "--model.weights")
        if weights is not None and Path(weights).is_dir():
            rest += ["--model.weights", str(checkpoint_file(weights))]
        silent = [word for word in rest if not word.startswith("--print_config")]
        ckpt_path = _typed(rest, "--ckpt_path")
        if ckpt_path is None or ckpt_path == "last":
            first = parser.parse_args([verb, *silent])[verb]
            ckpt_path = first.ckpt_path  # a configuration may name it
        if verb == "fit" and ckpt_path == "last":
            ckpt_path = last_checkpoint(Path(first.trainer.default_root_dir or "."))
            rank_zero_info(f"--ckpt_path last: {ckpt_path or 'there is none yet, training begins'}")
            rest += ["--ckpt_path", ckpt_path or "null"]
        elif ckpt_path is not None and Path(ckpt_path).is_dir():
            last = (
                last_checkpoint(Path(ckpt_path)) if verb == "fit" else None
            )  # a training resumes where it was
            ckpt_path = last or str(checkpoint_file(ckpt_path))
            rest += ["--ckpt_path", ckpt_path]
        silent = [word for word in rest if not word.startswith("--print_config")]
        stored: list[str] = []
        if ckpt_path is not None:
            checkpoint = read_checkpoint(ckpt_path)
            stored_values = stored_config(
                checkpoint, verb, ckpt_path=ckpt_path, model=_typed(rest, "--model")
            )
            stored = ["--config", yaml.safe_dump(stored_values)]
            first = parser.parse_args([verb, *stored, *silent])[verb]
            check_network(first.model, stored_values.get("model", {}), ckpt_path=ckpt_path)
        # Else options that this class shares with the default class would keep the default class's
        # defaults.
        self._parser(verb).set_defaults(
            {"model": {"class_path": first.model.class_path}} | _data_defaults(first.model)
        )
        self.config = parser.parse_args([verb, *stored, *rest])
        config = self.config[verb]
        if config.get("model.init_args.class_names") is not None:
            parser.error(
                "--model.class_names: expected nothing here, since the names of the folders are taken"
            )
        if verb != "fit" and config.ckpt_path is None and not config.trainer.fast_dev_run:
            parser.error(
                f"--ckpt_path: expected the checkpoint to {verb}, an untrained network knows nothing"
            )
        if config.trainer.use_distributed_sampler:
            parser.error(
                "--trainer.use_distributed_sampler: expected false, the data module's own sampler shards"
            )
        if config.trainer.log_every_n_steps == 0:
            parser.error(
                "--trainer.log_every_n_steps: expected at least 1; --trainer.logger false logs nothing"
            )
        if verb == "fit" and config.ckpt_path is not None and config.trainer.max_steps != -1:
            parser.error(
                "--trainer.max_steps: expected -1 for a run that goes on, which is counted in epochs"
            )
        check_num_nodes(config.trainer.num_nodes)
        if verb == "fit" and ckpt_path is not None:
            check_optimizer(config, checkpoint, ckpt_path=ckpt_path)
            self._end_if_finished(checkpoint, config, ckpt_path=ckpt_path)

    def _answer(self, verb: str, words: list[str]) -> None:
        """End with status 2 where an option is misspelt, and with status 0 and the help where it is asked for."""
        if problem := find_mistake(words, self._known_options(verb)):
            self._parser(verb).error(problem)
        if {"-h", "--help"} & set(words):
            self._print_help(verb, words)

    def _known_options(self, verb: str) -> list[str]:
        """Return the options of a verb and of the project's own models, and keep them for the next start."""
        if kept := known_options(verb):
            return kept
        own = [f"--model.{name}" for name in ("class_path", "init_args", "dict_kwargs")]
        for task in (CNNTask, TransferTask):
            own += option_names(class_parser(task))
        options = {name: option_names(self._parser(name)) + own for name in self.subcommands()}
        remember_options(options | {"calibrate": options["validate"]})
        return options[verb]

    def _print_help(self, verb: str, words: list[str]) -> None:
        """Print the common options, or after ``--help all`` all of them, and end with status 0."""
        position = next(number for number, word in enumerate(words) if word in ("-h", "--help"))
        is_all_asked = words[position + 1 : position + 2] == ["all"]
        first = self.parser.parse_args(
            [verb, *words[:position], *words[position + 1 + is_all_asked :]]
        )[verb]
        parser, model = self._parser(verb), resolve_name(first.model.class_path)
        parser.set_defaults(
            {"model": {"class_path": first.model.class_path}} | _data_defaults(first.model)
        )
        print(full_help(parser, model) if is_all_asked else short_help(parser, model, command=verb))
        raise SystemExit(0)

    @staticmethod
    def _end_if_finished(checkpoint: dict[str, Any], config: Any, *, ckpt_path: str) -> None:  # noqa: ANN401
        """End with status 0, leaving everything as it is, where a run has nothing left to train."""
        reason = why_finished(
            checkpoint,
            max_epochs=-1 if config.trainer.max_epochs is None else config.trainer.max_epochs,
            min_epochs=config.trainer.min_epochs,
            monitor=config.checkpoint.monitor,
            patience=config.early_stopping.patience,
        )
        if reason:
            rank_zero_info(
                f"--ckpt_path {ckpt_path}: this run is finished: {reason}. Raise that number to continue."
            )
            raise SystemExit(0)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning's way lets a checkpoint's hyper-parameters win over what is typed."""

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        # A checkpoint is data: unpickling anything else would run its code.
        kwargs = super()._prepare_subcommand_kwargs(subcommand) | {"weights_only": True}
        return (
            kwargs if subcommand == "fit" else kwargs | {"verbose": False}
        )  # PrintInterval has the result

    def instantiate_classes(self) -> None:
        """Make data, model and trainer; a model that a checkpoint restores reads no other weights before."""
        config = self.config[str(self.subcommand)]
        weights = config.get("model.init_args.weights")
        if weights is not None and config.ckpt_path is not None:
            config["model.init_args.weights"] = "none"
        super().instantiate_classes()
        if weights is not None:
            config["model.init_args.weights"] = weights  # where they came from, for the records

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401
        """Make the trainer; ``fit`` logs into a run folder of its own, the other verbs leave none behind."""
        trainer = self._get(self.config_init, "trainer")
        fabric = plan_devices(
            **{name: trainer[name] for name in ("accelerator", "devices", "num_nodes")}
        )
        shown = console_callbacks(trainer)
        kwargs["enable_model_summary"] = bool(
            trainer.enable_model_summary
        )  # the console has a line for it
        kwargs["enable_progress_bar"] = any(
            isinstance(callback, ProgressBar) for callback in [*shown, *(trainer.callbacks or [])]
        )
        sizes = {self.datamodule.image_size: "--data.image_size"}
        if self.subcommand == "fit":
            sizes = dict.fromkeys(self.datamodule.crop_sizes, "--data.crop_size") | sizes
        for size, option in sizes.items():
            check_size(self.model.net, size, option)
        if self.subcommand == "fit":
            # What is wrong is said before there is a run folder.
            (freeze := self._get(self.config_init, "freeze")).check(self.model, self.datamodule)
            logs_recalls = "tensorboard" in _callback_groups("fit", trainer)
            recalls = LogToTensorBoard.recalls(self.datamodule) if logs_recalls else []
            if isinstance(
                self.model, CNNTask | TransferTask
            ):  # a task of the user's own may log other metrics
                check_monitor(self._get(self.config_init, "checkpoint").monitor, recalls)
            self.datamodule.setup("fit")
            self._warn_of_leaks()
            if trainer.logger is not False and not trainer.fast_dev_run:
                folder = Path(trainer.default_root_dir or ".")
                if (
                    folder.resolve() != self.datamodule.index.root.resolve()
                ):  # lightning_logs beside classes is none
                    self.datamodule.check_outside(folder, option="--trainer.default_root_dir")
                root = folder / "lightning_logs"
                rank = getattr(rank_zero_only, "rank", 0)
                run = run_folder(root, resumed=self._get(self.config_init, "ckpt_path"), rank=rank)
                # The run folder is that of the first logger; the user's own loggers log beside it.
                own_loggers = [] if trainer.logger is True else _as_list(trainer.logger)
                kwargs["logger"] = [
                    ForgivingLogger(run, options=self._logged_options()),
                    *own_loggers,
                ]
                shown += [LockRunFolder(run)] if rank == 0 else []
            kwargs["plugins"] = [*_as_list(trainer.plugins), AtomicCheckpointIO()]
            shown += [
                SeedSteps(),
                TerminateOnNaN(),
                ResumeEpoch(),
                PrintEffectiveBatch(),
                WarnAtChance(),
            ]
            shown += [StopOnSignal()] * (
                trainer.enable_checkpointing is not False
            )  # else nothing would be left
            if trainer.strategy == "auto" and fabric.world_size > 1 and freeze.unfreeze_epoch:
                kwargs["strategy"] = (
                    "ddp_find_unused_parameters_true"  # what is frozen has no gradients to exchange
                )
        else:
            kwargs["logger"] = trainer.logger or False
            kwargs["enable_checkpointing"] = False
        callbacks = [
            self._get(self.config_init, key)
            for key in _callback_groups(str(self.subcommand), trainer)
        ]
        if self.subcommand != "fit":
            # The numbers are printed before a report can fail.
            callbacks = [PrintInterval(), *callbacks]
        return self._instantiate_trainer({**trainer, **kwargs}, [*callbacks, *shown])

    def _logged_options(self) -> dict[str, Any]:
        """Return the options that runs are compared by, beside those of the model."""
        data = self.datamodule
        augment = {f"augment/{name}": value for name, value in vars(data.augment).items()}
        return {
            "image_size": data.image_size,
            "crop_size": " ".join(map(str, data.crop_sizes)),
            "batch_size": data.batch_size,
            "sampler": data.sampler,
            "max_epochs": self._get(self.config_init, "trainer").max_epochs,
            "seed": data.seed,
            **augment,
        }

    def _warn_of_leaks(self) -> None:
        """Warn where the weights to begin with were trained on images that this run evaluates."""
        weights = self.config[str(self.subcommand)].get("model.init_args.weights") or ""
        file = Path(weights).expanduser()
        if file.suffix in (".ckpt", ".pth", ".pt") and file.is_file():
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
            if leaks := self.datamodule.describe_leaks(checkpoint.get("FlowersDataModule", {})):
                rank_zero_warn(f"--model.weights {weights} {leaks}")


def main(args: list[str]) -> FlowersCLI:
    """Run a verb.

    Args:
        args: The verb and its options, as on the command line.

    Raises:
        ValueError: An option is out of its range, or checkpoint and data do not go together.
        OSError: Images cannot be decoded, or a file is missing.
    """
    quieten_lightning()
    try:
        return FlowersCLI(
            ClassificationTask,
            FlowersDataModule,
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults=_TRAINER_DEFAULTS | launched_devices(),
            seed_everything_default=0,
            # An option cut short is misspelt, not meant.
            parser_class=_Parser,
            parser_kwargs={"prog": "python -m flowers", "allow_abbrev": False},
            subclass_mode_model=True,
            load_from_checkpoint_support=False,  # the task's own flat, plain hyper-parameters are what is saved
            args=args,
        )
    except (ValueError, OSError) as error:
        add_flags(error, _flags())
        raise


def _flags() -> dict[str, str]:
    """Return the option of each parameter of the data module, its augmentation and the project's tasks."""
    flags = {"max_epochs": "--trainer.max_epochs", "ckpt_path": "--ckpt_path"}
    for task in (ClassificationTask, CNNTask, TransferTask):
        flags |= {name: f"--model.{name}" for name in signature(task).parameters}
    flags |= {name: f"--data.{name}" for name in signature(FlowersDataModule).parameters}
    flags |= {
        f"augment.{name}": f"--data.augment.{name}"
        for name in signature(BatchAugmentation).parameters
    }
    return flags


def calibrate(args: list[str]) -> None:
    """Validate a checkpoint and put the calibration it is found to need into it, in place of the one it carries.

    Args:
        args: The options of ``validate``.

    Raises:
        ValueError: The checkpoint is none, does not fit the data, or is asked about a part of them
            only.
        OSError: The checkpoint cannot be read or written.
    """
    run = main(["validate", *args])
    file = run.config["validate"].ckpt_path
    if file is None or not is_all(run.trainer.limit_val_batches) or run.model.calibration is None:
        raise ValueError(
            "--ckpt_path, --trainer.limit_val_batches: expected a checkpoint and all validation images"
        )
    checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    AtomicCheckpointIO().save_checkpoint(checkpoint | {"calibration": run.model.calibration}, file)
    print(f"{file} now carries this calibration")


def _callback_groups(verb: str, trainer: Any) -> list[str]:  # noqa: ANN401
    """Return the option groups whose callbacks a verb uses; it accepts all, so that one config serves every verb."""
    if verb != "fit":
        return {"validate": ["calibration"], "test": ["report"]}[verb]
    # The user's word against a logger or checkpoints goes for the callbacks that would insist on
    # them.
    saving = [] if trainer.enable_checkpointing is False else ["checkpoint", "last_checkpoint"]
    return [
        "freeze",
        "calibration",
        *saving,
        "early_stopping",
        *([] if trainer.logger is False else ["lr_monitor", "tensorboard"]),
    ]


def _typed(words: list[str], option: str) -> str | None:
    """Return the value of an option among the words of a command line."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(option)
    [value] = vars(parser.parse_known_args(words)[0]).values()
    return None if value is None else str(value)


def _data_defaults(model: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the data module's defaults that go with a model's options."""
    task = resolve_name(model.class_path)
    defaults = (
        task.data_defaults(model.get("init_args", {}))
        if issubclass(task, ClassificationTask)
        else {}
    )
    return {f"data.{name}": value for name, value in defaults.items()}


def _integer_seed(seed: bool | int) -> int:
    if isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(
            f"--seed_everything: expected a whole number from 0 to 2**32 - 1, got {seed}"
        )
    return seed


def _as_list(value: Any) -> list[Any]:  # noqa: ANN401
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
