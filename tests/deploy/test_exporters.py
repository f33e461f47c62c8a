"""An exported file gives the probabilities of the network."""

from __future__ import annotations

import json
from zipfile import ZipFile

import numpy as np
import onnx
import pytest
import torch

from flowers.cli.export import check_images, largest_difference
from flowers.deploy.exporters import (
    Classifier,
    onnx_runner,
    torch_export_runner,
    write_onnx,
    write_torch_export,
)
from flowers.models import flower_cnn, pretrained

WRITERS = {
    "onnx": (write_onnx, onnx_runner),
    "torch_export": (write_torch_export, torch_export_runner),
}
FAMILIES = ("resnet18", "mobilenet_v3_small", "convnext_tiny")
METADATA = {"class_names": "cat, dog, emu"}
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 40, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def net():
    return flower_cnn(3, widths=(8, 16)).eval()


@pytest.fixture(
    scope="module", params=[pytest.param("onnx", marks=pytest.mark.slow), "torch_export"]
)
def exported(request, net, tmp_path_factory):
    """Return the kind and the path of an exported file."""
    file = tmp_path_factory.mktemp("exported") / "net"
    write, _ = WRITERS[request.param]
    write(Classifier(net, 2.0).eval(), IMAGES, file, metadata=METADATA)
    return request.param, file


def test_a_batch_of_any_size_gives_the_probabilities_of_the_network(exported, net):
    kind, file = exported
    _, load = WRITERS[kind]
    run = load(file)
    with torch.no_grad():
        logits = net(torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255)
    expected = (logits / 2.0).softmax(dim=1).numpy()
    for size in (1, 7):
        assert np.allclose(run(IMAGES[:size]), expected[:size], atol=1e-5)


def test_the_metadata_is_in_the_file(exported):
    kind, file = exported
    if kind == "onnx":
        metadata = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    else:
        archive = ZipFile(file)
        [name] = [name for name in archive.namelist() if name.endswith("metadata.json")]
        metadata = json.loads(archive.read(name))
    assert metadata == METADATA


@pytest.mark.slow
@pytest.mark.parametrize("arch", FAMILIES)
@pytest.mark.parametrize("kind", [*WRITERS])
def test_networks_of_torchvision_are_exported_unchanged(arch, kind, tmp_path):
    write, load = WRITERS[kind]
    module = Classifier(pretrained(arch, 5, weights="none"), 0.5).eval()
    images = check_images(None, {"image_size": 64})[:40]
    file = tmp_path / "net"
    write(module, images, file, metadata={})
    assert largest_difference(load(file), module, images) <= 1e-4
