from __future__ import annotations

import logging
import warnings

import pytest
from lightning.pytorch.utilities import rank_zero_info

from flowers.cli import training
from flowers.cli.command_options import command_options
from flowers.cli.options_in_messages import (
    name_options,
    name_options_in_error,
    name_options_in_log,
    training_options,
)


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("`image_size`: expected 8", "--data.image_size: expected 8"),
        ("`augment.min_scale`, `max_time`", "--data.augment.min_scale, --trainer.max_time"),
        ("for a `TransferTask`", "for a --model TransferTask"),
        ("`monitor` val/acc", "--checkpoint.monitor val/acc"),
        ("image_size, `other`, `a b`, 5`", "image_size, `other`, `a b`, 5`"),
    ],
)
def test_parameters_in_backquotes_become_options(message, printed):
    assert name_options(message, training_options()) == printed


def test_every_option_exists():
    options = {option.partition(" ")[0] for option in training_options().values()}
    assert options <= set(command_options("fit", module="training"))


def test_the_causes_of_an_error_are_changed_too():
    error = ValueError("`a`: incorrect", "`a`")
    error.__cause__ = FileNotFoundError(2, "`a`")
    name_options_in_error(error, {"a": "--a"})
    assert error.args == ("--a: incorrect", "`a`")
    assert error.__cause__.args == (2, "`a`")


def test_notes_and_warnings_are_changed(caplog, monkeypatch):
    monkeypatch.setattr("warnings.formatwarning", warnings.formatwarning)
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    monkeypatch.setattr(logger, "filters", [])
    name_options_in_log.__wrapped__()
    with caplog.at_level(logging.INFO):
        rank_zero_info("100 % of `root`")
    assert caplog.messages == ["100 % of --data.root"]
    warning = UserWarning("`lr` is high")
    own = warnings.formatwarning(warning, UserWarning, training.__file__, 1)
    assert own == "Warning: --model.lr is high\n"
    assert "UserWarning: `lr` is" in warnings.formatwarning(warning, UserWarning, "other.py", 1)
