"""``python -m flowers <command>``, also installed as ``flowers``: opens fast, and imports what the command needs."""

from __future__ import annotations

import ast
import io
import os
import sys
import traceback
from importlib import import_module
from importlib.metadata import version
from inspect import Parameter, getdoc, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowers import runtime
from flowers.cli.arguments import (
    OneLineErrors,
    add_flags,
    did_you_mean,
    find_mistake,
    option_names,
    refuse,
)
from flowers.cli.known_options import known_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Lightning's commands; every other one is the function of its name in flowers/cli/<name>.py.
LIGHTNING_COMMANDS = {
    "fit": "train a network",
    "validate": "evaluate a checkpoint on the validation split",
    "test": "evaluate a checkpoint on the test split and write a report",
    "calibrate": "fit a checkpoint's temperature and rejection threshold anew",
}
COMMANDS = LIGHTNING_COMMANDS | {
    "predict": "classify photos with a checkpoint",
    "audit": "look for broken files, duplicates and conflicting labels before training",
    "compare": "compare runs, with a test on shared test images",
    "cross_validate": "train and test on every fold, with several seeds",
    "export": "write a checkpoint as ONNX or torch.export",
}
# Names of other programs for the same thing.
_SYNONYMS = {
    "train": "fit",
    "val": "validate",
    "eval": "test",
    "evaluate": "test",
    "classify": "predict",
}

HELP = """usage: python -m flowers <command> ...

Turn a folder of labelled photos into a classifier a person can trust.

commands:
{commands}

  python -m flowers fit --config configs/quickstart.yaml   train on synthetic flowers, nothing else needed
  python -m flowers fit --config configs/cnn.yaml          train on flower_photos, downloaded when missing
  python -m flowers predict photo.jpg --ckpt_path RUN      classify with the best checkpoint of a run folder
  python -m flowers audit DIR                              what is wrong with a folder of photos
  python -m flowers <command> --help                       options of a command
""".format(commands="\n".join(f"  {name:<14} {purpose}" for name, purpose in COMMANDS.items()))

_FIT = """flowers: fit: expected a configuration or a folder of photos, for example
  python -m flowers fit --config configs/quickstart.yaml                train on synthetic flowers, in a minute
  python -m flowers fit --config configs/cnn.yaml --data.root DIR       train on your photos, DIR/<class>/<image>
  python -m flowers fit --help                                          the common options"""


def main(args: list[str] | None = None) -> int:
    """Run a command and return the exit status.

    Args:
        args: The command and its options; by default those of the process.
    """
    args = sys.argv[1:] if args is None else args
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0
    if args[0] == "--version":
        print(f"flowers {version('flowers')}")
        return 0
    if args[0] not in COMMANDS or args == ["fit"]:
        print(_FIT if args == ["fit"] else _unknown(args[0]), file=sys.stderr)
        return 2
    if problem := find_mistake(
        args[1:], command_options(args[0])
    ):  # before PyTorch and Lightning, which take seconds
        refuse(problem, f"python -m flowers {args[0]}")
    is_silent = {"-h", "--help", "--print_config"} & set(args) or "LOCAL_RANK" in os.environ
    if args[0] in LIGHTNING_COMMANDS and not is_silent:
        print(f"flowers {args[0]}: loading PyTorch and Lightning ...", file=sys.stderr, flush=True)
    runtime.prepare()
    # A file name that is no UTF-8 must not end a run when it is printed.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(args[0], args[1:])
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # An error that the package itself raised answers the user; any other is a bug and keeps its
        # traceback.
        if (answer := _own_error(error)) is not None:
            print(f"flowers: {answer}", file=sys.stderr)
        elif args[0] == "audit":  # whose status 1 says that it ran
            traceback.print_exc()
        else:
            raise
        return 2 if args[0] == "audit" else 1


def command_options(command: str) -> list[str]:
    """Return the options of a command without importing it; none where they are not known."""
    if command in LIGHTNING_COMMANDS:
        return known_options(command)
    tree = ast.parse((Path(__file__).parent / "cli" / f"{command}.py").read_text(encoding="utf-8"))
    [function] = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == command
    ]
    names = ["help", *(argument.arg for argument in function.args.kwonlyargs)]
    return [] if "fit_options" in names else [f"--{name}" for name in names]


def _unknown(word: str) -> str:
    """Return what to say of a word that is no command: all commands, and the nearest, if one is near."""
    question = (
        f", did you mean {_SYNONYMS[word]}?" if word in _SYNONYMS else did_you_mean(word, COMMANDS)
    )
    return (
        f"flowers: expected a command first, got {word!r}{question}\n"
        f"The commands are {', '.join(COMMANDS)}: python -m flowers COMMAND [options]"
    )


def _own_error(error: BaseException | None) -> BaseException | None:
    """Return what the package itself raised for the user, in an error or beneath it: jsonargparse wraps a model's."""
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)
        if ours and isinstance(error, ValueError | OSError | FloatingPointError):
            return error
        error = error.__cause__
    return None


def _run(name: str, args: list[str]) -> int:
    if name in LIGHTNING_COMMANDS:
        from flowers.cli import training  # noqa: PLC0415 (importing Lightning takes seconds)

        if name == "calibrate":
            training.calibrate(args)
        else:
            training.main([name, *args])
        return 0
    function = getattr(import_module(f"flowers.cli.{name}"), name)
    return run_function(function, args) or 0


def run_function(function: Callable[..., int | None], args: Sequence[str]) -> int | None:
    """Turn a typed function into a command: what stands before its ``*`` is positional, the rest are options.

    A parameter of type ``list[str]`` takes several words; one named ``fit_options`` takes all
    options that the function has not, with what follows them.

    Args:
        function: Its docstring is the help.
        args: The words after the command.
    """
    from docstring_parser import parse  # noqa: PLC0415 (and these imports are slower than --help)
    from jsonargparse import ArgumentParser  # noqa: PLC0415

    class Parser(OneLineErrors, ArgumentParser):
        """A parser with errors in one line."""

    doc = parse(getdoc(function) or "")
    helps = {parameter.arg_name: parameter.description for parameter in doc.params}
    parameters = signature(function).parameters
    parser = Parser(
        prog=f"python -m flowers {function.__name__}",
        description=f"{doc.short_description}\n\n{doc.long_description or ''}",
        allow_abbrev=False,
    )
    lists = [
        name
        for name, parameter in parameters.items()
        if str(parameter.annotation).startswith("list[str]")
    ]
    lists = [name for name in lists if name != "fit_options"]
    for name in lists:
        is_positional = parameters[name].kind is Parameter.POSITIONAL_OR_KEYWORD
        option: dict[str, Any] = {} if is_positional else {"default": parameters[name].default}
        parser.add_argument(
            name if is_positional else f"--{name}", nargs="+", help=helps[name], **option
        )
    parser.add_function_arguments(
        function, as_group=False, as_positional=True, skip={*lists, "fit_options"}
    )
    own, rest = list(args), {}
    if "fit_options" in parameters:
        own, fit_options = _split(args, {"--help", "-h", *(f"--{name}" for name in parameters)})
        rest = {"fit_options": fit_options}
    positional = {
        name for name in parameters if parameters[name].kind is Parameter.POSITIONAL_OR_KEYWORD
    }
    if problem := find_mistake(own, option_names(parser)):
        parser.error(problem)
    flags = {name: name if name in positional else f"--{name}" for name in parameters}
    values = parser.parse_args(own).as_dict()
    try:
        return function(**values, **rest)
    except (ValueError, OSError) as error:
        add_flags(error, flags)
        raise


def _split(args: Sequence[str], known: set[str]) -> tuple[list[str], list[str]]:
    """Return the words of known options, and those of all others; a value goes with the option before it."""
    own: list[str] = []
    other: list[str] = []
    target = own
    for word in args:
        if word.startswith("-"):
            target = own if word.partition("=")[0] in known else other
        target.append(word)
    return own, other


if __name__ == "__main__":
    sys.exit(main())
