"""Model folders of strangers: they are read whole, or refused by name."""

import json
import os
import pickle

import pytest
import torch
from commands import run
from hostile import Command
from local_hub import LocalHub
from safetensors.torch import load_file, save_file
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from hf_dvflnet import VideoFocalNetForVideoClassification, VideoFocalNetModel
from hf_dvflnet.hub.loading import load_config, load_model, load_processor, load_teacher
from hf_dvflnet.hub.model_folder import describe_config


def change(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def shard(folder, weights, name="model-00001-of-00001.safetensors"):
    """Weights in several files, of which there is one."""
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


# weights


@pytest.mark.parametrize(
    ("sharded", "dtype", "name"), [(False, torch.int64, "I64"), (True, torch.float8_e4m3fn, "F8_E4M3")]
)
def test_weights_of_another_dtype_are_refused_in_one_file_and_in_several(tiny_folder, sharded, dtype, name):
    weights = load_file(tiny_folder / "model.safetensors")
    weights["classifier.bias"] = weights["classifier.bias"].to(dtype)
    if sharded:
        shard(tiny_folder, weights)
    else:
        save_file(weights, tiny_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"tiny: .*classifier.bias has the dtype {name}; F64, F32, F16 or BF16"):
        load_model(str(tiny_folder))


@pytest.mark.parametrize("load", [load_model, load_teacher])
@pytest.mark.parametrize("target", ["../outside.safetensors", "weights.bin", 5])
def test_an_index_that_names_anything_but_files_of_its_folder_is_refused(tiny_folder, load, target):
    weights = load_file(tiny_folder / "model.safetensors")
    shard(tiny_folder, weights)
    save_file(weights, tiny_folder.parent / "outside.safetensors", metadata={"format": "pt"})
    torch.save(weights, tiny_folder / "weights.bin")
    change(tiny_folder / "model.safetensors.index.json", weight_map=dict.fromkeys(weights, target))
    with pytest.raises(
        ValueError, match=r"tiny: .*index\.json must name \.safetensors files of this folder, but names"
    ):
        load(str(tiny_folder))


@pytest.mark.parametrize("load", [load_model, load_teacher])
@pytest.mark.parametrize("content", ["a state dict", "a command", b"junk", b""])
def test_a_pickle_of_weights_is_not_opened(tiny_folder, tmp_path, load, content):
    weights = load_file(tiny_folder / "model.safetensors")
    (tiny_folder / "model.safetensors").unlink()
    path = tiny_folder / "pytorch_model.bin"
    if content == "a state dict":
        torch.save(weights, path)
    else:
        path.write_bytes(pickle.dumps(Command(tmp_path / "ran")) if content == "a command" else content)
    with pytest.raises(ValueError, match=r"tiny: .*there is no model\.safetensors, and pickles .* are not opened"):
        load(str(tiny_folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("load", [load_model, load_teacher])
def test_an_adapter_is_no_model_and_no_part_of_one(tiny_folder, load):
    (tiny_folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    with pytest.raises(ValueError, match=r"tiny: contains an adapter \(adapter_config\.json\).* merge it"):
        load(str(tiny_folder))


def test_an_adapter_beside_the_weights_on_the_hub_does_not_take_their_place(tiny_folder, tmp_path):
    (tiny_folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    with LocalHub() as hub:
        hub.repositories["me/tiny"] = {path.name: path.read_bytes() for path in tiny_folder.iterdir()}
        environment = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        script = """
            from hf_dvflnet import load_model
            try:
                load_model("me/tiny")
            except ValueError as error:
                print(error)
        """
        printed = run(script, cwd=tmp_path, **environment, HF_HUB_DISABLE_XET="1")
    assert "me/tiny: the weights cannot be read: there is an adapter (adapter_config.json) beside them" in printed


def test_a_folder_names_what_its_weights_lack_and_have_too_many(tiny_folder, tiny_config):
    VideoFocalNetModel(tiny_config).save_pretrained(tiny_folder)
    for load in (load_model, load_teacher):
        with pytest.raises(ValueError, match=r"tiny: .*missing \['classifier\.bias', 'classifier\.weight'\]"):
            load(str(tiny_folder))


# teachers


@pytest.fixture
def videomae(tmp_path):
    """A small classifier of another architecture."""
    config = VideoMAEConfig(
        **{"image_size": 32, "patch_size": 16, "num_frames": 4, "hidden_size": 16, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "intermediate_size": 16, "num_labels": 3},
    )
    VideoMAEForVideoClassification(config).save_pretrained(tmp_path / "videomae")
    return tmp_path / "videomae"


def test_a_teacher_without_its_head_or_of_another_shape_is_refused_before_anything_is_cached(
    dvflnet, videomae, video_tree, tmp_path
):
    weights = load_file(videomae / "model.safetensors")
    wide = {**weights, "classifier.weight": torch.zeros(3, 99)}
    headless = {name: weight for name, weight in weights.items() if not name.startswith("classifier.")}
    for kept, reason in (
        (headless, "missing ['classifier.bias', 'classifier.weight']"),
        (wide, "classifier.weight (3, 99) instead of (3, 16)"),
    ):
        save_file(kept, videomae / "model.safetensors", metadata={"format": "pt"})
        options = ("--dataset", "folder", "--data-dir", video_tree, "--views", 1, "--num-workers", 0)
        code, _, err = dvflnet("cache-teacher", videomae, tmp_path / "cache", *options)
        assert code == 1 and err.startswith(f"dvflnet: {videomae}: ") and reason in err
        assert not (tmp_path / "cache").exists()


# configs


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
def test_a_kernel_that_a_config_names_is_not_fetched(tiny_folder, key):
    change(tiny_folder / "config.json", **{key: "kernels-community/flash-attn2"})
    assert load_model(str(tiny_folder)).config.num_labels == 6
    assert describe_config(load_config(str(tiny_folder)))["num_labels"] == 6


@pytest.mark.parametrize(
    "fields",
    [
        *({"id2label": names} for names in ({"1": "a", "7": "b"}, ["a", "b"], {"0": None, "1": 5})),
        *({"mlp_ratio": ratio} for ratio in (float("nan"), -1.0)),
        {"dtype": "nosuch"},
        {"layer_norm_eps": float("inf")},
        {"model_type": None},
        {"embed_dim": 10**30},
        {"image_size": 10**9},
    ],
    ids=str,
)
def test_a_config_that_describes_no_network_is_refused_in_a_line(dvflnet, tiny_folder, fields):
    change(tiny_folder / "config.json", **fields)
    code, out, err = dvflnet("info", tiny_folder)
    assert (code, out, len(err.splitlines())) == (1, "", 1) and err.startswith(f"dvflnet: {tiny_folder}: ")


@pytest.mark.parametrize("content", ["[1, 2]", '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "", '"text"'])
def test_a_config_that_is_none_is_refused_by_name(tiny_folder, content):
    (tiny_folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match="tiny: is neither a model folder"):
        load_model(str(tiny_folder))


# processors


@pytest.mark.parametrize(
    "fields",
    [
        *({"size": size} for size in ({"shortest_edge": 10**6}, "abc")),
        {"crop_size": {"height": 0, "width": 0}},
        *({"image_mean": mean} for mean in ("x", [float("nan")] * 3)),
        *({"num_frames": number} for number in (0, 10**9, 2.5)),
        {"image_std": [0, 0, 0]},
        {"resample": 99},
        {"rescale_factor": "x"},
        {"frame_interval": 10**18},
    ],
    ids=str,
)
def test_a_processor_that_prepares_no_clip_is_refused_in_a_line(dvflnet, tiny_folder, video_files, fields):
    change(tiny_folder / "video_preprocessor_config.json", **fields)
    code, out, err = dvflnet("predict", tiny_folder, video_files["vp9.webm"])
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith(f"dvflnet: {tiny_folder}: the video processor cannot be used: ")


def test_a_processor_that_is_none_is_refused_by_name(tiny_folder):
    path = tiny_folder / "video_preprocessor_config.json"
    for content in ("[]", "{", ""):
        path.write_text(content)
        with pytest.raises(ValueError, match="tiny: the video processor cannot be used: "):
            load_processor(str(tiny_folder))


# scores


def test_scores_that_are_not_finite_are_not_printed(dvflnet, tiny_folder, video_files):
    weights = load_file(tiny_folder / "model.safetensors")
    weights["classifier.weight"][1] = torch.nan
    save_file(weights, tiny_folder / "model.safetensors", metadata={"format": "pt"})
    code, out, err = dvflnet("predict", tiny_folder, video_files["vp9.webm"])
    assert code == 1 and "nan" not in out
    assert f"{tiny_folder}: its scores are not finite; its weights may be damaged" in err


# writing


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_weights_are_as_readable_as_the_umask_says(tiny_config, tmp_path, umask):
    before = os.umask(umask)
    try:
        VideoFocalNetForVideoClassification(tiny_config).save_pretrained(tmp_path)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o666 & ~umask}
