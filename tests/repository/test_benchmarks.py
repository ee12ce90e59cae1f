import sys
from pathlib import Path

import torch

from hf_dvflnet import VideoFocalNetForVideoClassification
from hf_dvflnet.hub.published_checkpoint import publish_checkpoint


sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import transcription


def test_the_transcription_that_speed_is_compared_with_computes_the_same(tiny_config):
    torch.manual_seed(0)
    model = VideoFocalNetForVideoClassification(tiny_config).eval()
    copy = transcription.Transcription(tiny_config).eval()
    copy.load_state_dict(publish_checkpoint(model, 4)["model"])
    clip = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(copy(clip), model(clip).logits, rtol=1e-4, atol=1e-5)
