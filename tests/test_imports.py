"""What importing the package and running its commands loads: nothing that only training or data sets need."""

import json

from commands import run

import hf_dvflnet


# transformers imports accelerate and scipy by itself
HEAVY = [
    "datasets",
    "evaluate",
    "gradio",
    "matplotlib",
    "pandas",
    "peft",
    "pyarrow",
    "sklearn",
    "transformers.trainer",
]
LOADED = f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"


def test_predicting_a_clip_loads_nothing_that_only_training_needs(tmp_path, tiny_folder, video_files):
    code = f"""
        import json, sys
        import dvflnet_cli
        sys.argv = ["dvflnet", "predict", {str(tiny_folder)!r}, {str(video_files["vp9.webm"])!r}]
        try:
            dvflnet_cli.main()
        except SystemExit as exit:
            assert not exit.code
        {LOADED}
    """
    assert json.loads(run(code, cwd=tmp_path).splitlines()[-1]) == []


def test_loading_a_config_as_remote_code_loads_neither_network_nor_torchvision(tmp_path, tiny_folder):
    code = f"""
        import sys
        sys.modules["hf_dvflnet"] = None  # importing it raises
        from transformers import AutoConfig
        AutoConfig.from_pretrained({str(tiny_folder)!r}, trust_remote_code=True)
        print("torchvision" in sys.modules, any("modeling_videofocalnet" in name for name in sys.modules))
    """
    assert run(code, cwd=tmp_path, HF_MODULES_CACHE=str(tmp_path / "modules")).split() == ["False", "False"]


def test_all_public_names_are_listed_before_they_are_imported_and_can_be_imported_at_once(tmp_path):
    code = """
        import json, hf_dvflnet
        print(json.dumps(dir(hf_dvflnet)))
        del hf_dvflnet
        from hf_dvflnet import *
        print(json.dumps(sorted(name for name in dir() if not name.startswith("__"))))
    """
    listed, imported = map(json.loads, run(code, cwd=tmp_path).splitlines())
    assert set(listed) >= set(hf_dvflnet.__all__)
    assert imported == sorted([*(name for name in hf_dvflnet.__all__ if not name.startswith("__")), "json"])
