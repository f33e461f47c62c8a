from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from flowers.callbacks.cache_features import cache_features
from flowers.data import FlowersDataModule
from flowers.tasks import TransferTask


@pytest.fixture
def make_data(synthetic, monkeypatch, tmp_path):
    """Return a function that makes a data module with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make():
        data = FlowersDataModule(str(synthetic), image_size=32, crop_size=32)
        data.setup("fit")
        return data

    return make


@pytest.fixture
def task(make_data):
    names = make_data().class_names
    return TransferTask(names, arch="mobilenet_v3_small", weights="none")


def test_features_are_those_of_the_backbone_in_evaluation(task, make_data):
    data = make_data()
    task.train()
    features = cache_features(task, data)
    assert task.net.training
    indices = data.indices["val"]
    images = data.images(indices).float() / 255
    with torch.no_grad():
        expected = task.net.eval().backbone(task.net.standardize(images))
    assert torch.allclose(expected, torch.from_numpy(features[indices]), atol=1e-5)
    assert np.isnan(features[data.indices["test"]]).all()  # they are not needed


def test_features_are_computed_once_for_each_set_of_weights(task, make_data, caplog):
    def is_computed(task):
        caplog.clear()
        cache_features(task, make_data())
        return any(message.startswith("Computing the features") for message in caplog.messages)

    assert is_computed(task)
    assert not is_computed(copy.deepcopy(task))
    with torch.no_grad():
        task.net.backbone.features[0][0].weight.mul_(2.0)
    assert is_computed(task)
