"""
Writes a tiny tree of each benchmark in the layout of its official release, with the traps that the real ones hold.

    python tests/helpers/mini_releases.py OUT

Videos are real files of the benchmark's codec and size, with a frame number in each picture.
"""

import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

from videos import write_video


def xvid(path: Path, num_frames: int = 12):
    """As UCF's and HMDB51's: MPEG-4 tagged XVID, 320x240."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, "mpeg4", num_frames, 320, 240, tag="XVID", options={"g": "12", "b": "400000"})


def write(path: Path, *arguments, **options):
    """Each file has pictures of its own, as duplicates are looked for."""
    write_video(path, *arguments, first_number=zlib.crc32(path.name.encode()) % 900, **options)


def ucf_group(root: Path, folder: str, stem: str, groups: list[int], clips: int = 2):
    for group in groups:
        for clip in range(1, clips + 1):
            xvid(root / folder / f"v_{stem}_g{group:02d}_c{clip:02d}.avi", 8 + (group + 3 * clip) % 7)


def write_ucf50(root: Path):
    """No lists. Two folders whose files spell the class otherwise, groups beyond 25 in one."""
    ucf_group(root / "UCF50", "BaseballPitch", "BaseballPitch", [1, 8, 20, 21, 25])
    ucf_group(root / "UCF50", "Billiards", "Billards", [1, 2, 21])
    ucf_group(root / "UCF50", "PullUps", "Pullup", [1, 24, 27, 30])


def write_ucf101(root: Path):
    """
    Lists with Windows line ends, test lists without labels, a folder whose files are spelled otherwise, the two pairs
    of classes whose order differs; a clip that is listed and not there, and one of three frames.
    """
    folders = {
        "ApplyEyeMakeup": ("ApplyEyeMakeup", 1),
        "HammerThrow": ("HammerThrow", 36),
        "Hammering": ("Hammering", 35),
        "HandstandPushups": ("HandStandPushups", 37),
        "JumpRope": ("JumpRope", 48),
    }
    groups = [1, 8, 15, 22]
    for folder, (stem, _) in folders.items():
        ucf_group(root / "UCF-101", folder, stem, groups)
    xvid(root / "UCF-101" / "JumpRope" / "v_JumpRope_g01_c01.avi", 3)
    (root / "UCF-101" / "Hammering" / "v_Hammering_g22_c02.avi").unlink()
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_bytes(b"1 ApplyEyeMakeup\r\n35 Hammering\r\n36 HammerThrow\r\n")
    for fold, tested in ((1, 1), (2, 8), (3, 15)):
        lines: dict[str, list[str]] = {"train": [], "test": []}
        for folder, (stem, number) in folders.items():
            for group in groups:
                for clip in (1, 2):
                    name = f"{folder}/v_{stem}_g{group:02d}_c{clip:02d}.avi"
                    split = "test" if group == tested else "train"
                    lines[split].append(name if split == "test" else f"{name} {number}")
        for split, of_split in lines.items():
            (lists / f"{split}list{fold:02d}.txt").write_bytes("".join(f"{line}\r\n" for line in of_split).encode())


def write_class_lists(root: Path, videos: str, lists: str, key: str, flags: tuple[str, str], clips: dict, frames: int):
    """Videos of the classes in `clips`, and a list for every class and fold with a flag for each of its clips."""
    from hf_dvflnet.data.label_sets import LABEL_SETS

    (root / lists).mkdir(parents=True)
    for label in LABEL_SETS[key].names:
        stems = clips.get(label, [])
        for number, stem in enumerate(stems):
            xvid(root / videos / label / f"{stem}.avi", frames + number)
        for fold in (1, 2, 3):
            lines = [f"{stem}.avi {flag} \n" for stem, flag in zip(stems, flags[fold == 2], strict=False)]
            newline = "\r\n" if label == "run" else "\n"
            (root / lists / f"{label}_test_split{fold}.txt").write_text("".join(lines), newline=newline)


HMDB51 = {
    "brush_hair": ["April_09_brush_hair_u_nm_np1_ba_goo_0", "#2_Gum_brush_hair_h_nm_np10_fr_med_1"],
    "climb": ["Kletter[1]_climb_f_cm_np1_le_bad_0", "A&B_climb_f_cm_np1_ri_bad_1"],
    "climb_stairs": ["Down-_and_upstairs_climb_stairs_f_cm_np1_ba_med_0", "x!(y)_climb_stairs_f_nm_np1_fr_goo_2"],
    "sword": ["~a;b_sword_f_nm_np2_fr_med_0", "c@d_sword_u_nm_np2_fr_med_1", "e+f_sword_u_nm_np2_fr_med_2"],
}


def write_hmdb51(root: Path):
    """
    A list for every class and fold, with blanks at the line ends, one with Windows line ends, and names with special
    characters. The first clip is trained on, the second tested on, and the third is in neither list.
    """
    write_class_lists(root, "hmdb51_org", "testTrainMulti_7030_splits", "hmdb51", ("120", "210"), HMDB51, 9)


JHMDB = {
    "clap": ["Abschieds-winken_!!!!!!_Gruss_Guido_clap_u_nm_np1_fr_goo_0", "50_FIRST_DATES_clap_u_nm_np2_ri_med_3"],
    "run": ["50_FIRST_DATES_run_f_cm_np1_ba_med_11", "Amazing_Soccer_@2_run_f_cm_np1_le_bad_5"],
    "swing_baseball": [
        "Hittingadouble(BXbaseball)_swing_baseball_f_nm_np1_fr_med_0",
        "golf_swing_baseball_f_nm_np10_fr_bad_1",
    ],
}


def write_jhmdb(root: Path):
    """As HMDB51's, with a title that has clips in two classes."""
    write_class_lists(root, "ReCompress_Videos", "splits", "jhmdb", ("12", "21"), JHMDB, 15)


SSV2 = {
    "train": {
        "78687": "Holding [something] next to [something]",
        "2": "[Something] falling like a feather or paper",
        "31": "Putting [something], [something] and [something] on the table",
        "4": "Stacking [number of] [something]",
    },
    "validation": {
        "36585": "[Something] falling like a feather or paper",
        "6": "Pushing [something] from left to right",
        "7": "Holding [something] next to [something]",
    },
}


def write_ssv2(root: Path):
    """VP9 webm, which tells no frame count; classes come from templates with brackets and commas."""
    videos, labels = root / "20bn-something-something-v2", root / "labels"
    videos.mkdir(parents=True)
    labels.mkdir()
    for split, templates in SSV2.items():
        entries = []
        for number, (video_id, template) in enumerate(templates.items()):
            write(
                videos / f"{video_id}.webm", "libvpx-vp9", 10 + number, 426, 240, rate=12,
                options={"g": "8", "deadline": "realtime", "cpu-used": "8"},
            )  # fmt: skip
            entries.append(
                {"id": video_id, "label": "holding potato", "template": template, "placeholders": ["potato"]}
            )
        (labels / f"{split}.json").write_text(json.dumps(entries))
    names = sorted(
        {template.replace("[", "").replace("]", "") for split in SSV2.values() for template in split.values()}
    )
    (labels / "labels.json").write_text(json.dumps({name: str(number) for number, name in enumerate(names)}))
    (labels / "test.json").write_text('[{"id": "1420"}]')


KINETICS = {
    "train": [("abseiling", "0wR5jVB-WPk", 417), ("air drumming", "-3B32lodo2M", 59), ("yoga", "a_b_c_d_e_f", 3)],
    "validation": [("abseiling", "--6bJUbfpnQ", 17), ("petting cat", "zzzzzzzzzz0", 0), ("yoga", "emptyclip00", 5)],
}


def write_kinetics400(root: Path):
    """
    H.264, flat folders, ids with dashes and underscores, one file with sound in front, one empty file, one clip that
    only the replacement folder holds whole, and a test list without answers.
    """
    annotations = root / "annotations"
    annotations.mkdir(parents=True)
    for split, clips in KINETICS.items():
        folder = root / ("val" if split == "validation" else split)
        folder.mkdir()
        lines = ["label,youtube_id,time_start,time_end,split,is_cc"]
        for number, (label, youtube_id, start) in enumerate(clips):
            path = folder / f"{youtube_id}_{start:06d}_{start + 10:06d}.mp4"
            if youtube_id == "emptyclip00":
                path.touch()
            elif youtube_id == "zzzzzzzzzz0":
                path.write_bytes(b"moov atom not found")
                replacement = root / "replacement" / "replacement_for_corrupted_k400" / path.name
                replacement.parent.mkdir(parents=True)
                write(replacement, num_frames=20, width=340, height=256, options={"g": "12"})
            else:
                write(
                    path, num_frames=14 + number, width=340, height=256, options={"g": "12"}, audio_first=number == 1
                )
            name = "val" if split == "validation" else split
            lines.append(f'"{label}",{youtube_id},{start},{start + 10},{name},0')
        (annotations / ("val.csv" if split == "validation" else f"{split}.csv")).write_text("\n".join(lines) + "\n")
    (annotations / "test.csv").write_text("youtube_id,time_start,time_end,split\n--6bJUbfpnQ,17,27,test\n")


WRITERS: dict[str, Callable[[Path], None]] = {
    "ucf50": write_ucf50,
    "ucf101": write_ucf101,
    "hmdb51": write_hmdb51,
    "jhmdb": write_jhmdb,
    "ssv2": write_ssv2,
    "kinetics400": write_kinetics400,
}


if __name__ == "__main__":
    for benchmark, write_release in WRITERS.items():
        write_release(Path(sys.argv[1]) / benchmark)
