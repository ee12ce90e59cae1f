"""
Checks videos before any training: files that cannot be read or show nothing, duplicates and leaks, labels that other
clips contradict. `check_videos` looks at eight frames of each clip, through an image network.
"""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torchvision.transforms.v2 import functional as tvF
from tqdm.auto import tqdm

from ..data.jobs import map_jobs
from ..data.limits import VideoLimits
from ..data.own_videos import read_own_videos
from ..hub.image_networks import EFFICIENTNET_LITE0, load_image_network
from ..plots import page
from ..video_decoding import VideoInfo, read_video


FRAMES, SIDE = 8, 160  # looked at: frames of a clip, evenly spread, and pixels of their centre
# Of 8-bit values: the mean of a black picture is below, and so is the mean change between frames of a frozen one
BLACK, FROZEN = 12.0, 0.3
# The cosine of two clips' features from which they are shown as alike, and from which they are surely copies
# (benchmarks/data_check.py)
ALIKE, COPY = 0.7, 0.9
LIKELY, TIMES = 0.5, 10  # a label is doubted if another one has this probability, and that many times its own


class Finding(NamedTuple):
    """What was found about a clip: its kind, the clip, its label, and what is wrong, in words."""

    kind: str
    clip: str
    label: str
    reason: str
    other: str | None = None  # the clip that it is a copy of


KINDS = {
    "unreadable": "files that cannot be read",
    "damaged": "files that are cut short, or have another shape than they are shown in",
    "black": "clips that are black",
    "frozen": "clips in which nothing moves, not even noise",
    "leak": "copies in two splits",
    "copy": "copies within a split",
    "alike": "clips of two recordings that look alike; cropped or mirrored copies are among them",
    "label": "labels that other recordings contradict",
}


def check_videos(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    network: str = EFFICIENTNET_LITE0,
    num_workers: int | None = None,
) -> dict[str, Any]:
    """
    Check the clips of a folder or list, and write `report.html` and `findings.csv`.

    Each clip is read once: eight frames, and an image network's features of them. They are kept in `output`, so that
    a check continues where it was stopped. Two clips are copies of each other if they have the same bytes, or if
    they are of two recordings and their features are nearly the same. A label is doubted if a classifier that was
    trained on the clips of other recordings is sure of another one.

    Args:
        source: See [`read_own_videos`].
        output: The folder of the report.
        network: The image network, as for [`load_image_network`].
        num_workers: Number of sandboxes that decode, by default one per CPU; 0 uses this process.

    Returns:
        `clips`, `classes`, `recordings`, `by` (what recordings were told by), `findings` (a list of [`Finding`]), and
        `report`, the path of the page.

    Raises:
        FileNotFoundError, ValueError: See [`read_own_videos`] and [`load_image_network`].
    """
    clips, by = read_own_videos(source)
    output = Path(output)
    looks = look_at(clips, output / "looks", network, num_workers)
    findings = [*read_findings(clips, looks), *copies(clips, looks), *doubted_labels(clips, looks)]
    findings.sort(key=lambda one: list(KINDS).index(one.kind))
    pandas.DataFrame(findings, columns=list(Finding._fields)).to_csv(output / "findings.csv", index=False)
    write_report(output / "report.html", str(source), clips, by, findings, looks)
    return {
        "clips": len(clips),
        "classes": int(clips["label"].nunique()),
        "recordings": int(clips["group"].nunique()),
        "by": by,
        "findings": findings,
        "report": str(output / "report.html"),
    }


# What is seen of each clip


def look_at(clips: pandas.DataFrame, folder: Path, network: str, num_workers: int | None) -> list[dict[str, Any]]:
    """
    For each clip `error`, or `frames` (3, height, width, 3), `features` (8, size), `sha256`, `seconds`, `brightness`,
    `change` and `remarks`. Those that are in the folder are not computed again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = clips.to_dict("records")
    files = [folder / f"{_key(row, network)}.npz" for row in rows]
    todo = [{**row, "file": file} for row, file in zip(rows, files, strict=True) if not file.is_file()]
    if todo:
        body, expects = load_image_network(network)
        body = body.to(torch.bfloat16, memory_format=torch.channels_last).eval()
        mean, deviation = (torch.tensor(expects[name])[:, None, None] for name in ("image_mean", "image_std"))
        seen_clips = map_jobs(_look, todo, num_workers)
        for seen in tqdm(seen_clips, total=len(todo), desc="looking at clips", unit="clip", disable=None):
            file, pixels = seen.pop("file"), seen.pop("pixels", None)
            arrays = {}
            if pixels is not None:
                shown = ((pixels / 255 - mean) / deviation).to(torch.bfloat16, memory_format=torch.channels_last)
                with torch.inference_mode():
                    features = body(shown).pooler_output.flatten(1).half().numpy()
                frames = tvF.resize(pixels[[0, FRAMES // 2, -1]], [110]).permute(0, 2, 3, 1).numpy()
                arrays = {"features": features, "frames": frames}
            unfinished = file.with_suffix(".unfinished.npz")
            np.savez(unfinished, facts=json.dumps(seen), **arrays)
            os.replace(unfinished, file)
    found = []
    for file in files:
        with np.load(file) as content:
            facts = json.loads(str(content["facts"]))
            found.append(facts | {name: content[name] for name in content.files if name != "facts"})
    return found


def _key(row: dict[str, Any], network: str) -> str:
    """Of what the look depends on: the file with its size and time, the segment, and the network."""
    state = os.stat(row["path"])
    about = [os.path.abspath(row["path"]), state.st_size, state.st_mtime_ns, row["start"], row["end"], network]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]


def _look(row: dict[str, Any], limits: VideoLimits) -> dict[str, Any]:
    def spread(info: VideoInfo) -> np.ndarray:
        first, last = 0, info.total_num_frames
        if not math.isnan(row["start"]):
            first, last = (min(round(row[name] * (info.fps or 25)), last) for name in ("start", "end"))
        return np.linspace(min(first, last - 1), last - 1, FRAMES).round().astype(int)

    try:
        content = Path(row["path"]).read_bytes()
        if not content:
            return {"file": row["file"], "error": "is empty (0 bytes)"}
        frames, info = read_video(row["path"], spread, limits=limits)
    except (OSError, ValueError) as error:
        return {"file": row["file"], "error": str(error)}
    pixels = tvF.resize(torch.from_numpy(frames).permute(0, 3, 1, 2), [SIDE], antialias=True)
    values = pixels.float()
    return {
        "file": row["file"],
        "pixels": tvF.center_crop(pixels, [SIDE]),
        "sha256": hashlib.sha256(content + str((row["start"], row["end"])).encode()).hexdigest(),
        "seconds": info.duration if math.isnan(row["start"]) else row["end"] - row["start"],
        "brightness": values.mean().item(),
        "change": values.diff(dim=0).abs().mean().item(),
        "remarks": info.remarks,
    }


# What is found


def read_findings(clips: pandas.DataFrame, looks: Sequence[dict[str, Any]]) -> list[Finding]:
    """Findings about single clips."""
    found = []
    for name, label, look in zip(clips["name"], clips["label"], looks, strict=True):
        if "error" in look:
            found.append(Finding("unreadable", name, label, look["error"]))
            continue
        found += [Finding("damaged", name, label, remark) for remark in look["remarks"]]
        if look["brightness"] < BLACK:
            found.append(Finding("black", name, label, f"the mean brightness is {look['brightness']:.1f} of 255"))
        elif look["change"] < FROZEN:
            found.append(Finding("frozen", name, label, f"frames differ by {look['change']:.2f} of 255 on average"))
    return found


def copies(clips: pandas.DataFrame, looks: Sequence[dict[str, Any]]) -> list[Finding]:
    """Clips with the same bytes as an earlier one, or nearly the same features in each frame as one of elsewhere."""
    seen = [index for index, look in enumerate(looks) if "features" in look]
    if len(seen) < 2:
        return []
    rows, digests = clips.iloc[seen], np.array([looks[index]["sha256"] for index in seen])
    groups, splits = rows["group"].to_numpy(), rows["split"].to_numpy()
    vectors = descriptors(np.stack([looks[index]["features"] for index in seen]).astype("float32"))
    found = []
    for place in range(1, len(seen)):
        same = digests[:place] == digests[place]
        cosines = np.where(groups[:place] == groups[place], -1, vectors[:place] @ vectors[place])
        cosines[same] = 2
        nearest = cosines.argmax()
        if cosines[nearest] < ALIKE:
            continue
        one, other = rows.iloc[place], rows.iloc[nearest]
        apart = splits[place] != splits[nearest]
        kind = ("leak" if apart else "copy") if cosines[nearest] >= COPY else "alike"
        reason = "has the same bytes as" if same[nearest] else f"looks like ({cosines[nearest]:.2f})"
        reason += f" {other['name']}" + (f", in {splits[place]} and {splits[nearest]}" if apart else "")
        if one["label"] != other["label"]:
            reason += f", which is labelled {other['label']}"
        found.append(Finding(kind, one["name"], one["label"], reason, other["name"]))
    return found


def descriptors(features: np.ndarray) -> np.ndarray:
    """Unit vectors of clips, of the features of their frames, (clips, frames, size), less what all have in common."""
    features = features - features.mean((0, 1))
    vectors = features.reshape(len(features), -1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-6)


def doubted_labels(clips: pandas.DataFrame, looks: Sequence[dict[str, Any]]) -> list[Finding]:
    """Clips whose label is contradicted by a classifier of the clips of other recordings (logistic regression)."""
    seen = [index for index, look in enumerate(looks) if "features" in look]
    rows = clips.iloc[seen]
    folds = min(5, int(rows.groupby("label")["group"].nunique().min())) if len(rows) else 0
    if folds < 2 or rows["label"].nunique() < 2:
        return []
    features = np.stack([looks[index]["features"] for index in seen]).astype("float32")
    pooled = np.concatenate([features.mean(1), np.abs(np.diff(features, axis=1)).mean(1)], axis=1)
    classes, labels = np.unique(rows["label"], return_inverse=True)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=2 / pooled.shape[1], max_iter=300))
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    shares = cross_val_predict(classifier, pooled, labels, groups=rows["group"], cv=parts, method="predict_proba")
    own = shares[np.arange(len(rows)), labels]
    best = shares.argmax(1)
    found = []
    for place in np.argsort(own - shares.max(1)):
        other = shares[place, best[place]]
        if other >= LIKELY and other >= TIMES * own[place]:
            row = rows.iloc[place]
            reason = f"looks like {classes[best[place]]} ({other:.0%}; {row['label']} {own[place]:.0%})"
            found.append(Finding("label", row["name"], row["label"], reason))
    return found


# The page


def write_report(
    file: Path,
    source: str,
    clips: pandas.DataFrame,
    by: str,
    findings: Sequence[Finding],
    looks: Sequence[dict[str, Any]],
):
    """Write the page: what there is, and a contact sheet of each kind of finding."""
    splits = clips["split"].fillna("clips")
    counts = clips.groupby(["label", splits]).size().unstack(fill_value=0)
    groups = clips.groupby("label")["group"].nunique()
    balance = [{"class": label, **row.to_dict(), "recordings": groups[label]} for label, row in counts.iterrows()]
    seconds = [look["seconds"] for look in looks if look.get("seconds")]
    about = [f"{len(clips)} clips of {len(counts)} classes; {clips['group'].nunique()} recordings, told by {by}."]
    if seconds:
        about.append(
            f"Clips last {min(seconds):.2g} to {max(seconds):.2g} s (median {np.median(seconds):.2g} s). Eight frames "
            f"that are spread over a clip of median length are {np.median(seconds) / 8:.2g} s apart; a movement that "
            "is shorter than that falls between them, and needs --fps or shorter clips."
        )
    place = {name: index for index, name in enumerate(clips["name"])}

    def shown(one: Finding) -> list[list[np.ndarray]]:
        indices = [place[one.clip], *([] if one.other is None else [place[one.other]])]
        return [list(looks[index]["frames"]) for index in indices if "frames" in looks[index]]

    sections = [("What there is", [*map(page.text, about), page.table(balance)])]
    for kind, words in KINDS.items():
        of_kind = [one for one in findings if one.kind == kind]
        if of_kind:
            rows = [{"clip": one.clip, "label": one.label, "what": one.reason} for one in of_kind]
            sheets = [
                (frames, f"{one.label}: {one.clip}: {one.reason}") for one in of_kind[:40] for frames in shown(one)
            ]
            sections.append((f"{words}: {len(of_kind)}", [page.contact_sheet(sheets), page.table(rows)]))
    if not findings:
        sections.append(("Findings", [page.text("None.")]))
    page.write_page(file, f"Check of {source}", sections)
