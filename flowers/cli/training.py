"""Lightning's command line with the project's callbacks, linked options and defaults."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from types import NoneType
from typing import Any, get_args

import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from flowers import callbacks
from flowers.checkpoint import (
    check_network,
    checkpoint_file,
    limit_network,
    load_weights,
    model_option,
    read_checkpoint,
    stored_config,
)
from flowers.cli import option_errors
from flowers.cli.options_in_messages import (
    name_options,
    name_options_in_error,
    name_options_in_log,
    training_options,
)
from flowers.cli.short_help import short_help
from flowers.data import FlowersDataModule
from flowers.run_folder import discard_run_folder, last_checkpoint, run_folder
from flowers.runtime import check_num_nodes, launched_devices, plan_devices, silence_lightning
from flowers.tasks import ClassificationTask, CNNTask, TransferTask, check_size

_TRAINER_DEFAULTS = {
    "max_epochs": 40,
    "log_every_n_steps": 5,  # Lightning's 50 draws no curve where an epoch has 20 steps
    # The data module's sampler evaluates every image once; DistributedSampler repeats some.
    "use_distributed_sampler": False,
}
# The smallest values of options that Lightning and torch check too late or not at all.
_MINIMUM = {
    "data.num_workers": 0,
    "early_stopping.min_delta": 0,
    "early_stopping.patience": 0,
    "last_checkpoint.every_n_epochs": 1,
    "trainer.accumulate_grad_batches": 1,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.gradient_clip_val": 0,
    "trainer.log_every_n_steps": 1,
    "trainer.min_epochs": 0,
    "trainer.min_steps": 0,
    "trainer.num_sanity_val_steps": -1,
    "trainer.val_check_interval": 0.001,
}


class _Parser(option_errors.OneLineErrors, LightningArgumentParser):
    """A parser with errors in one line."""


class _RecordFirstBatch(Callback):
    """Records that a batch has begun. Earlier errors are attributed to the options."""

    has_begun = False

    def on_train_batch_start(self, *args: object, **options: object) -> None:
        """Record it."""
        self.has_begun = True

    on_validation_batch_start = on_test_batch_start = on_train_batch_start


class FlowersCLI(LightningCLI):
    """``fit``, ``validate`` and ``test`` of a task on a ``FlowersDataModule``."""

    def __init__(self, args: list[str]) -> None:
        self._first_batch = _RecordFirstBatch()
        self._new_run: Path | None = None
        self._command = args[0]
        try:
            super().__init__(
                ClassificationTask,
                FlowersDataModule,
                save_config_callback=callbacks.SaveRunConfig,
                save_config_kwargs={"save_to_log_dir": False},
                trainer_defaults=_TRAINER_DEFAULTS | launched_devices(),
                seed_everything_default=0,
                parser_class=_Parser,
                # option_errors.find_mistake does not know abbreviations
                parser_kwargs={"prog": "python -m flowers", "allow_abbrev": False},
                subclass_mode_model=True,
                load_from_checkpoint_support=False,  # the task saves plain hyper-parameters itself
                args=args,
            )
        except Exception as error:
            if self._new_run is not None and not self._first_batch.has_begun:
                discard_run_folder(self._new_run)
            is_own = option_errors.own_error(error) or option_errors.is_raised_here(error)
            if self._first_batch.has_begun or is_own:
                name_options_in_error(error, training_options())
                raise
            raise ValueError(option_errors.explain_error(error, args[1:])) from error

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return only the command of this call: adding the options of a command takes 0.1 s."""
        return {self._command: LightningCLI.subcommands()[self._command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks as option groups, and link options that several parts need."""
        parser.add_lightning_class_args(callbacks.SaveBest, "checkpoint")
        parser.add_lightning_class_args(callbacks.SaveLast, "last_checkpoint")
        parser.add_lightning_class_args(callbacks.EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(LearningRateMonitor, "lr_monitor")
        parser.add_lightning_class_args(callbacks.FreezeBackbone, "freeze")
        parser.add_lightning_class_args(callbacks.Calibrate, "calibration")
        parser.add_lightning_class_args(callbacks.LogToTensorBoard, "tensorboard")
        parser.add_lightning_class_args(callbacks.WriteReport, "report")
        parser.set_defaults(
            {
                "model": {"class_path": "flowers.CNNTask"},
                "early_stopping.patience": 15,
                # True fails in an epoch without validation.
                "early_stopping.check_on_train_epoch_end": False,
                "lr_monitor.logging_interval": "step",
            }
        )
        link = parser.link_arguments
        link("data.class_names", "model.init_args.class_names", apply_on="instantiate")
        link("seed_everything", "data.seed", compute_fn=_integer_seed)
        link("checkpoint.monitor", "early_stopping.monitor")
        link("checkpoint.mode", "early_stopping.mode", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the configuration stored in the checkpoint, overridden by the command line."""
        assert isinstance(args, list)
        command = self._command
        configs, options = option_errors.split_options(args[1:], {"-c", "--config"})
        words = configs + options  # the configurations first, since a later word wins
        if "-h" in words or "--help" in words:
            self._print_help(words)
        weights = _option_value(words, "--model.weights")
        if weights is not None and Path(weights).is_dir():
            words += ["--model.weights", str(checkpoint_file(weights))]
        given = _option_value(words, "--ckpt_path")
        root = None
        if given is None or given == "last":
            config = self._parse_quietly(words)
            given = config.ckpt_path  # a configuration may name it
            root = config.trainer.default_root_dir
        ckpt_path = _resolve_checkpoint(command, given, root=Path(root or "."))
        if ckpt_path != given:
            words += ["--ckpt_path", ckpt_path or "null"]
        stored: list[str] = []
        checkpoint: dict[str, Any] = {}
        if ckpt_path is not None:
            checkpoint = read_checkpoint(ckpt_path)
            try:
                values = stored_config(checkpoint, command, model=_option_value(words, "--model"))
                stored = ["--config", yaml.safe_dump(values)]
                config = self._parse_quietly([*stored, *words])
                check_network(config.model, values.get("model", {}))
                if command == "fit":
                    _check_optimizer(config, checkpoint["config"])
                    if "loops" not in checkpoint:
                        raise ValueError("expected the state of a training, got weights alone")
            except ValueError as error:
                raise ValueError(f"--ckpt_path {ckpt_path}: {error}") from error
        self._set_model_defaults(config.model)
        self.config = option_errors.expand_home(parser.parse_args([command, *stored, *words]))
        config = self.config[command]
        self._check_options(config)
        if command == "fit" and ckpt_path is not None:
            _end_if_finished(checkpoint, config)

    def _parse_quietly(self, words: list[str]) -> Any:  # noqa: ANN401
        """Return the options without printing them for ``--print_config``."""
        quiet = [word for word in words if not word.startswith("--print_config")]
        return option_errors.expand_home(self._parser(self._command).parse_args(quiet))

    def _set_model_defaults(self, model: Any) -> type[ClassificationTask]:  # noqa: ANN401
        """Set the defaults of the data module for a model, and return the model's class.

        The class becomes the parser's default, too. Otherwise the options that it shares with
        ``CNNTask`` would keep the default values of ``CNNTask``.
        """
        task: type[ClassificationTask] = resolve_name(model.class_path)
        defaults: dict[str, Any] = {"model": {"class_path": model.class_path}}
        for name, value in task.data_defaults(model.get("init_args", {})).items():
            defaults[f"data.{name}"] = value
        self._parser(self._command).set_defaults(defaults)
        return task

    def _check_options(self, config: Any) -> None:  # noqa: ANN401
        """End with status 2 if options contradict each other."""
        command = self._command
        error = self._parser(command).error
        trainer = config.trainer
        if config.get("model.init_args.class_names") is not None:
            error("--model.class_names: expected no value, the names are those of the folders")
        if command != "fit" and config.ckpt_path is None and not trainer.fast_dev_run:
            error(f"--ckpt_path: expected the checkpoint to {command}, or its run folder")
        if trainer.use_distributed_sampler:
            error("--trainer.use_distributed_sampler: expected false, images are divided already")
        for name, minimum in _MINIMUM.items():
            value = config.get(name)
            if isinstance(value, int | float) and not value >= minimum:  # also NaN
                error(f"--{name}: expected at least {minimum}, got {value}")
        if str(trainer.precision) in ("16-true", "bf16-true", "64-true", "64"):
            error("--trainer.precision: expected 32-true or a mixed one, images are float32")
        if "LearningRateFinder" in str(trainer.callbacks):
            error(
                "--trainer.callbacks LearningRateFinder: expected other callbacks: the schedule "
                "would overwrite the learning rate before the first step; give --model.lr"
            )
        if command == "fit" and config.ckpt_path is not None and trainer.max_steps != -1:
            error("--trainer.max_steps: expected -1 when resuming; set --trainer.max_epochs")
        check_num_nodes(trainer.num_nodes)
        # The parser accepts null for every option of a model.
        parser = option_errors.class_parser(resolve_name(config.model.class_path))
        for action in vars(parser)["_actions"]:
            value = config.get(action.dest.replace("model.", "model.init_args.", 1), 0)
            hint = vars(action).get("_typehint")
            allows_null = hint is Any or NoneType in get_args(hint)
            if value is None and action.default is not None and not allows_null:
                error(f"--{action.dest}: expected a value, got null")

    def _print_help(self, words: list[str]) -> None:
        """Print the common options, or after ``--help all`` all of them, and end with status 0."""
        is_full = option_errors.option_values(words, "-h", "--help") == ["all"]
        others = [word for word in words if word not in ("-h", "--help")]
        if is_full:
            others.remove("all")
        task = self._set_model_defaults(self._parse_quietly(others).model)
        parser = self._parser(self._command)
        if is_full:
            print(f"{parser.format_help()}\n{option_errors.class_parser(task).format_help()}")
        else:
            print(short_help(parser, task, command=self._command))
        raise SystemExit(0)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: LightningCLI would replace given options by the checkpoint's."""

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        kwargs["weights_only"] = True  # a pickled checkpoint could run code
        if subcommand != "fit":
            kwargs["verbose"] = False  # PrintInterval prints the metrics
        return kwargs

    def instantiate_classes(self) -> None:
        """Construct data, model and trainer; a restored model does not load pretrained weights."""
        config = self.config[self._command]
        weights = config.get("model.init_args.weights")
        if weights is not None and config.ckpt_path is not None:
            config["model.init_args.weights"] = "none"
        with limit_network(config.ckpt_path):
            super().instantiate_classes()
        if weights is not None:
            config["model.init_args.weights"] = weights  # recorded in config.yaml

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401
        """Construct the trainer; ``before_fit`` adds the run folder."""
        config = self.config_init[self._command]
        options = config.trainer
        options.callbacks = _as_list(options.callbacks)
        plan = plan_devices(
            accelerator=options.accelerator, devices=options.devices, num_nodes=options.num_nodes
        )
        progress = callbacks.console_callbacks(options)
        bars = [bar for bar in [*progress, *options.callbacks] if isinstance(bar, ProgressBar)]
        kwargs["enable_progress_bar"] = bool(bars)
        # Off by default, because PrintEpochs prints the number of parameters.
        kwargs["enable_model_summary"] = bool(options.enable_model_summary)
        if self._command != "fit":
            kwargs["logger"] = options.logger or False
            kwargs["enable_checkpointing"] = False
            result = config.report if self._command == "test" else config.calibration
            # PrintInterval is first: the metrics are printed even if the report fails.
            own = [callbacks.PrintInterval(), self._first_batch, result, *progress]
            return self._instantiate_trainer({**options, **kwargs}, own)
        own = [self._first_batch, config.freeze, config.calibration, config.early_stopping]
        if options.enable_checkpointing is not False:
            own += [config.checkpoint, config.last_checkpoint, callbacks.StopOnSignal()]
        if options.logger is not False:
            own += [config.lr_monitor, config.tensorboard]
        own += [*progress, callbacks.SeedSteps(), callbacks.TerminateOnNaN()]
        own += [callbacks.ResumeEpoch(), callbacks.PrintEffectiveBatch(), callbacks.WarnAtChance()]
        kwargs["plugins"] = [*_as_list(options.plugins), callbacks.AtomicCheckpointIO()]
        if not options.fast_dev_run:
            kwargs["logger"] = False
        if options.strategy == "auto" and plan.world_size > 1 and config.freeze.unfreeze_epoch:
            # Frozen parameters have no gradients; DDP must be told to expect that.
            kwargs["strategy"] = "ddp_find_unused_parameters_true"
        return self._instantiate_trainer({**options, **kwargs}, own)

    def before_fit(self) -> None:
        """Check options and data, and then open the run folder."""
        self._check_image_size()
        for size in self.datamodule.crop_sizes:
            check_size(self.model.net, size, "--data.crop_size")
        config = self.config_init["fit"]
        config.freeze.check(self.model, self.datamodule)
        options = config.trainer
        if isinstance(self.model, CNNTask | TransferTask):  # others may log metrics of their own
            recalls = []
            if options.logger is not False:
                recalls = callbacks.LogToTensorBoard.recall_classes(self.datamodule)
            callbacks.check_monitor(config.checkpoint.monitor, recalls)
        self.datamodule.setup("fit")
        self._warn_of_data_leakage()
        if options.logger is not False and not options.fast_dev_run:
            self._open_run_folder(options)

    def after_fit(self) -> None:
        """Print the summary of the run."""
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, callbacks.SaveBest) and callback.best_model_path:
                _print_summary(callback, self.trainer)

    def _check_image_size(self) -> None:
        check_size(self.model.net, self.datamodule.image_size, "--data.image_size")

    before_validate = before_test = _check_image_size

    def _open_run_folder(self, options: Any) -> None:  # noqa: ANN401
        """Create the run folder, lock it, and log into it."""
        folder = Path(options.default_root_dir or ".")
        if folder.resolve() != self.datamodule.index.root.resolve():
            # In the root itself lightning_logs is skipped. In a folder of the root, it would make
            # that folder a class.
            self.datamodule.check_outside(folder, option="--trainer.default_root_dir")
        rank = getattr(rank_zero_only, "rank", 0)
        resumed = self._get(self.config_init, "ckpt_path")
        run = run_folder(folder / "lightning_logs", resumed=resumed, rank=rank)
        if rank == 0 and not (run / "config.yaml").exists():
            self._new_run = run
        logger = callbacks.FailSafeTensorBoardLogger(run, options=self._logged_options())
        self.trainer.loggers = [logger]
        if options.logger is not True:
            self.trainer.loggers += _as_list(options.logger)
        if rank == 0:
            lock = callbacks.LockRunFolder(run)
            self.trainer.callbacks.insert(0, lock)  # type: ignore[attr-defined]

    def _logged_options(self) -> dict[str, Any]:
        """Return the options of data and training that the HParams tab shows."""
        data = self.datamodule
        names = ("image_size", "batch_size", "sampler", "seed")
        options = {name: getattr(data, name) for name in names}
        options["crop_size"] = " ".join(map(str, data.crop_sizes))
        options["max_epochs"] = self._get(self.config_init, "trainer").max_epochs
        for name, value in vars(data.augment).items():
            options[f"augment/{name}"] = value
        return options

    def _warn_of_data_leakage(self) -> None:
        """Warn if the pretrained weights were trained on validation or test images of this run."""
        weights = self.config[self._command].get("model.init_args.weights") or ""
        file = Path(weights)
        if file.suffix in (".ckpt", ".pth", ".pt") and file.is_file():
            try:
                checkpoint = load_weights(file)
            except ValueError as error:  # changed since the training began
                raise ValueError(f"--model.weights {weights}: got {error}") from error
            if leaks := self.datamodule.describe_leaks(checkpoint.get("FlowersDataModule", {})):
                rank_zero_warn(f"--model.weights {weights} {leaks}")


def _resolve_checkpoint(command: str, ckpt_path: str | None, *, root: Path) -> str | None:
    """Return the checkpoint of ``--ckpt_path``, which may be ``last`` or a run folder."""
    if ckpt_path is None:
        return None
    if command != "fit":
        return str(checkpoint_file(ckpt_path))
    if ckpt_path == "last":
        last = last_checkpoint(root)
        rank_zero_info(f"--ckpt_path last: {last or 'there is none yet, training starts'}")
        return last
    # fit resumes from the last epoch, not from the best.
    return last_checkpoint(Path(ckpt_path)) or str(checkpoint_file(ckpt_path))


def _check_optimizer(given: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Check that the optimizer of a resumed run is given again: a checkpoint must not run code.

    Args:
        given: The configuration of ``fit``.
        stored: The configuration in the checkpoint.

    Raises:
        ValueError: ``--optimizer`` or ``--lr_scheduler`` is missing; the error lists them.
    """
    words = []
    for name in ("optimizer", "lr_scheduler"):
        group = stored.get(name)
        if group and not given.get(name):
            words.append(f"--{name} {group['class_path']}")
            for option, value in group.get("init_args", {}).items():
                if value is not None:
                    words.append(f"--{name}.{option} {shlex.quote(str(value))}")
    if words:
        raise ValueError(
            "its run was given an optimizer or a schedule, which are not read from a checkpoint. "
            f"Give again: {' '.join(words)}"
        )


def _end_if_finished(checkpoint: dict[str, Any], config: Any) -> None:  # noqa: ANN401
    """End with status 0 if a run has nothing left to train."""
    num_epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    max_epochs = config.trainer.max_epochs
    patience = config.early_stopping.patience
    reason = ""
    if max_epochs is not None and 0 <= max_epochs <= num_epochs:
        reason = f"--trainer.max_epochs is {max_epochs}"
    elif num_epochs >= (config.trainer.min_epochs or 0):
        for key, state in checkpoint.get("callbacks", {}).items():
            is_ours = key.startswith("EarlyStopping") and f"'{config.checkpoint.monitor}'" in key
            if is_ours and state["wait_count"] >= patience:
                reason = f"--early_stopping.patience is {patience}"
    if reason:
        rank_zero_info(
            f"--ckpt_path {config.ckpt_path}: this run is finished after {num_epochs} epochs, "
            f"since {reason}. Raise that number to continue."
        )
        raise SystemExit(0)


@rank_zero_only
def _print_summary(best: callbacks.SaveBest, trainer: Trainer) -> None:
    file = Path(best.best_model_path)
    run = Path(str(file.parents[1]).removeprefix(f"{Path.cwd()}{os.sep}"))
    loss = "" if best.monitor == "val/loss" else f" (val/loss {best.best_loss:.4f})"
    model = name_options(model_option(trainer.lightning_module), training_options())
    print(
        f"\nBest epoch       {best.best_epoch} of {trainer.current_epoch} (counted from 0)\n"
        f"  {best.monitor:<14} {best.best_model_score:.4f}{loss}, selected on these images\n"
        f"Run folder       {run}\n"
        f"Best checkpoint  {run / file.parent.name / file.name}\n"
        f"Test it          python -m flowers test --ckpt_path {shlex.quote(str(run))}{model}\n"
        f"See the curves   tensorboard --logdir {shlex.quote(str(run.parent))}\n"
    )


def main(args: list[str]) -> FlowersCLI:
    """Run a command, which is given with its options as on the command line.

    Raises:
        ValueError: An option is out of its range, or Lightning, torch or the system refuse it.
        OSError: Images cannot be decoded, or a file is missing.
    """
    silence_lightning()
    name_options_in_log()
    return FlowersCLI(args)


def calibrate(
    checkpoint: str,
    *,
    selective_accuracy: float | None = None,
    validate_options: list[str] | None = None,
) -> None:
    """Validate a checkpoint, and store the temperature and the confidence threshold in it.

    All other options, such as --data.root DIR, are those of validate.

    Args:
        checkpoint: Checkpoint, or a run folder such as lightning_logs/version_0 for its best
            checkpoint.
        selective_accuracy: Accuracy that the predictions above the confidence threshold should
            have; by default the value given for the training.
        validate_options: Options of validate.

    Raises:
        ValueError: The checkpoint does not match the data, or not all validation images are used.
        OSError: The checkpoint cannot be read or written.
    """
    words = ["--ckpt_path", checkpoint, *(validate_options or [])]
    if selective_accuracy is not None:
        words += ["--calibration.selective_accuracy", str(selective_accuracy)]
    run = main(["validate", *words])
    if run.model.calibration is None or not callbacks.is_all(run.trainer.limit_val_batches):
        raise ValueError("--trainer.limit_val_batches: expected all validation images")
    file = run.config["validate"].ckpt_path
    content = load_weights(Path(file))
    content["calibration"] = run.model.calibration
    callbacks.AtomicCheckpointIO().save_checkpoint(content, file)
    print(f"{file}: calibration stored")


def _option_value(words: list[str], option: str) -> str | None:
    """Return the value of an option in a command line."""
    return next(reversed(option_errors.option_values(words, option)), None)


def _integer_seed(seed: bool | int) -> int:
    if isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"--seed_everything: expected 0 to 2**32 - 1, got {seed}")
    return seed


def _as_list(value: Any) -> list[Any]:  # noqa: ANN401
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
