import json
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hf_dvflnet.configuration_videofocalnet import PRESETS
from hf_dvflnet.data.label_sets import LABEL_SETS


HUB_CARDS = Path(__file__).parents[2] / "hub_cards"
RESULTS = json.loads((HUB_CARDS / "results.json").read_text())
sys.path.insert(0, str(HUB_CARDS))

import render  # noqa: E402


@pytest.mark.parametrize("name", {row["preset"]: name for name, row in RESULTS["checkpoints"].items()}.values())
def test_each_card_carries_its_published_figures_with_split_and_source(name, tmp_path):
    card = render.render(name, RESULTS)
    card.save(tmp_path / "README.md")
    found = ModelCard.load(tmp_path / "README.md").data.eval_results
    checkpoint = RESULTS["checkpoints"][name]
    figures = [value for key, value in checkpoint["published"].items() if key in ("top1", "top5") and value]
    assert [result.metric_value for result in found] == figures
    assert {result.dataset_split for result in found} == {checkpoint["published"]["split"]}
    assert {result.source_url for result in found} == {RESULTS["sources"][checkpoint["source"]]["url"]}
    assert "{{ " not in card.content  # every field is filled


def test_every_checkpoint_names_a_preset_a_label_set_and_a_known_split():
    assert len(RESULTS["checkpoints"]) == 22
    for checkpoint in RESULTS["checkpoints"].values():
        assert checkpoint["preset"] in PRESETS
        assert checkpoint["published"]["split"] in RESULTS["splits"]
        assert RESULTS["datasets"][checkpoint["dataset"]]["labels"] in LABEL_SETS


def test_a_measured_figure_is_shown_with_its_command_and_commit():
    results = json.loads(json.dumps(RESULTS))
    results["checkpoints"]["dvfl-net-nano-ucf50"]["measured"] = [
        {
            "split": "groups_20_5",
            "views": "1",
            "top1": 12.3,
            "top5": None,
            "commit": "a" * 40,
            "command": "dvflnet x",
            "clips": 9,
            "listed": 10,
        }
    ]
    card = render.render("dvfl-net-nano-ucf50", results)
    assert "| measured | groups_20_5 | 9 of 10 | 1 | 12.3 |  | `dvflnet x` at aaaaaaaaaaaa |" in card.text
    assert 12.3 in [result.metric_value for result in card.data.eval_results]


def test_an_unknown_checkpoint_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no 'resnet'; it has video-focalnet-tiny-kinetics400, "):
        render.render("resnet", RESULTS)
