"""``python -m flowers <command>``, also installed as ``flowers``."""

import io
import os
import re
import sys
import traceback
from argparse import Action
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from inspect import Parameter, getdoc, signature

from flowers import runtime
from flowers.cli import option_errors
from flowers.cli.command_options import command_arguments, command_options
from flowers.cli.options_in_messages import name_options_in_error

COMMANDS = {
    "fit": "train a network",
    "validate": "evaluate a checkpoint on the validation split",
    "test": "evaluate a checkpoint on the test split and write a report",
    "calibrate": "fit the temperature and the confidence threshold of a checkpoint",
    "predict": "classify photos with a checkpoint",
    "demo": "classify photos in the browser",
    "audit": "find broken files, duplicates and conflicting labels before training",
    "compare": "compare runs, with McNemar's test on the test images they share",
    "cross_validate": "train and test on every fold, with several seeds",
    "export": "write a checkpoint as ONNX or torch.export",
}
# Commands of LightningCLI. Each other command is a function in flowers/cli/<name>.py, but calibrate
# is in training.py.
LIGHTNING_COMMANDS = {"fit", "validate", "test"}
# Names of the same commands in other programs, for suggestions.
_SYNONYMS = {"train": "fit", "val": "validate", "eval": "test", "evaluate": "test"}
_SYNONYMS |= {"classify": "predict"}
# How --help names Python's types; it names no type for str.
_TYPES = {"int": "whole number", "float": "number", "Path": "path"}

HELP = """usage: python -m flowers <command> ...

Turn a folder of labelled photos into a classifier a person can trust.

commands:
{commands}

  python -m flowers fit --config configs/quickstart.yaml   train on synthetic flowers
  python -m flowers fit --config configs/cnn.yaml          train on flower_photos (downloaded)
  python -m flowers predict photo.jpg --ckpt_path RUN      classify with a run's best checkpoint
  python -m flowers audit DIR                              check a folder of photos
  python -m flowers <command> --help                       options of a command
The environment variable FLOWERS_DEBUG=1 shows the traceback of an error.
""".format(commands="\n".join(f"  {name:<14} {purpose}" for name, purpose in COMMANDS.items()))

_FIT = """fit: expected a configuration or a folder of photos, for example
  python -m flowers fit --config configs/quickstart.yaml            train on synthetic flowers
  python -m flowers fit --config configs/cnn.yaml --data.root DIR   train on DIR/<class>/<image>
  python -m flowers fit --help                                      the common options"""


def main(args: list[str] | None = None) -> int:
    """Run a command and return the exit status.

    Args:
        args: The command and its options; by default ``sys.argv[1:]``.
    """
    if args is None:
        args = sys.argv[1:]
    status = _answer_without_command(args)
    if status is not None:
        return status
    command, *words = args
    is_training = command in LIGHTNING_COMMANDS or command == "calibrate"
    module = "training" if is_training else command
    program = f"python -m flowers {command}"
    # Mistakes are reported before torch is imported, which takes seconds.
    if mistake := option_errors.find_mistake(words, command_options(command, module=module)):
        option_errors.refuse(mistake, program)
    if command not in LIGHTNING_COMMANDS:
        option_errors.check_required(words, command_arguments(command, module=module), program)
    is_silent = {"-h", "--help", "--print_config"} & set(words) or "LOCAL_RANK" in os.environ
    if is_training and not is_silent:
        print(f"flowers {command}: loading PyTorch and Lightning ...", file=sys.stderr, flush=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for file names that are not UTF-8
    try:
        runtime.prepare()
        imported = import_module(f"flowers.cli.{module}")
        if command in LIGHTNING_COMMANDS:
            imported.main(args)
            return 0
        return run_function(getattr(imported, command), words) or 0
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning answers KeyboardInterrupt with SystemExit(1), which has it as its context.
        if KeyboardInterrupt not in (type(error), type(error.__context__)):
            raise
        # Status 0 for the others: Lightning kills the first process if another one fails.
        return 130 if os.environ.get("LOCAL_RANK", "0") == "0" else 0
    except Exception as error:
        answer = option_errors.own_error(error)
        if answer is None or os.environ.get("FLOWERS_DEBUG") == "1":  # None: a bug
            traceback.print_exc()
        if answer is not None:
            option_errors.print_error(answer)
        return 2 if command == "audit" else 1  # status 1 of audit means that there are findings


def _answer_without_command(args: list[str]) -> int | None:
    """Print help, version or an error and return the status; None if a command is to be run."""
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0
    if args[0] == "--version":
        print(f"flowers {version('flowers')}")
        return 0
    if args == ["fit"]:
        option_errors.print_error(_FIT)
        return 2
    if args[0] not in COMMANDS:
        question = option_errors.did_you_mean(_SYNONYMS.get(args[0], args[0]), COMMANDS)
        commands = f"The commands are {', '.join(COMMANDS)}: python -m flowers COMMAND [options]"
        option_errors.print_error(f"expected a command, got {args[0]!r}{question}\n{commands}")
        return 2
    return None


def run_function(function: Callable[..., int | None], args: Sequence[str]) -> int | None:
    """Run a typed function as a command.

    Its positional parameters are positional on the command line, its keyword-only parameters are
    options. A parameter of type ``list[str]`` takes several words. A parameter whose name ends with
    ``_options`` takes all options that are not parameters of the function, with their values.

    Args:
        function: The function; its docstring is the help.
        args: The words after the command.
    """
    from docstring_parser import parse  # noqa: PLC0415 (the list of commands does not need them)
    from jsonargparse import ArgumentParser, DefaultHelpFormatter  # noqa: PLC0415

    class Parser(option_errors.OneLineErrors, ArgumentParser):
        """A parser with errors in one line."""

    class Help(DefaultHelpFormatter):
        """Help that names types in plain words, by ``_TYPES``."""

        def _get_type_str(self, action: Action) -> str | None:
            python_type = str(super()._get_type_str(action))
            return _TYPES.get(" ".join(re.findall(r"\b(?:int|float|str|Path)\b", python_type)))

        def _expand_help(self, action: Action) -> str:
            text = super()._expand_help(action)
            return text.replace(", default: null)", ")").replace(" (default: null)", "")

    doc = parse(getdoc(function) or "")
    helps = {parameter.arg_name: parameter.description for parameter in doc.params}
    parameters = signature(function).parameters
    parser = Parser(
        prog=f"python -m flowers {function.__name__}",
        description=f"{doc.short_description}\n\n{doc.long_description or ''}",
        allow_abbrev=False,
        formatter_class=Help,
    )
    flags = {}
    others: dict[str, list[str]] = {name: [] for name in parameters if name.endswith("_options")}
    skipped: set[str | int] = {*others}
    for name, parameter in parameters.items():
        if name in others:
            continue
        flags[name] = name
        options = {}
        if parameter.kind is not Parameter.POSITIONAL_OR_KEYWORD:
            flags[name] = f"--{name}"
            options["default"] = parameter.default
        if str(parameter.annotation).startswith("list[str]"):
            skipped.add(name)
            parser.add_argument(flags[name], nargs="+", help=helps[name], **options)
    parser.add_function_arguments(function, as_group=False, as_positional=True, skip=skipped)
    words = list(args)
    own_options = {"--help", "-h", *flags.values()}
    for name in others:
        words, others[name] = option_errors.split_options(args, own_options)
    values = option_errors.expand_home(parser.parse_args(words).as_dict())
    try:
        return function(**values, **others)
    except (ValueError, OSError, RuntimeError) as error:
        if option_errors.own_error(error):
            name_options_in_error(error, flags)
            raise
        raise ValueError(option_errors.explain_error(error, args)) from error


if __name__ == "__main__":
    sys.exit(main())
