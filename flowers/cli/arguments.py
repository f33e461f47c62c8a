"""Errors of the command line in one line, with the nearest option."""

from __future__ import annotations

import re
import sys
from argparse import SUPPRESS
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

TASKS = ("CNNTask", "TransferTask")


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return a question that names the nearest of some words; empty where none is near."""
    words = list(words)
    same_name = [
        other for other in words if other.endswith(f".{word.rpartition('.')[2].lstrip('-')}")
    ]
    nearest = (
        same_name if word.startswith("--") and same_name else get_close_matches(word, words, n=1)
    )
    return f", did you mean {nearest[0]}?" if nearest else ""


def refuse(message: str, command: str) -> NoReturn:
    """Print what is wrong and where the options are, and exit.

    Args:
        message: The message.
        command: The beginning of the command line, as ``python -m flowers fit``.

    Raises:
        SystemExit: With status 2.
    """
    print(f"flowers: {message}\nOptions: {command} --help", file=sys.stderr)
    raise SystemExit(2)


def add_flags(error: BaseException, flags: Mapping[str, str]) -> None:
    """Replace the parameters that an error of the package names, as ``image_size`` in backquotes, by their options.

    Args:
        error: The error; its causes are changed, too.
        flags: The option of each parameter, as ``--data.image_size``.
    """
    cause: BaseException | None = error
    while cause is not None:
        texts = [_with_flags(arg, flags) if isinstance(arg, str) else arg for arg in cause.args]
        cause.args = tuple(texts)
        cause = cause.__cause__


def _with_flags(text: str, flags: Mapping[str, str]) -> str:
    return re.sub(r"`([\w.]+)`", lambda match: flags.get(match[1], match[0]), text)


class OneLineErrors:
    """For parsers of jsonargparse, whose errors begin with the whole usage."""

    exit_on_error: bool
    prog: str

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong in one line and exit.

        Raises:
            SystemExit: With status 2.
        """
        if not self.exit_on_error:  # the parser of a class: the command's own parser answers
            super().error(message, ex)  # type: ignore[misc]
        parser = getattr(ex, "subcommand_parser", None) or self
        refuse(explain(message, sys.argv), parser.prog.replace(" [options]", ""))


def find_mistake(words: Sequence[str], options: Iterable[str]) -> str | None:
    """Return what is wrong with a configuration or the name of an option; None where only the parser can tell.

    It needs neither torch nor the parser, which take seconds to load, and finds nothing in what the
    parser accepts.

    Args:
        words: The command line after the command.
        options: All options of the command, with those of the models in ``TASKS``; if empty no name
            is judged.
    """
    typed = [
        word[2:].partition("=")[0]
        for word in takewhile(lambda word: word != "--", words)
        if _is_option(word)
    ]
    names = [("", name) for name in typed]
    models = [("", model) for model in _values(words, "--model", "--model.class_path")]
    for word in _values(words, "-c", "--config"):
        try:
            config = _read_config(word)
        except ValueError as error:
            return str(error)
        names += [(_as_file(word), name) for name in _names(config)]
        models += [(_as_file(word), model) for model in _model_classes(config)]
    if (
        len(models) == 1 and "torch" not in sys.modules
    ):  # else there may be classes of somebody else's
        [(file, model)] = models
        if model.isidentifier() and model not in TASKS:
            return f"{file}{_no_such_task(model)}"
    known = {option.removeprefix("--") for option in options}
    # A class of somebody else's has other options; and where two are named, one may ignore what is
    # meant for the other.
    own_classes = {
        f"{module}{task}" for module in ("", "flowers.", "flowers.tasks.") for task in TASKS
    }
    is_ours = len(models) < 2 and all(model in own_classes for _, model in models)
    if not is_ours or any(name == "ckpt_path" for _, name in names):
        known = {name for name in known if not name.startswith("model.")}
    for file, given in names if known else []:
        name = given.replace("model.init_args.", "model.")
        if not _is_known(name.replace("+", ""), known):
            return f"{file}--{name}: no such option{did_you_mean(f'--{name}', options)}"
    return None


def explain(message: str, words: Sequence[str]) -> str:
    """Return a message of jsonargparse in one line.

    Args:
        message: The message.
        words: The command line, whose configurations may hold what is wrong.
    """
    if unknown := re.search(r"unrecognized arguments: (\S+)", message):
        return f"{unknown[1]}: not expected here, options begin with two dashes"
    keys = re.findall(r'Parser key "([^"]+)"', message)
    if not keys:
        text = " ".join(message.split()).replace("expected one argument", "expected a value")
        return re.sub(r"^argument (?:-\S+/)?(--\S+): ", r"\1: ", text)
    option = f"--{keys[0]}"
    if problem := re.search(r"Problem with given class_path '(\S+)':\s+(.+)", message):
        class_path, reason = problem.groups()
        if name := re.fullmatch(r"Option '(\S+)' is not accepted", reason):
            option += f".{name[1]}"
            return f"{_in_file(option, words)}{option}: {_explain_class(class_path, option)}"
        if not reason.startswith("Parser key"):
            return f"{_in_file(option, words)}{option} {class_path}: {reason}"
        option += f".{keys[-1]}"
    if unknown := re.search(r"Expected a dot import path string: (\w+)", message):
        answer = (
            _no_such_task(unknown[1])
            if keys[0] == "model"
            else f"{option} {unknown[1]}: there is no such class"
        )
        return f"{_in_file(option, words)}{answer}"
    return f"{_in_file(option, words)}{option}: {_explain_value(message)}"


def option_names(parser: Any) -> list[str]:  # noqa: ANN401
    """Return all options of a parser, with their dashes."""
    return [name for name in vars(parser)["_option_string_actions"] if name.startswith("--")]


def class_parser(cls: type, name: str = "model") -> Any:  # noqa: ANN401
    """Return a parser of the options of a class, ``--name.…``.

    Args:
        cls: The class.
        name: Option that names the class.
    """
    from jsonargparse import ArgumentParser  # noqa: PLC0415 (--help must not wait for it)

    parser = ArgumentParser(usage=SUPPRESS, add_help=False)
    parser.add_class_arguments(cls, name, fail_untyped=False)
    return parser


def _no_such_task(name: str) -> str:
    expected = f"{', '.join(TASKS)} or the import path of a class"
    return f"--model {name}: expected {expected}{did_you_mean(name, TASKS)}"


def _explain_class(class_path: str, option: str) -> str:
    """Return what to say of an option that a class has not: which task has it, or which other option is near."""
    answer = f"{class_path.rpartition('.')[2]} has no such option"
    for task in TASKS:
        if option in option_names(class_parser(resolve_name(f"flowers.tasks.{task}"))):
            return f"{answer}, {task} has"
    group = option[2:].rpartition(".")[0]
    own = option_names(class_parser(resolve_name(class_path), group))
    return answer + did_you_mean(option, [name for name in own if name != f"--{group}"])


def _explain_value(message: str) -> str:
    """Return what a message of jsonargparse says of a value, in the words of the innermost key that it names."""
    before, _, block = message.rpartition("Parser key")
    _, *lines = block.splitlines()
    indent = " " * (len(before) - before.rfind("\n"))  # one more than that of the key
    values = "\n".join(takewhile(lambda line: line.startswith(indent), lines))
    types = re.findall(r"Expected a (.+?)(?:\. Got value: .*)?$", values, re.MULTILINE)
    got = re.search(r"(?:Got|Given) value: (.*)", values)
    if types and got:
        return f"expected {_in_words(types)}, got {got[1]}"
    return " ".join(block.partition(":")[2].split())


def _in_words(types: list[str]) -> str:
    """Return how values of some types are typed, as ``int or null``."""
    text = ", ".join(types)
    text = re.sub(r"typing\.Literal\[(.*?)\]", lambda literal: literal[1].replace("'", ""), text)
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    for name, typed in (("NoneType", "null"), ("tuple", "list"), ("bool", "true, false")):
        text = text.replace(name, typed)
    names = list(dict.fromkeys(text.split(", ")))
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]


def _is_option(word: str) -> bool:
    return word.startswith("--") and " " not in word  # argparse takes words with spaces for values


def _is_known(name: str, known: set[str]) -> bool:
    """Return whether an option exists, or may belong to the class or dictionary that another option holds."""
    parts = name.split(".")
    beginnings = {".".join(parts[:number]) for number in range(1, len(parts))} & known
    groups = {other.rpartition(".")[0] for other in known if not other.endswith(".help")}
    return name in known or bool(beginnings - groups)


def _values(words: Sequence[str], *options: str) -> list[str]:
    """Return the values of some options among the words of a command line."""
    values = []
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, is_assigned, value = word.partition("=")
        value = value if is_assigned else following
        if name in options and value and not value.startswith("--"):
            values.append(value)
    return values


def _names(config: dict[str, Any], group: str = "") -> Iterator[str]:
    """Yield the options in a configuration, without dashes."""
    for key, value in config.items():
        if key.startswith(("<<", "__")):  # YAML's merging, jsonargparse's notes
            continue
        if isinstance(value, dict) and value:
            yield from _names(value, f"{group}{key}.")
        else:
            yield f"{group}{key}"


def _model_classes(config: dict[str, Any]) -> list[str]:
    """Return the class of the model in a configuration, if it names one."""
    model = config.get("model")
    name = model.get("class_path") if isinstance(model, dict) else model
    return [name] if isinstance(name, str) else []


def _read_config(word: str) -> dict[str, Any]:
    """Return the options of a configuration, a file or YAML as it stands; nothing where only the parser can read it.

    Raises:
        ValueError: The configuration is missing, or no options in YAML.
    """
    import yaml  # noqa: PLC0415 (--help must not wait for it)

    file = Path(word).expanduser()
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # every value remains text
    try:
        is_file = file.is_file()
        config = yaml.load(file.read_text(encoding="utf-8") if is_file else word, loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(
            f"{word if is_file else '--config'}, line {line}: no valid YAML, {error.problem}"
        ) from error
    except (OSError, UnicodeError):
        return {}
    if isinstance(config, dict):
        return config
    if word == "-":  # the standard input
        return {}
    if not is_file:
        raise ValueError(f"--config {word}: there is no such file")
    kind = {"list": "a list", "str": "text"}.get(type(config).__name__, "nothing")
    raise ValueError(f"{word}: expected options, as data: {{batch_size: 64}}, got {kind}")


def _in_file(option: str, words: Sequence[str]) -> str:
    """Return the configuration that holds an option, as the beginning of a message; empty where none does."""
    if any(word.partition("=")[0] == option for word in words):
        return ""
    for word in reversed(_values(words, "--config")):
        names = [name.replace("model.init_args.", "model.") for name in _names(_read_config(word))]
        if any(f"--{name}.".startswith(f"{option}.") for name in names):
            return _as_file(word)
    return ""


def _as_file(config: str) -> str:
    """Return a configuration as the beginning of a message; empty where it is no file, but YAML as it stands."""
    return f"{config}: " if Path(config).expanduser().is_file() else ""
