"""Command-line errors in one line, with the most similar option."""

import os
import re
import sys
import time
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import accumulate, pairwise, takewhile
from pathlib import Path
from pkgutil import resolve_name
from traceback import extract_tb, walk_tb
from typing import Any, NoReturn

from flowers.cli.command_options import GROUPS
from flowers.printable import printable

TASKS = ("CNNTask", "TransferTask")
_OWN_MODEL = re.compile(rf"(flowers\.(tasks\.)?)?({'|'.join(TASKS)})")
_INIT_ARGS = ("model.init_args.", "model.")  # the long prefix and the short one of the same options


def did_you_mean(word: str, words: Collection[str]) -> str:
    """Return a question that suggests the most similar of some words; empty if none is similar."""
    nearest = get_close_matches(word, words, n=1)
    name = word.rpartition(".")[2].lstrip("-")
    nearest = [other for other in words if other.endswith(f".{name}")] or nearest
    return f", did you mean {nearest[0]}?" if nearest else ""


def refuse(message: str, command: str) -> NoReturn:
    """Print an error and the command that lists the options, and exit.

    Args:
        message: The error.
        command: The command, such as ``python -m flowers fit``.

    Raises:
        SystemExit: With status 2.
    """
    print_error(f"{message}\nOptions: {command} --help")
    raise SystemExit(2)


def print_error(message: object) -> None:
    """Print an error. Processes other than the first wait: the launcher ends them in that time."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(5)  # longer than the launcher takes to end them
    lines = f"flowers: {message}".split("\n")
    print("\n".join(map(printable, lines)), file=sys.stderr)


def own_error(error: BaseException | None) -> BaseException | None:
    """Return the first error raised by this package among an error and its causes, or None."""
    while error is not None:
        if isinstance(error, ValueError | OSError | FloatingPointError) and is_raised_here(error):
            return error
        error = error.__cause__
    return None


def is_raised_here(error: BaseException) -> bool:
    """Return whether this package raised an error, rather than a library that it calls."""
    frames = extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parents[1])


def explain_error(error: BaseException, words: Sequence[str]) -> str:
    """Return an error of a library or the system in one line, after the options that caused it.

    An option caused it if its name or value is in the message, or if its class raised the error.
    If no given option did, all are listed.

    Args:
        error: The error.
        words: The command line after the command.
    """
    message = " ".join(str(error).split())
    if not message or isinstance(error, LookupError):
        message = f"{type(error).__name__} {message}"
    frames = walk_tb(error.__traceback__)
    classes = {type(frame.f_locals.get("self")).__name__ for frame, _ in frames}
    given: list[str] = []
    about: list[str] = []
    for file, name, value in _given_options(words):
        last = re.escape(name.rpartition(".")[2])
        pattern = rf"\b{last}\b" if "_" in last else rf"`{last}\b|\b{last}="
        if len(text := str(value)) > 1:
            pattern += rf"|(?<!\w){re.escape(text)}(?!\w)"
        given.append(f"{file}--{name} {text}".rstrip())
        if re.search(pattern, message) or text.rpartition(".")[2] in classes:
            about.append(given[-1])
    return ": ".join(filter(None, [", ".join(about or given), message]))


def expand_home(value: Any) -> Any:  # noqa: ANN401
    """Return the value of an option with the leading ``~`` of every text and path expanded."""
    if isinstance(value, str | Path):
        return type(value)(os.path.expanduser(value))  # noqa: PTH111 (unknown users are no error)
    if isinstance(value, list):
        return list(map(expand_home, value))
    if hasattr(value, "items"):  # a dictionary, or the options of a class
        for name, part in list(value.items()):
            value[name] = expand_home(part)
    return value


class OneLineErrors(ArgumentParser):
    """A parser with errors in one line; jsonargparse's parser prints the usage before an error."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error in one line and exit.

        Raises:
            SystemExit: With status 2.
        """
        if not self.exit_on_error:  # a class's parser: the command's parser prints the error
            super().error(message, ex)  # type: ignore[call-arg]
        parser = getattr(ex, "subcommand_parser", None) or self
        refuse(explain(message, sys.argv), parser.prog.replace(" [options]", ""))


def find_mistake(words: Sequence[str], options: Collection[str]) -> str | None:
    """Return an error about a configuration or the name of an option, or None.

    This check needs neither torch nor the parser, which take seconds to load. It finds only some
    errors, but reports none in a command line that the parser accepts.

    Args:
        words: The command line after the command.
        options: All options of the command, including those of the models in ``TASKS``.
    """
    try:
        given = [*_given_options(words)]
    except ValueError as error:
        return str(error)
    models = []
    for file, name, value in given:
        if name in ("model", "model.class_path") and value and isinstance(value, str):
            models.append((file, value))
    if len(models) == 1 and "torch" not in sys.modules:  # so no user's class is imported
        [(file, model)] = models
        if model.isidentifier() and model not in TASKS:
            return f"{file}{_no_such_task(model)}"
    known = {option.removeprefix("--") for option in options}
    # Options of the model are not checked if a checkpoint may name its class, or if several classes
    # are given: the parser drops options that the last class lacks.
    is_unsure = len(models) > 1 or any(name == "ckpt_path" for _, name, _ in given)
    if is_unsure or not all(_OWN_MODEL.fullmatch(model) for _, model in models):
        known = {name for name in known if not name.startswith("model.")}
    for file, name, value in given:
        if not _is_known(name.replace("+", ""), known):
            return f"{file}--{name}: no such option{did_you_mean(f'--{name}', options)}"
        # The parser would ignore a list or a scalar here. Another text may be a file of options.
        is_scalar = re.fullmatch(r"~|null|true|false|[-+.\d]*", str(value))
        if name in GROUPS and (isinstance(value, list) or is_scalar):
            return f"{file}--{name}: expected a mapping of its options, got {value or 'nothing'}"
    return None


def _given_options(words: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    """Yield prefix, name and value of each option of the command line and its configurations.

    The prefix names the configuration file in an error; it is empty for the command line.

    Raises:
        ValueError: A configuration is missing, or not a mapping in YAML.
    """
    words = [*takewhile(lambda word: word != "--", words)]
    for word, following in pairwise([*words, "--"]):
        if word.startswith("--") and " " not in word:  # to argparse, words with spaces are values
            name, is_joined, value = word[2:].partition("=")
            if not is_joined and not following.startswith("--"):
                value = following
            yield "", name.replace(*_INIT_ARGS), value
    for word in option_values(words, "-c", "--config"):
        file = f"{word}: " if Path(word).is_file() else ""  # nothing for inline YAML
        for name, value in flat_options(_read_config(word)):
            yield file, name.replace(*_INIT_ARGS), value


def check_required(words: Sequence[str], arguments: Mapping[str, bool], command: str) -> None:
    """Exit with an error if an argument of a command is missing, as its own parser would.

    Args:
        words: The command line after the command.
        arguments: The arguments of the command, and whether each is required.
        command: The command, such as ``python -m flowers predict``.

    Raises:
        SystemExit: With status 2.
    """
    parser = OneLineErrors(prog=command, add_help=False, allow_abbrev=False)
    for name, is_required in arguments.items():
        if name.startswith("--"):
            parser.add_argument(name, nargs="?", required=is_required)
        else:
            parser.add_argument(name, nargs="+")
    if not {"-h", "--help"} & set(words):
        parser.parse_known_args(words)


def explain(message: str, words: Sequence[str]) -> str:
    """Return a message of jsonargparse in one line.

    Args:
        message: The message.
        words: The command line, to find the configuration with the error.
    """
    if unknown := re.search(r"unrecognized arguments: (\S+)", message):
        word = unknown[1]
        option = ""
        if word.endswith((".yaml", ".yml")):
            option = "--config"
        elif word.endswith(".ckpt") or Path(word, "checkpoints").is_dir():
            option = "--ckpt_path"
        elif Path(word).is_dir():
            option = "--data.root"
        hint = f"did you mean {option} {word}?" if option else "options begin with two dashes"
        return f"{word}: not expected here, {hint}"
    keys = re.findall(r'Parser key "([^"]+)"', message)
    if not keys:
        text = " ".join(message.split()).replace("expected one argument", "expected a value")
        text = re.sub(r"^Call to compute_fn .* failed: ", "", text)
        return re.sub(r"^argument (?:-\S+/)?(--\S+): ", r"\1: ", text)
    option = f"--{keys[0]}"
    if problem := re.search(r"Problem with given class_path '(\S+)':\s+(.+)", message):
        class_path, reason = problem.groups()
        if name := re.fullmatch(r"Option '(\S+)' is not accepted", reason):
            option += f".{name[1]}"
            return f"{_file_with(option, words)}{option}: {_explain_class(class_path, option)}"
        if not reason.startswith("Parser key"):
            return f"{_file_with(option, words)}{option} {class_path}: {reason}"
        option += f".{keys[-1]}"
    text = f"{option}: {_explain_value(message)}"
    if unknown := re.search(r"Expected a dot import path string: (\w+)", message):
        text = f"{option} {unknown[1]}: there is no such class"
        if keys[0] == "model":
            text = _no_such_task(unknown[1])
    return f"{_file_with(option, words)}{text}"


def option_names(parser: Any) -> list[str]:  # noqa: ANN401
    """Return all options of a parser with their dashes."""
    return [name for name in vars(parser)["_option_string_actions"] if name.startswith("--")]


def option_values(words: Sequence[str], *options: str) -> list[str]:
    """Return the values of an option in a command line.

    Args:
        words: The command line after the command.
        options: Names of the option, such as ``-c`` and ``--config``.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(*options, dest="values", action="append", nargs="?", default=[])
    values, _ = parser.parse_known_args(words)
    return list(map(expand_home, filter(None, values.values)))


def split_options(words: Sequence[str], options: set[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the words of some options with their values, and all other words.

    Args:
        words: The command line after the command. Words before the first option are in the first
            list.
        options: Names of the options with their dashes.
    """
    given: list[str] = []
    others: list[str] = []
    target = given
    for word in words:
        if word.startswith("-") and word != "-":  # "-", the standard input, is a value
            target = given if word.partition("=")[0] in options else others
        target.append(word)
    return given, others


def class_parser(cls: type, name: str = "model") -> Any:  # noqa: ANN401
    """Return a parser of the options of a class, ``--name.…``.

    Args:
        cls: The class.
        name: Option that names the class, and prefix of the class's options.
    """
    import jsonargparse  # noqa: PLC0415 (--help must not wait for it)

    parser = jsonargparse.ArgumentParser(usage=SUPPRESS, add_help=False)
    parser.add_class_arguments(cls, name, fail_untyped=False)
    return parser


def _no_such_task(name: str) -> str:
    expected = f"{', '.join(TASKS)} or the import path of a class"
    return f"--model {name}: expected {expected}{did_you_mean(name, TASKS)}"


def _explain_class(class_path: str, option: str) -> str:
    """Return an error about an option that a class lacks, with the task that has this option."""
    text = f"{class_path.rpartition('.')[2]} has no such option"
    for task in TASKS:
        if option in option_names(class_parser(resolve_name(f"flowers.tasks.{task}"))):
            return f"{text}, but {task} has it"
    group = option[2:].rpartition(".")[0]
    options = option_names(class_parser(resolve_name(class_path), group))
    return text + did_you_mean(option, [name for name in options if name != f"--{group}"])


def _explain_value(message: str) -> str:
    """Return jsonargparse's error about the value of the innermost key in its message."""
    before, _, block = message.rpartition("Parser key")
    _, *lines = block.splitlines()
    indent = " " * (len(before) - before.rfind("\n"))  # one space more than the key has
    values = "\n".join(takewhile(lambda line: line.startswith(indent), lines))
    types = re.findall(r"Expected a (.+?)(?:\. Got value: .*)?$", values, re.MULTILINE)
    got = re.search(r"(?:Got|Given) value: (.*)", values)
    if types and got:
        return f"expected {_in_words(types)}, got {got[1]}"
    return " ".join(block.partition(":")[2].split())


def _in_words(types: list[str]) -> str:
    """Return the names of types for the command line, such as ``int or null``."""
    text = ", ".join(types)
    text = re.sub(r"typing\.Literal\[(.*?)\]", lambda literal: literal[1].replace("'", ""), text)
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    for name, typed in (("NoneType", "null"), ("tuple", "list"), ("bool", "true, false")):
        text = text.replace(name, typed)
    *others, last = dict.fromkeys(text.split(", "))
    return " or ".join(filter(None, [", ".join(others), last]))


def _is_known(name: str, known: set[str]) -> bool:
    """Return whether an option exists, or may be a key of another option's class or dictionary."""
    if name in known:
        return True
    groups = {other.rpartition(".")[0] for other in known if not other.endswith(".help")}
    prefixes = accumulate(name.split("."), "{}.{}".format)  # a, a.b, a.b.c
    return not groups.issuperset(known.intersection(prefixes))


def flat_options(config: dict[str, Any], group: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the names of the options in a configuration, without dashes, and their values."""
    for key, value in config.items():
        if str(key).startswith(("<<", "__")):  # YAML's merge key, internal keys of jsonargparse
            continue
        if isinstance(value, dict) and value:
            yield from flat_options(value, f"{group}{key}.")
        else:
            yield f"{group}{key}", value


def _read_config(word: str) -> dict[str, Any]:
    """Return the options of a configuration, a file or inline YAML.

    The result is empty if only the parser can read the configuration.

    Raises:
        ValueError: The configuration is missing, or not a mapping in YAML.
    """
    import yaml  # noqa: PLC0415 (--help must not wait for it)

    file = Path(word)
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # every value remains text
    try:
        is_file = file.is_file()
        text = file.read_text(encoding="utf-8") if is_file else word
        config = yaml.load(text, loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        source = word if is_file else "--config"
        raise ValueError(f"{source}, line {line}: no valid YAML, {error.problem}") from error
    except (UnicodeError, yaml.reader.ReaderError) as error:
        raise ValueError(f"{word}: expected a text file in UTF-8") from error
    except OSError:
        return {}
    if isinstance(config, dict):
        return config
    if word == "-":  # the standard input
        return {}
    if not is_file:
        raise ValueError(f"--config {word}: there is no such file")
    kind = {"list": "a list", "str": "text"}.get(type(config).__name__, "nothing")
    raise ValueError(f"{word}: expected options such as data: {{batch_size: 64}}, got {kind}")


def _file_with(option: str, words: Sequence[str]) -> str:
    """Return the configuration file that sets an option, as prefix of an error; or nothing."""
    prefix = ""
    for file, name, _ in _given_options(words):
        if not file and f"--{name}" == option:
            return ""
        if file and f"--{name}.".startswith(f"{option}."):
            prefix = file
    return prefix
