"""The help that fits a screen."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from flowers.cli import training
from flowers.cli.short_help import COMMON_OPTIONS

LISTED = {name for options in COMMON_OPTIONS.values() for name in options}


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a command prints before it ends."""
    with pytest.raises(SystemExit) as ended:
        training.main(words)
    assert ended.value.code == 0
    return capsys.readouterr().out


def defaults(text: str) -> dict[str, Any]:
    """Return the options in a short help with their defaults."""
    return {
        name: yaml.safe_load(value)
        for name, value in re.findall(r"^  --(\S+) (\S+)", text, re.MULTILINE)
    }


def options(config: dict[str, Any], group: str = "") -> dict[str, Any]:
    """Return the options of a configuration by their names."""
    flat = {}
    for key, value in config.items():
        flat |= (
            options(value, f"{group}{key}.")
            if isinstance(value, dict)
            else {f"{group}{key}": value}
        )
    return flat


@pytest.mark.parametrize("model", ["CNNTask", "TransferTask"])
@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_the_help_fits_a_screen_and_has_the_defaults_of_the_parser(command, model, capsys):
    text = printed([command, "--help", "--model", model], capsys)
    lines = text.splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 100
    assert lines[-1] == f"All options: python -m flowers {command} --help all"
    config = yaml.safe_load(printed([command, "--model", model, "--print_config"], capsys))
    of_model = {f"model.{name}": value for name, value in config["model"].pop("init_args").items()}
    real = options(config) | of_model | {"model": model}
    displayed = defaults(text)
    for name, value in displayed.items():
        assert value == real[name], name
    if command == "fit":
        assert of_model.keys() <= displayed.keys()


def test_every_common_option_is_shown(capsys):
    displayed = {
        *defaults(printed(["fit", "-h"], capsys)),
        *defaults(printed(["test", "-h"], capsys)),
    }
    assert displayed >= LISTED


def test_the_help_is_about_the_model_of_a_given_configuration(capsys, tmp_path):
    (tmp_path / "own.yaml").write_text(
        "model: {class_path: TransferTask, init_args: {arch: inception_v3}}"
    )
    displayed = defaults(printed(["fit", "--config", "own.yaml", "--help"], capsys))
    assert (displayed["model"], displayed["model.arch"], displayed["data.image_size"]) == (
        "TransferTask",
        "mobilenet_v2",
        299,
    )


def test_help_all_has_the_options_of_the_model_too(capsys):
    text = printed(["fit", "--model", "TransferTask", "--help", "all"], capsys)
    for option in (*LISTED, "trainer.limit_val_batches", "model.stage_decay"):
        assert f"\n  --{option} " in text
