import json
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import torch
from hostile import Command
from places import GOLDEN
from safetensors.torch import load_file, save_file
from transformers import FocalNetConfig, FocalNetForImageClassification, FocalNetModel, ResNetConfig

from hf_dvflnet.data.label_sets import LABEL_SETS, LabelSet
from hf_dvflnet.hub.checkpoint_conversion import (
    convert_checkpoint,
    load_published_checkpoint,
)
from hf_dvflnet.hub.loading import load_config


# what the weights of a golden checkpoint do not tell, and its configuration node neither
FLAGS = {"options": {"use_post_layernorm": True, "normalize_modulator": True}}
VIDEO_VARIANTS = ["default", "options", "tubelet"]


def published(variant: str) -> dict:
    return load_published_checkpoint(GOLDEN / f"{variant}.pth")


def largest_difference(model, variant: str) -> float:
    """Of logits to those of the published modules."""
    expected = load_file(GOLDEN / f"{variant}.expected.safetensors")
    pixel_values = expected["pixel_values"]
    if pixel_values.ndim == 4:  # an image, as a still clip
        pixel_values = pixel_values[:, None].expand(-1, 8, -1, -1, -1)
    with torch.no_grad():
        return (model(pixel_values).logits - expected["logits"]).abs().max().item()


# reading


@pytest.mark.parametrize("place", ["top level", "nested", "in place of a weight", "plain pickle", "old format"])
def test_a_pickle_that_would_run_a_command_is_refused_and_nothing_runs(tmp_path, place):
    marker, path = tmp_path / "ran", tmp_path / "hostile.pth"
    command = Command(marker)
    if place == "top level":
        torch.save(command, path)
    elif place == "nested":
        torch.save({**published("default"), "optimizer": {"state": [{"a": (command,)}]}}, path)
    elif place == "in place of a weight":
        torch.save({"model": {**published("default")["model"], "norm.weight": command}}, path)
    elif place == "plain pickle":
        path.write_bytes(pickle.dumps({"model": {}, "config": command}))
    else:
        torch.save({"model": {}, "config": command}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"hostile\.pth: cannot be read as a published checkpoint"):
        convert_checkpoint(path)
    assert not marker.exists()
    # the file is what it claims to be: read the unsafe way, it would have run
    with open(path, "rb") as file:
        pickle.load(file) if place == "plain pickle" else torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint\n", b"PK\x03\x04 no archive", b"\x80\x02", b"\x80\x04\x95\xff\xff"]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path, content, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"weights{suffix}: cannot be read as a published checkpoint: ."):
        convert_checkpoint(path)


# what the weights tell


@pytest.mark.parametrize("variant", VIDEO_VARIANTS)
def test_a_converted_checkpoint_answers_as_the_published_modules(variant):
    converted = convert_checkpoint(GOLDEN / f"{variant}.pth", **FLAGS.get(variant, {}))
    assert largest_difference(converted.model, variant) <= 1e-5
    assert (converted.new, converted.left) == ([], [])
    assert len(converted.copied) == len(published(variant)["model"])


def test_every_option_is_read_off_the_weights():
    config = convert_checkpoint(GOLDEN / "options.pth", **FLAGS["options"]).model.config
    expected = {
        "depths": [1, 1, 2, 1],
        "embed_dim": 8,
        "focal_levels": [3, 2, 2, 1],
        "focal_windows": [5, 3, 3, 3],
        "mlp_ratio": 2.0,
        "use_conv_embed": True,
        "use_layerscale": True,
        "use_post_layernorm_in_modulation": True,
        "use_post_layernorm": True,
        "normalize_modulator": True,
        "num_labels": 11,
        "num_frames": 8,
        "image_size": 64,
    }
    assert {name: getattr(config, name) for name in expected} == expected
    assert convert_checkpoint(GOLDEN / "tubelet.pth").model.config.tubelet_size == 2


@pytest.mark.parametrize("form", ["bare", "module.", "safetensors"])
def test_other_forms_of_a_checkpoint_give_the_same_network(tmp_path, form):
    state_dict = dict(published("default")["model"])
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    if form == "safetensors":
        save_file(state_dict, path)
    elif form == "bare":
        torch.save(state_dict, path)
    else:
        torch.save({"model": {f"module.{name}": weight for name, weight in state_dict.items()}}, path)
    assert largest_difference(convert_checkpoint(path).model, "default") <= 1e-5


def test_options_without_a_trace_are_taken_as_false_and_said_so():
    notes = convert_checkpoint(GOLDEN / "default.pth").notes
    false = [note.split(" ")[0] for note in notes if "false is used" in note]
    assert false == ["use_post_layernorm", "normalize_modulator"]
    assert [note for note in notes if "frame interval" in note]  # which golden's configuration does not say either


def rewritten(tmp_path, **focal):
    """`options.pth` with other entries in its configuration node."""
    checkpoint = published("options")
    checkpoint["config"]["MODEL"]["FOCAL"].update(focal)
    torch.save(checkpoint, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_where_configuration_and_weights_disagree_the_weights_win_and_it_is_noted(tmp_path):
    path = rewritten(tmp_path, DEPTHS=[2, 2, 6, 2], FOCAL_LEVELS=[2, 2, 2, 2])
    converted = convert_checkpoint(path, **FLAGS["options"])
    assert converted.model.config.depths == [1, 1, 2, 1]
    contradicted = [match[1] for note in converted.notes if (match := re.match("the configuration says (\\w+)", note))]
    assert contradicted == ["depths", "focal_levels"]


def test_the_lists_that_it_was_trained_on_are_kept():
    config = convert_checkpoint(GOLDEN / "default.pth").model.config  # whose configuration says ucf101
    assert config.training_data == {"benchmark": "ucf101", "protocol": "dvflnet_8020", "fold": 1, "split": "train"}


# strictness


def test_missing_and_unexpected_weights_are_listed(tmp_path):
    state_dict = dict(published("default")["model"])
    del state_dict["layers.2.blocks.1.mlp.fc1.bias"]
    state_dict["layers.2.extra"] = torch.zeros(1)
    state_dict["norm.bias"] = torch.zeros(3)
    torch.save({"model": state_dict}, tmp_path / "weights.pth")
    with pytest.raises(ValueError) as caught:
        convert_checkpoint(tmp_path / "weights.pth")
    assert "Missing: layers.2.blocks.1.mlp.fc1.bias." in str(caught.value)
    assert "Unexpected: layers.2.extra." in str(caught.value)
    assert "With a different shape: norm.bias (3,) instead of (64,)" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"conv1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, "are named conv1.weight, fc.bias;"),
        ({"model": {}}, "contains no state dict"),
        ({"state": {"epoch": 3}}, "contains no state dict"),
        ([torch.zeros(1)], "contains no state dict"),
        (torch.zeros(1), "contains no state dict"),
        ({"layers.0.blocks.0.modulation.h.weight": torch.tensor(1.0)}, "does not occur in a Video-FocalNet"),
        ({"videofocalnet.layernorm.weight": torch.zeros(1)}, "already have this package's names"),
    ],
)
def test_another_architecture_is_refused_by_name(tmp_path, content, reason):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=f"weights.pth: .*{reason}"):
        convert_checkpoint(tmp_path / "weights.pth")


def test_another_number_of_class_names_is_refused():
    with pytest.raises(ValueError, match=r"default\.pth: has 11 classes, but the sorted list names 2"):
        convert_checkpoint(GOLDEN / "default.pth", labels=LabelSet(("a", "b"), "the sorted list"))


# images


def test_a_still_clip_gets_the_image_networks_answer():
    converted = convert_checkpoint(GOLDEN / "imagenet_2d.pth")
    assert largest_difference(converted.model, "imagenet_2d") <= 1e-5
    assert converted.new
    assert all(".temporal_" in name for name in converted.new)


def test_identity_makes_the_temporal_modulator_exactly_one():
    model = convert_checkpoint(GOLDEN / "imagenet_2d.pth").model
    with torch.no_grad():
        outputs = model(torch.randn(1, 8, 3, 64, 64), output_modulators=True)
    assert all(torch.equal(modulator, torch.ones_like(modulator)) for modulator in outputs.temporal_modulators)


def test_a_shallower_network_takes_the_first_blocks_of_each_stage():
    converted = convert_checkpoint(GOLDEN / "imagenet_2d.pth", depths=[1, 1, 2, 1])
    state_dict, source = converted.model.state_dict(), published("imagenet_2d")["model"]
    assert converted.model.config.depths == [1, 1, 2, 1]
    for stage, block in ((0, 0), (2, 1)):
        ours = state_dict[f"videofocalnet.stages.{stage}.layers.{block}.mlp.fc1.weight"]
        assert torch.equal(ours, source[f"layers.{stage}.blocks.{block}.mlp.fc1.weight"])
    left = {tuple(map(int, re.match(r"layers\.(\d)\.blocks\.(\d)", name).groups())) for name in converted.left}
    assert left == {(0, 1), (1, 1), (2, 2), (2, 3), (2, 4), (2, 5), (3, 1)}


def test_class_names_give_an_image_network_a_new_head():
    converted = convert_checkpoint(GOLDEN / "imagenet_2d.pth", labels=LABEL_SETS["ucf50"])
    assert converted.model.config.num_labels == 50
    assert {"classifier.weight", "classifier.bias"} <= set(converted.new)
    assert {"head.weight", "head.bias"} <= set(converted.left)


@pytest.mark.parametrize(
    ("variant", "depths", "reason"),
    [
        ("imagenet_2d", [2, 2, 18, 2], "cannot give depths"),
        ("imagenet_2d", [2, 2], "cannot give depths"),
        ("default", [1, 1, 1, 1], "is a video network"),
    ],
)
def test_depths_that_do_not_fit_are_refused(variant, depths, reason):
    with pytest.raises(ValueError, match=reason):
        convert_checkpoint(GOLDEN / f"{variant}.pth", depths=depths)


@pytest.fixture
def focalnet():
    torch.manual_seed(0)
    config = FocalNetConfig(
        embed_dim=8, depths=[2, 2, 2, 1], image_size=64, focal_levels=[3, 2, 2, 2], use_conv_embed=True,
        use_layerscale=True, layerscale_value=0.5, use_post_layernorm=True, use_post_layernorm_in_modulation=True,
        normalize_modulator=True, id2label={0: "cat", 1: "dog", 2: "owl"},
    )  # fmt: skip
    return FocalNetForImageClassification(config).eval()


def test_transformers_own_focalnet_gives_a_still_clip_its_answer(tmp_path, focalnet):
    focalnet.save_pretrained(tmp_path / "focalnet")
    converted = convert_checkpoint(tmp_path / "focalnet")
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = focalnet(image).logits
        logits = converted.model(image[:, None].expand(-1, 8, -1, -1, -1)).logits
    assert (logits - expected).abs().max() <= 1e-5
    assert converted.model.config.id2label == {0: "cat", 1: "dog", 2: "owl"}
    assert converted.notes == []


def test_a_focalnet_without_a_head_needs_class_names(tmp_path, focalnet):
    FocalNetModel.save_pretrained(focalnet.focalnet, tmp_path / "focalnet")
    with pytest.raises(ValueError, match="has no classification head; give the class names"):
        convert_checkpoint(tmp_path / "focalnet")
    converted = convert_checkpoint(tmp_path / "focalnet", labels=LABEL_SETS["hmdb51"])
    assert {"classifier.weight", "classifier.bias"} <= set(converted.new)


@pytest.mark.parametrize("command", [convert_checkpoint, load_config])
def test_code_in_a_folder_is_not_run(tmp_path, command, monkeypatch):
    marker, folder = tmp_path / "ran", tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    auto_map = {"AutoConfig": "evil.Config"}
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto_map}))
    monkeypatch.setattr("builtins.input", lambda *question: "y")
    with pytest.raises(ValueError, match="evil"):
        command(str(folder))
    assert not marker.exists()


def test_a_folder_of_another_model_is_refused_by_its_type(tmp_path, tiny_folder):
    ResNetConfig().save_pretrained(tmp_path / "resnet")
    with pytest.raises(ValueError, match="resnet: .*'resnet'; of transformers' models, only 'focalnet'"):
        convert_checkpoint(tmp_path / "resnet")
    with pytest.raises(ValueError, match="'videofocalnet'; of transformers' models, only 'focalnet'"):
        convert_checkpoint(tiny_folder)


# strangers


def packed(source: Path, target: Path, compression: int) -> Path:
    with zipfile.ZipFile(source) as there, zipfile.ZipFile(target, "w", compression) as here:
        for member in there.infolist():
            here.writestr(member.filename, there.read(member))
    return target


def test_weights_that_would_unpack_to_more_than_the_file_are_refused(tmp_path):
    torch.save({"model": {"norm.weight": torch.zeros(1_000_000)}}, tmp_path / "plain.pth")
    path = packed(tmp_path / "plain.pth", tmp_path / "bomb.pth", zipfile.ZIP_DEFLATED)
    assert len(torch.load(path, weights_only=True)["model"]["norm.weight"]) == 1_000_000  # PyTorch unpacks it
    with pytest.raises(ValueError, match=r"bomb\.pth: cannot be read .*: it has \d{4,5} bytes, but 40\d{5} when"):
        load_published_checkpoint(path)


def test_a_weight_that_repeats_a_few_numbers_is_refused(tmp_path):
    state_dict = dict(published("default")["model"])
    state_dict["norm.weight"] = torch.zeros(1).expand(10**6, 10**6)
    torch.save({"model": state_dict}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"norm\.weight has the shape \(1000000, 1000000\), but contains too few"):
        convert_checkpoint(tmp_path / "weights.pth")


def with_weight(tmp_path: Path, name: str, weight: torch.Tensor) -> Path:
    state_dict = {key: value.contiguous() for key, value in published("default")["model"].items()}
    save_file({**state_dict, name: weight}, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize("dtype", [torch.int64, torch.float8_e4m3fn])
def test_weights_of_another_dtype_are_refused_by_name(tmp_path, dtype):
    path = with_weight(tmp_path, "norm.weight", torch.ones(64).to(dtype))
    with pytest.raises(ValueError, match=rf"weights\.safetensors: norm\.weight has the dtype {dtype}; expected one"):
        convert_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "weight", "reason"),
    [
        ("norm.weight", torch.zeros(65), r"norm\.weight \(65,\) instead of \(64,\)"),
        ("norm.weight", torch.zeros(0), r"norm\.weight has the shape \(0,\)"),
        ("head.weight", torch.zeros(11, 64, 1), r"head\.weight \(11, 64, 1\) instead of \(11, 64\)"),
        ("patch_embed.proj.weight", torch.zeros(8), r"patch_embed\.proj\.weight has shape \(8,\), not 4 dimensions"),
    ],
)
def test_weights_of_another_shape_are_refused_by_name(tmp_path, name, weight, reason):
    with pytest.raises(ValueError, match=rf"weights\.safetensors: .*{reason}"):
        convert_checkpoint(with_weight(tmp_path, name, weight))


def test_a_weight_that_asks_for_a_network_of_terabytes_is_refused(tmp_path):
    # a width of a million, in a file of a few megabytes
    path = with_weight(tmp_path, "patch_embed.proj.weight", torch.zeros(10**6, 3, 1, 1))
    with pytest.raises(ValueError, match=r"the weights do not match the network that they describe"):
        convert_checkpoint(path)
