"""The code that a saved model carries: which files, and that each folder runs its own."""

import json
import shutil
from pathlib import Path

import pytest
from commands import run
from local_hub import LocalHub

from hf_dvflnet import (
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetImageProcessor,
    VideoFocalNetVideoProcessor,
)


CARRIED = (
    *("clip_sampling", "configuration_videofocalnet", "image_processing_videofocalnet"),
    *("modeling_videofocalnet", "video_decoding", "video_processing_videofocalnet"),
)
# opens each source with every Auto class, and prints which of the modules that its classes lie in and use are changed
LOAD = """
import json, sys
sys.modules["hf_dvflnet"] = None  # importing it raises
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor
found = []
for source in {sources}:
    autos = (AutoConfig, AutoModel, AutoModelForVideoClassification, AutoImageProcessor, AutoVideoProcessor)
    classes = [type(auto.from_pretrained(source, trust_remote_code=True)) for auto in autos]
    packages = {{one.__module__.rpartition(".")[0] for one in classes}}
    used = [module for name, module in sys.modules.items() if name.rpartition(".")[0] in packages]
    found.append(sorted({{module.__name__.rpartition(".")[2] for module in used if hasattr(module, "CHANGED")}}))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A model with both processors."""
    folder = tmp_path_factory.mktemp("saved") / "student"
    config = VideoFocalNetConfig(embed_dim=8, image_size=32, num_frames=4, num_labels=6)
    VideoFocalNetForVideoClassification(config).save_pretrained(folder)
    VideoFocalNetVideoProcessor(num_frames=4).save_pretrained(folder)
    VideoFocalNetImageProcessor().save_pretrained(folder)
    return folder


def change(folder: Path, name: str):
    with (folder / f"{name}.py").open("a") as file:
        file.write("\n\nCHANGED = True\n")


def load(sources: list[str], folder: Path, **environment: str) -> list[list[str]]:
    code = LOAD.format(sources=sources)
    return json.loads(run(code, cwd=folder, HF_MODULES_CACHE=str(folder / "modules"), **environment).splitlines()[-1])


@pytest.fixture(scope="module")
def loaded(saved, tmp_path_factory) -> dict[str, list[str]]:
    """What one process loads from folders of one base name: copies of a model with one change each, then the model."""
    folder = tmp_path_factory.mktemp("folders")
    for name in CARRIED:
        change(shutil.copytree(saved, folder / name / "student"), name)
    names = [*CARRIED, ""]
    found = load([str(folder / name / "student" if name else saved) for name in names], folder)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("changed", ["", *CARRIED])
def test_a_folder_runs_its_own_code(loaded, changed):
    assert loaded[changed] == ([changed] if changed else [])


def test_a_repository_on_the_hub_runs_its_own_code(saved, tmp_path):
    with LocalHub() as hub:
        for owner in ("one", "other"):
            folder = shutil.copytree(saved, tmp_path / owner)
            if owner == "other":
                change(folder, "video_decoding")
            hub.repositories[f"{owner}/student"] = {path.name: path.read_bytes() for path in folder.iterdir()}
        environment = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        found = load(["one/student", "other/student"], tmp_path, **environment)
    assert found == [[], ["video_decoding"]]


@pytest.mark.parametrize("part", ["config", "model", "image processor", "video processor"])
def test_each_part_is_saved_with_all_files_of_code(saved, tmp_path, part):
    {
        "config": VideoFocalNetConfig,
        "model": VideoFocalNetForVideoClassification,
        "image processor": VideoFocalNetImageProcessor,
        "video processor": VideoFocalNetVideoProcessor,
    }[part].from_pretrained(saved).save_pretrained(tmp_path)
    assert sorted(path.stem for path in tmp_path.glob("*.py")) == list(CARRIED)
