"""
Write the card of each published checkpoint, from `results.json`, the one source of figures.

    python hub_cards/render.py OUT [NAME ...]

writes `OUT/NAME/README.md` for the named checkpoints, or all. Where `dvflnet convert FILE OUT/NAME --labels SET` has
written the model before, its card is replaced, and the folder is ready for `dvflnet push`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_dvflnet import VideoFocalNetConfig
from hf_dvflnet.data.label_sets import LABEL_SETS
from hf_dvflnet.hub.model_folder import describe_config


HERE = Path(__file__).parent
CITATIONS = {
    "DVFL-Net": """@article{dvflnet2025,
  title = {{DVFL-Net}: A Lightweight Distilled Video Focal Modulation Network for Spatio-Temporal Action Recognition},
  author = {Ullah, Hayat and Shafique, Muhammad Ali and Khan, Abbas and Munir, Arslan},
  journal = {arXiv preprint arXiv:2507.12426},
  year = {2025},
}""",
    "Video-FocalNets": """@inproceedings{wasim2023videofocalnets,
  title = {{Video-FocalNets}: Spatio-Temporal Focal Modulation for Video Action Recognition},
  author = {Wasim, Syed Talal and Khattak, Muhammad Uzair and Naseer, Muzammal and Khan, Salman and Shah, Mubarak and
            Khan, Fahad Shahbaz},
  booktitle = {ICCV},
  year = {2023},
}""",
}


def render(name: str, results: dict[str, Any]) -> ModelCard:
    """
    The card of the checkpoint `name` of `results`.

    Raises:
        ValueError: If `results` has no such checkpoint.
    """
    if name not in results["checkpoints"]:
        raise ValueError(f"results.json has no {name!r}; it has {', '.join(results['checkpoints'])}")
    checkpoint = results["checkpoints"][name]
    source, dataset = results["sources"][checkpoint["source"]], results["datasets"][checkpoint["dataset"]]
    labels = LABEL_SETS[dataset["labels"]]
    config = VideoFocalNetConfig.from_preset(checkpoint["preset"], num_labels=len(labels.names))
    about = describe_config(config)

    published = {
        **checkpoint["published"],
        "source": f"[{checkpoint['source']}]({source['url']})",
        "kind": "published",
    }
    measured = [
        {**figure, "source": f"`{figure['command']}` at {figure['commit'][:12]}", "kind": "measured"}
        for figure in checkpoint["measured"]
    ]
    figures, rows = [], []
    for figure in [published, *measured]:
        tops = [(metric, figure[metric]) for metric in ("top1", "top5") if figure[metric] is not None]
        shown = dict(tops)
        rows.append(
            f"| {figure['kind']} | {figure['split']} | {clips_of(figure)} | {figure['views']} | "
            f"{shown.get('top1', '')} | {shown.get('top5', '')} | {figure['source']} |"
        )
        figures += [
            EvalResult(
                task_type="video-classification",
                dataset_type=checkpoint["dataset"],
                dataset_name=dataset["name"],
                dataset_split=figure["split"],
                metric_type="accuracy",
                metric_name=f"{metric.replace('top', 'top-')} accuracy, {figure['views']}, {figure['kind']}",
                metric_value=value,
                source_name=checkpoint["source"] if figure is published else None,
                source_url=source["url"] if figure is published else None,
            )
            for metric, value in tops
        ]

    card_data = ModelCardData(
        model_name=name,
        license="mit" if source["licence"] == "MIT" else "other",
        license_name=None if source["licence"] == "MIT" else "see-the-card",
        library_name="transformers",
        pipeline_tag="video-classification",
        tags=["dvflnet", "video-focalnet", "action-recognition"],
        metrics=["accuracy"],
        eval_results=figures,
    )
    return ModelCard.from_template(
        card_data,
        template_path=str(HERE / "published_checkpoint.md"),
        title=name,
        network="DVFL-Net's student" if checkpoint["preset"] == "nano" else "Video-FocalNet",
        preset=checkpoint["preset"],
        depths=config.depths,
        embed_dim=config.embed_dim,
        parameters=f"{about['parameters'] / 1e6:.2f}",
        multiply_adds=f"{about['multiply_adds'] / 1e9:.1f}",
        dataset=dataset["name"],
        training=checkpoint["training"],
        source=checkpoint["source"],
        source_url=source["url"],
        licence=source["licence"],
        figures="\n".join(rows),
        split=results["splits"][published["split"]],
        not_official=checkpoint["source"] == "DVFL-Net",
        preprocessing="8 frames by the published evaluation rule (interval 4), short side 256, bilinear without "
        "antialiasing, centre crop 224, ImageNet mean and standard deviation. The published figure is of 12 views, 4 "
        "clips drawn at random x 3 crops, softmax averaged; `num_clips=4, num_crops=3` takes repeatable ones.",
        num_labels=len(labels.names),
        label_source=labels.source,
        citation=CITATIONS[checkpoint["source"]],
    )


def clips_of(figure: dict[str, Any]) -> str:
    return f"{figure['clips']} of {figure['listed']}" if "clips" in figure else ""


def table(results: dict[str, Any]) -> str:
    """Top-1 of every checkpoint, published and, behind a slash, measured: a row per data set, a column per network."""
    networks = list(
        dict.fromkeys(name.removesuffix(f"-{row['dataset']}") for name, row in results["checkpoints"].items())
    )
    lines = [f"| | split | {' | '.join(networks)} |", "|---" * (len(networks) + 2) + "|"]
    for key, dataset in results["datasets"].items():
        found = {network: results["checkpoints"].get(f"{network}-{key}") for network in networks}
        split = next(row for row in found.values() if row)["published"]["split"].split(" (")[0]
        cells = [
            " / ".join(str(figure["top1"]) for figure in (row["published"], *row["measured"])) if row else ""
            for row in found.values()
        ]
        lines.append(f"| {dataset['name']} | {split} | {' | '.join(cells)} |")
    return "\n".join(lines)


NETWORKS = {
    "teacher": "teacher (EfficientNet-Lite0)",
    "alone": "student",
    "distilled": "student, distilled",
    "features": "student, distilled with features",
    "pretrained": "student, pretrained on motions",
}


def real_video_table(results: dict[str, Any]) -> str:
    """The runs on JHMDB, a row per kind of network, as the README shows them."""
    measured = results["real_video"]
    lines = ["| | parameters | input | top-1 | top-5 | seeds | gain (95 %) |", "|---|---|---|---|---|---|---|"]
    for kind, row in measured["networks"].items():
        gain = "{:+.1f} ({:+.1f} to {:+.1f})".format(*measured["gains"][kind]) if kind in measured["gains"] else ""
        top1 = f"{row['top1']} +- {row['spread']}"
        cells = (f"{row['parameters'] / 1e6:.1f} M", row["input"], top1, row["top5"], len(row["seeds"]), gain)
        lines.append(f"| {NETWORKS[kind]} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    results = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    for name in arguments.names or results["checkpoints"]:
        card = render(name, results)
        folder = arguments.out / name
        folder.mkdir(parents=True, exist_ok=True)
        card.save(folder / "README.md")
        print(folder / "README.md")


if __name__ == "__main__":
    main()
