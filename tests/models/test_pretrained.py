from __future__ import annotations

from hashlib import sha256
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
import torchvision.models
from torch import nn
from torchvision.models import SqueezeNet1_1_Weights, get_model, list_models

from flowers.models import preprocessing, pretrained


def test_every_family_gets_a_new_head_on_its_complete_backbone(family):
    arch, size = family
    net = pretrained(arch, 3, weights="none").eval()
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        features = net.backbone(net.standardize(images))
        assert features.ndim == 2
        assert net.head(features).shape == (2, 3)
        assert torch.allclose(net(images), net.head(features))
    backbone = {id(parameter) for parameter in net.backbone.parameters()}
    head = {id(parameter) for parameter in net.head.parameters()}
    assert backbone.isdisjoint(head)
    assert backbone | head == {id(p) for p in net.parameters()}
    assert sum(p.numel() for p in net.head.parameters()) == (features.shape[1] + 1) * 3
    # No layer for ImageNet's classes is left, auxiliary ones included.
    for module in net.modules():
        assert getattr(module, "out_features", 0) != 1000


def test_every_classifier_of_torchvision_has_a_preprocessing():
    for arch in list_models(module=torchvision.models):
        expected = preprocessing(arch, "none")
        assert expected.image_size == 224 or not arch.startswith("vit_")
        assert expected.image_size >= 224
        assert expected.interpolation in ("bilinear", "bicubic")
        assert len(expected.mean) == len(expected.std) == 3
    assert preprocessing("efficientnet_b0", "IMAGENET1K_V1").interpolation == "bicubic"
    assert preprocessing("resnet50", "DEFAULT").mean == pytest.approx((0.485, 0.456, 0.406))


@pytest.mark.parametrize("arch", ["squeezenet1_1", "mobilenet_v2", "googlenet", "densenet121"])
def test_weights_from_a_file_give_the_networks_own_logits(arch, tmp_path):
    options = {"init_weights": False} if arch == "googlenet" else {}
    whole = get_model(arch, weights=None, **options).eval()
    state = whole.state_dict()
    if arch == "densenet121":  # the names in the published file
        state = {
            key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): v
            for key, v in state.items()
        }
    torch.save({"model": state}, tmp_path / "w.pth")
    net = pretrained(arch, 1000, weights=str(tmp_path / "w.pth")).eval()
    head = [m for m in whole.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    last = next(
        m
        for m in reversed(head)
        if 1000 in (getattr(m, "out_features", 0), getattr(m, "out_channels", 0))
    )
    with torch.no_grad():
        net.head[1].weight.copy_(last.weight.reshape(1000, -1))
        net.head[1].bias.copy_(last.bias)
        images = torch.rand(2, 3, 96, 96)
        inputs = net.standardize(images)
        if arch == "squeezenet1_1":  # torchvision's applies ReLU to the logits before pooling
            expected = whole.classifier[1](whole.features(inputs)).mean((2, 3))
        else:
            expected = whole(whole._transform_input(inputs) if arch == "googlenet" else inputs)
        assert torch.allclose(net(images), expected, atol=1e-4)


def test_weights_without_a_head_are_loaded_and_incomplete_ones_are_refused(tmp_path):
    state = get_model("squeezenet1_1", weights=None).state_dict()
    trunk = {key: value for key, value in state.items() if key.startswith("features.")}
    torch.save(trunk, tmp_path / "trunk.pth")
    net = pretrained("squeezenet1_1", 3, weights=str(tmp_path / "trunk.pth"))
    assert all(torch.equal(net.backbone.state_dict()[key], value) for key, value in trunk.items())
    del trunk["features.3.squeeze.weight"]
    torch.save(trunk, tmp_path / "trunk.pth")
    with pytest.raises(ValueError, match=r"Missing key.* \"features\.3\.squeeze\.weight\""):
        pretrained("squeezenet1_1", 3, weights=str(tmp_path / "trunk.pth"))


def test_a_checkpoint_gives_its_backbone_and_for_the_same_classes_its_head(tmp_path):
    mine = pretrained("squeezenet1_1", 3, weights="none")
    state = {f"net.{key}": value for key, value in mine.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {}}, tmp_path / "best.ckpt")
    same = pretrained("squeezenet1_1", 3, weights=str(tmp_path / "best.ckpt"))
    assert all(
        torch.equal(value, mine.state_dict()[key]) for key, value in same.state_dict().items()
    )
    other = pretrained("squeezenet1_1", 4, weights=str(tmp_path / "best.ckpt"))
    assert torch.equal(
        other.backbone.state_dict()["features.0.weight"], state["net.backbone.features.0.weight"]
    )
    assert other.head[1].weight.shape == (4, 512)
    with pytest.raises(ValueError, match="Missing key"):
        pretrained("resnet18", 3, weights=str(tmp_path / "best.ckpt"))


@pytest.mark.parametrize("arch", ["mobilenet_v2", "squeezenet1_1", "vgg11", "googlenet"])
def test_torchvisions_dropout_before_the_head_moves_into_the_head(arch):
    with torch.device("meta"):  # without memory for the weights
        net = pretrained(arch, 3, weights="none", dropout=0.3)
    active = [module.p for module in net.modules() if isinstance(module, nn.Dropout) and module.p]
    assert active == ([0.5, 0.3] if arch == "vgg11" else [0.3])


def test_weights_of_another_network_are_refused_with_their_first_keys(tmp_path):
    torch.save(get_model("resnet18", weights=None).state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(
        ValueError, match=r"weights of mobilenet_v2, got conv1\.weight, .*Missing key.*features\.0"
    ):
        pretrained("mobilenet_v2", 3, weights=str(tmp_path / "resnet.pth"))
    with pytest.raises(
        ValueError, match=r"weights of resnet50, got conv1\.weight, .*Missing key.*layer1\.0\.conv3"
    ):
        pretrained("resnet50", 3, weights=str(tmp_path / "resnet.pth"))


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_a_file_without_weights_is_refused(content, tmp_path):
    if content is None:
        torch.save({"state_dict": {"a": 1}}, tmp_path / "w.pth")
    else:
        (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.pth: expected a state dict of resnet18"):
        pretrained("resnet18", 3, weights=str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("arch", "weights", "message"),
    [
        ("resnet19", "none", "`arch`: expected one of alexnet"),
        (
            "resnet18",
            "IMAGENET1K_V9",
            "`weights`: expected IMAGENET1K_V1, DEFAULT, none or the path",
        ),
        (
            "vit_b_16",
            "IMAGENET1K_SWAG_E2E_V1",
            "`weights`: expected IMAGENET1K_V1, IMAGENET1K_SWAG_LINEAR_V1, DEFAULT, none or the "
            "path of a .pth file for vit_b_16 and images of 224 pixels, got IMAGENET1K_SWAG_E2E_V1",
        ),
    ],
)
def test_an_unknown_network_or_unknown_weights_are_named(arch, weights, message):
    with pytest.raises(ValueError, match=message):
        pretrained(arch, 3, weights=weights)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"`weights` nowhere\.pth: no such file"):
        pretrained("resnet18", 3, weights="nowhere.pth")


def test_without_a_connection_the_error_names_file_url_and_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(OSError, match="cannot be downloaded") as caught:
        pretrained("resnet18", 3, weights="DEFAULT")
    message = str(caught.value)
    assert f"save it as {tmp_path}/hub/checkpoints/resnet18-f37072fd.pth" in message
    assert "https://" in message
    assert "`weights` none" in message
    assert not [*tmp_path.rglob("*.pth")]


def test_weights_that_are_downloaded_need_no_connection_but_their_sha256(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    state = get_model("squeezenet1_1", weights=None).state_dict()
    torch.save(state, tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    name = f"squeezenet1_1-{sha256(content).hexdigest()[:8]}.pth"
    entry = SqueezeNet1_1_Weights.DEFAULT.value
    monkeypatch.setattr(entry, "url", f"https://download.pytorch.org/models/{name}")
    (tmp_path / "hub" / "checkpoints" / name).write_bytes(content)
    net = pretrained("squeezenet1_1", 3)
    assert torch.equal(net.backbone.state_dict()["features.0.weight"], state["features.0.weight"])
    monkeypatch.setattr(entry, "url", "https://download.pytorch.org/squeezenet1_1-b8a52dc0.pth")
    (tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth").write_bytes(content)
    with pytest.raises(ValueError, match="a file whose SHA-256 does not begin with b8a52dc0, the"):
        pretrained("squeezenet1_1", 3)


@pytest.mark.parametrize(
    "name", ["w-20260131.pth", "w-1718030922.pth", "w-fine-tuned.pth", "w-12345.pth"]
)
def test_a_name_without_a_checksum_is_only_a_name(name, tmp_path):
    state = get_model("squeezenet1_1", weights=None).state_dict()
    torch.save(state, tmp_path / name)
    pretrained("squeezenet1_1", 3, weights=str(tmp_path / name))


def test_weights_with_code_are_refused_without_advice_to_run_it(tmp_path):
    torch.save({"a": nn.Linear(2, 2)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="expected a state dict of resnet18, got code") as refused:
        pretrained("resnet18", 3, weights=str(tmp_path / "w.pth"))
    assert "weights_only" not in str(refused.value)


def test_compressed_weights_are_refused(tmp_path):
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "w.pth")
    z = ZipFile(tmp_path / "z.pth", "w", ZIP_DEFLATED)
    with ZipFile(tmp_path / "w.pth") as archive, z:
        for name in archive.namelist():
            z.writestr(name, archive.read(name))
    with pytest.raises(ValueError, match="a file that torch"):
        pretrained("resnet18", 3, weights=str(tmp_path / "z.pth"))


def test_damaged_weights_are_refused(tmp_path):
    file = tmp_path / "w.pth"
    torch.save(get_model("squeezenet1_1", weights=None).state_dict(), file)
    pretrained("squeezenet1_1", 3, weights=str(file))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # a single bit
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"`weights` .*w\.pth: .*a damaged file"):
        pretrained("squeezenet1_1", 3, weights=str(file))
