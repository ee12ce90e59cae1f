"""
The demo page as a Space. Environment variables: DVFLNET_MODELS, the Hub ids or folders of the models, with spaces
between them; DVFLNET_EXAMPLES, a folder of videos, by default `examples` beside this file if there is one.
"""

import os
import sys
from pathlib import Path

from hf_dvflnet.inference.demo_page import serve_demo


models = os.environ.get("DVFLNET_MODELS", "").split()
if not models:
    sys.exit("Set DVFLNET_MODELS to one or more models, such as OWNER/NAME, in the Space's settings.")
beside = Path(__file__).parent / "examples"
serve_demo(
    models,
    examples=os.environ.get("DVFLNET_EXAMPLES") or (beside if beside.is_dir() else None),
    # a Space sets these
    host=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
    port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
)
