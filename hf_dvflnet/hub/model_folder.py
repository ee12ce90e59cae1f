"""Writes model folders, completely or not at all, and pushes them to the Hub."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.utils import httpx

from ..image_processing_videofocalnet import VideoFocalNetImageProcessor
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .loading import load_config, refuse_adapter
from .model_card import model_card


# a small trained model, which comes with the package; its card says what it is good for
MOTIONS_STUDENT = Path(__file__).with_name("motions-student")

# The files of a model, without others in the same folder, such as a checkpoint's optimizer or a pickle.
_PARTS = re.compile(
    r"(config|(video_)?preprocessor_config|processor_config|model\.safetensors\.index)\.json"
    r"|model(-\d+-of-\d+)?\.safetensors|README\.md|\w+\.py|\.gitattributes"
    r"|export(_report)?\.json|model\.(onnx(\.data)?|pte)|openvino_model\.(xml|bin)"
)


def _belongs_to_a_model(name: str) -> bool:
    return _PARTS.fullmatch(name) is not None


@contextmanager
def whole_or_nothing(out: str | os.PathLike, overwrite: bool = False) -> Iterator[Path]:
    """
    A temporary path to write a folder or file to. It is moved to `out` if the block ends without an exception.

    Raises:
        FileExistsError, ValueError: As in [`refuse_existing`].
    """
    out = Path(out)
    refuse_existing(out, overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        if out.is_dir() and not out.is_symlink():
            previous = out.with_name(f".{out.name}.{os.getpid()}.previous")
            out.rename(previous)
            try:
                unfinished.rename(out)
            except OSError:
                previous.rename(out)
                raise
            shutil.rmtree(previous)
        else:
            os.replace(unfinished, out)
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        unfinished.unlink(missing_ok=True)


def refuse_existing(out: Path, overwrite: bool):
    """
    Raise `FileExistsError` if `out` exists and `overwrite` is false, and `ValueError` if it is a folder that contains
    anything other than the files of a model: such a folder is never deleted.
    """
    if not (out.exists() or out.is_symlink()):
        return
    if not overwrite:
        raise FileExistsError(f"{out}: exists already; choose another name, or overwrite it (--overwrite)")
    if not out.is_dir():
        return
    foreign = [entry.name for entry in out.iterdir() if entry.is_dir() or not _belongs_to_a_model(entry.name)]
    config = out / "config.json"
    if any(out.iterdir()) and (foreign or not config.is_file() or '"videofocalnet"' not in config.read_text("utf-8")):
        holds = f"contains {sorted(foreign)[0]}" if foreign else "has no config.json of a Video-FocalNet"
        raise ValueError(f"{out}: {holds}, so it is not only a model folder and is not overwritten")


def save_model_folder(
    out: str | os.PathLike,
    model: VideoFocalNetForVideoClassification,
    *,
    title: str,
    introduction: str,
    frame_interval: int = 4,
    overwrite: bool = False,
) -> Path:
    """
    Write a model folder: config, weights, both processors, the code for `trust_remote_code=True`, and a model card.

    Args:
        out: The folder to write. It must not exist yet, unless `overwrite` is true.
        model: The model.
        title: Heading of the model card.
        introduction: Text below the heading, in Markdown. Says where the weights come from.
        frame_interval: Interval f of the sampling rules, in frames.
        overwrite: Whether to replace an existing model folder.

    Raises:
        FileExistsError, ValueError: As in [`whole_or_nothing`].
    """
    side = model.config.image_size
    shown: dict[str, Any] = {
        "size": {"shortest_edge": side * 256 // 224},  # the published ratio of short side to crop
        "crop_size": {"height": side, "width": side},
    }
    with whole_or_nothing(out, overwrite) as folder:
        model.save_pretrained(folder)
        VideoFocalNetVideoProcessor(
            num_frames=model.config.num_frames, frame_interval=frame_interval, **shown
        ).save_pretrained(folder)
        VideoFocalNetImageProcessor(**shown).save_pretrained(folder)
        model_card(model.config, title, introduction, Path(out).name, frame_interval).save(folder / "README.md")
    return Path(out)


def _own_code() -> list[Path]:
    """The modules that `save_pretrained` writes into a model folder: those at the top level of this package."""
    return [file for file in sorted(Path(__file__).parents[1].glob("*.py")) if file.name != "__init__.py"]


def save_motions_student(out: str | os.PathLike, overwrite: bool = False) -> Path:
    """
    Write the trained model that comes with the package, with its card and the code for `trust_remote_code=True`.

    Args:
        out: The folder to write. It must not exist yet, unless `overwrite` is true.
        overwrite: Whether to replace an existing model folder.

    Raises:
        FileExistsError, ValueError: As in [`whole_or_nothing`].
    """
    with whole_or_nothing(out, overwrite) as folder:
        folder.mkdir()
        for file in (*_own_code(), *MOTIONS_STUDENT.iterdir()):
            shutil.copy(file, folder)
    return Path(out)


def push_model_folder(folder: str | os.PathLike, repo_id: str, *, private: bool = False) -> str:
    """
    Upload a model folder with its card and its code, so that it can be loaded with and without this package.

    A folder without any code, such as one in `examples/models`, gets the code of this package.

    Returns the URL of the commit.

    Raises:
        FileNotFoundError: If the folder lacks one of its parts: config, weights, video processor, card, or code.
        ValueError: If the folder contains an adapter of PEFT, which has its own `push_to_hub`, or an invalid config.
        ConnectionError: If the Hub cannot be reached or refuses the upload.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    refuse_adapter(str(folder))
    for name in ("config.json", "video_preprocessor_config.json", "README.md"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder}: has no {name}, which `dvflnet create` and `convert` write")
    if not list(folder.glob("*.safetensors")):
        raise FileNotFoundError(f"{folder}: has no weights (*.safetensors)")
    auto_map = getattr(load_config(str(folder)), "auto_map", None) or {}
    without_code = bool(auto_map) and not list(folder.glob("*.py"))
    for auto_class in () if without_code else ("AutoConfig", "AutoModel", "AutoModelForVideoClassification"):
        module = auto_map.get(auto_class, "").split(".")[0]
        if not module or not (folder / f"{module}.py").is_file():
            raise FileNotFoundError(
                f"{folder}: contains no code for {auto_class}; load the model with this package and save it again"
            )
    for file in folder.glob("*.py"):
        for module in re.findall(r"^from \.(\w+) import", file.read_text("utf-8"), flags=re.MULTILINE):
            if not (folder / f"{module}.py").is_file():
                raise FileNotFoundError(f"{folder}: {file.name} imports {module}, but there is no {module}.py")
    parts = [entry.name for entry in folder.iterdir() if entry.is_file() and _belongs_to_a_model(entry.name)]
    api = HfApi()
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as code:
            if without_code:
                # what `save_pretrained` would have written beside the weights
                for file in (*_own_code(), *(folder / name for name in parts)):
                    shutil.copy(file, code)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=code if without_code else folder,
                allow_patterns=[*parts, "*.py"] if without_code else parts,
                ignore_patterns=["*/*"],
                commit_message="Upload the model with its code",
            )
    except httpx.HTTPError as error:
        raise ConnectionError(f"{repo_id}: cannot be pushed: {error}") from error
    return str(commit.commit_url)


__all__ = [
    "MOTIONS_STUDENT",
    "push_model_folder",
    "refuse_existing",
    "save_model_folder",
    "save_motions_student",
    "whole_or_nothing",
]
