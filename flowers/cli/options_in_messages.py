"""Replace parameters in messages of the library by options such as ``--data.image_size``.

The library names its parameters in backquotes, as in "`image_size`: expected 8, got 3".
"""

import logging
import re
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from flowers.cli.command_options import command_options


def name_options(text: str, options: Mapping[str, str]) -> str:
    """Return a message with its parameters in backquotes replaced by their options.

    Args:
        text: The message.
        options: The option of each parameter.
    """
    return re.sub(r"`([\w.]+)`", lambda name: options.get(name[1], name[0]), text)


def name_options_in_error(error: BaseException, options: Mapping[str, str]) -> None:
    """Replace the parameters in the message of an error and in those of its causes."""
    cause: BaseException | None = error
    while cause is not None:
        if cause.args and isinstance(message := cause.args[0], str):
            cause.args = (name_options(message, options), *cause.args[1:])
        cause = cause.__cause__


@cache  # applied once per process
def name_options_in_log() -> None:
    """From now on, replace parameters in Lightning's log and in warnings of this package."""
    options = training_options()
    format_other = warnings.formatwarning

    def change(record: logging.LogRecord) -> bool:
        record.msg = name_options(str(record.msg), options)
        return True

    def format_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if Path(filename).is_relative_to(Path(__file__).parents[1]):
            return f"Warning: {name_options(str(message), options)}\n"
        return format_other(message, category, filename, lineno, line)

    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(change)
    warnings.formatwarning = format_warning


@cache
def training_options() -> dict[str, str]:
    """Return the option of each parameter of data, models, callbacks and trainer."""
    options = {"TransferTask": "--model TransferTask"}
    for option in command_options("fit", module="training"):
        options[option.rpartition(".")[2].removeprefix("--")] = option
        options[option.removeprefix("--data.")] = option  # nested, such as augment.cutmix_prob
    return options
