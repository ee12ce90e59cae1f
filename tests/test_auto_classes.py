import json

from commands import run
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor

import hf_dvflnet


def test_a_saved_folder_opens_through_every_auto_class(tiny_folder):
    found = {
        AutoConfig: hf_dvflnet.VideoFocalNetConfig,
        AutoModel: hf_dvflnet.VideoFocalNetModel,
        AutoModelForVideoClassification: hf_dvflnet.VideoFocalNetForVideoClassification,
        AutoImageProcessor: hf_dvflnet.VideoFocalNetImageProcessor,
        AutoVideoProcessor: hf_dvflnet.VideoFocalNetVideoProcessor,
    }
    for auto_class, expected in found.items():
        assert type(auto_class.from_pretrained(tiny_folder)) is expected


def test_a_relative_folder_opens_in_a_fresh_process_after_the_import(tiny_folder):
    code = """
        import hf_dvflnet
        from transformers import AutoModel
        print(type(AutoModel.from_pretrained("tiny")).__module__)
    """
    assert run(code, cwd=tiny_folder.parent).split()[-1] == "hf_dvflnet.modeling_videofocalnet"


def test_a_folder_opens_as_remote_code_where_the_package_cannot_be_imported(tiny_folder, video_files, tmp_path):
    code = f"""
        import sys
        sys.modules["hf_dvflnet"] = None  # importing it raises
        import json, torch
        from transformers import (AutoConfig, AutoImageProcessor, AutoModel, AutoModelForVideoClassification,
                                  AutoVideoProcessor, pipeline)
        folder, video = {str(tiny_folder)!r}, {str(video_files["vp9.webm"])!r}
        classes = [auto.from_pretrained(folder, trust_remote_code=True) for auto in
                   (AutoConfig, AutoModel, AutoModelForVideoClassification, AutoImageProcessor, AutoVideoProcessor)]
        assert all(type(one).__module__.startswith("transformers_modules.") for one in classes)
        answers = pipeline("video-classification", model=folder, trust_remote_code=True, device="cpu")(video)
        # and what is saved from there opens again
        again = {str(tmp_path / "again")!r}
        classes[2].save_pretrained(again)
        classes[4].save_pretrained(again)
        assert pipeline("video-classification", model=again, trust_remote_code=True, device="cpu")(video) == answers
        print(json.dumps(answers))
    """
    environment = {"HF_MODULES_CACHE": str(tmp_path / "modules")}
    answers = json.loads(run(code, cwd=tmp_path, **environment).splitlines()[-1])
    from transformers import pipeline

    local = pipeline("video-classification", model=str(tiny_folder), device="cpu")(str(video_files["vp9.webm"]))
    assert answers == local
    assert (tmp_path / "again" / "modeling_videofocalnet.py").is_file()
