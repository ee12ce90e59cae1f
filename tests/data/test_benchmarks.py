import json
import os
import shutil
import warnings
from pathlib import Path

import datasets
import pytest
from commands import run
from local_hub import LocalHub
from mini_releases import WRITERS

from hf_dvflnet import load_benchmark, read_video
from hf_dvflnet.data.benchmarks import JHMDB
from hf_dvflnet.data.label_sets import LABEL_SETS
from hf_dvflnet.data.loading import split_facts
from hf_dvflnet.data.verification import verify_benchmark
from hf_dvflnet.inference.evaluation import describe_split


# the mini-releases are far from whole
pytestmark = pytest.mark.filterwarnings("ignore:.*from the file names found:UserWarning")


@pytest.fixture(scope="session")
def releases(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("releases")
    for name, write in WRITERS.items():
        write(root / name)
    return {name: root / name for name in WRITERS}


@pytest.fixture
def load(releases):
    """`load_benchmark` of the mini-release."""

    def load(name: str, split: str, *arguments, data_dir=None, **options):
        return load_benchmark(name, data_dir or releases.get(name), split, *arguments, **options)

    return load


# clips of each split of the mini-releases, by protocol and fold
COUNTS = {
    ("ucf50", "groups_20_5", 1): {"train": 12, "test": 12},
    ("ucf50", "logo", 2): {"train": 22, "test": 2},
    ("ucf50", "dvflnet_8020", 1): {"train": 20, "test": 4},
    ("ucf101", "official", 1): {"train": 29, "test": 10},
    ("ucf101", "official", 3): {"train": 29, "test": 10},
    ("ucf101", "dvflnet_8020", 1): {"train": 34, "test": 5},
    ("hmdb51", "official", 1): {"train": 4, "test": 4},
    ("hmdb51", "official", 2): {"train": 4, "test": 4},
    ("jhmdb", "official", 1): {"train": 3, "test": 3},
    ("jhmdb", "official", 2): {"train": 3, "test": 3},
    ("ssv2", "official", 1): {"train": 4, "validation": 3},
    ("kinetics400", "official", 1): {"train": 3, "validation": 3},
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("name", "protocol", "fold"), COUNTS)
def test_each_split_has_its_clips(load, name, protocol, fold):
    for split, count in COUNTS[name, protocol, fold].items():
        mapped = load(name, split, protocol, fold)
        assert len(mapped) == count
        assert tuple(mapped.features["label"].names) == LABEL_SETS[name].names
        assert mapped.features["video"] == datasets.Video(decode=False)
        facts = split_facts(mapped)
        assert (facts["benchmark"], facts["protocol"], facts["fold"], facts["split"]) == (name, protocol, fold, split)


# traps of single benchmarks


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_folder_names_the_class_where_its_files_spell_it_otherwise(load):
    clips = load("ucf101", "train")
    names = clips.features["label"].names
    found = {(names[row["label"]], row["group"]) for row in clips if "HandStandPushups" in row["video"]["path"]}
    assert found == {("HandstandPushups", group) for group in ("g08", "g15", "g22")}
    billiards = [row for row in load("ucf50", "train") if "v_Billards" in row["video"]["path"]]
    assert {row["label"] for row in billiards} == {LABEL_SETS["ucf50"].names.index("Billiards")}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_release_that_was_copied_on_windows_is_the_same(load, releases, tmp_path):
    root = Path(shutil.copytree(releases["ucf101"], tmp_path / "ucf101"))
    (root / "UCF-101" / "HandstandPushups").rename(root / "UCF-101" / "handstandpushups")
    for file in (root / "ucfTrainTestlist").glob("t*.txt"):
        file.write_bytes(file.read_bytes().replace(b"/", b"\\"))
    for protocol in ("official", "dvflnet_8020"):
        ours, theirs = (load("ucf101", "test", protocol, data_dir=folder) for folder in (root, releases["ucf101"]))
        assert ours.remove_columns("video").to_list() == theirs.remove_columns("video").to_list()
        assert all(Path(video["path"]).is_file() for video in ours["video"])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_both_orders_of_ucf101_give_the_same_names(load):
    official, by_folder = load("ucf101", "test"), load("ucf101", "test", label_set="ucf101-sorted")
    names = [[clips.features["label"].names[label] for label in clips["label"]] for clips in (official, by_folder)]
    assert names[0] == names[1]
    assert official["label"] != by_folder["label"]


def test_groups_of_ucf50_lie_on_one_side(load):
    train, test = load("ucf50", "train"), load("ucf50", "test")
    sides = [{(row["label"], row["group"]) for row in clips} for clips in (train, test)]
    assert not sides[0] & sides[1]
    assert max(train["group"]) == "g20"
    assert "g30" in test["group"]  # beyond 25


def test_leaving_a_group_out_keeps_groups_beyond_25_in_training(load):
    assert {row["group"] for row in load("ucf50", "test", "logo", 1)} == {"g01"}
    assert "g30" in load("ucf50", "train", "logo", 1)["group"]


def test_the_protocol_that_leaks_says_so(load):
    with pytest.warns(UserWarning, match="all of the test clips are in the official split-1 training list"):
        load("ucf101", "test", "dvflnet_8020")


def test_hmdb51s_names_with_special_characters_are_found_and_decoded(load):
    clips = [*load("hmdb51", "train"), *load("hmdb51", "test")]
    stems = {Path(row["video"]["path"]).stem for row in clips}
    assert {"#2_Gum_brush_hair_h_nm_np10_fr_med_1", "Kletter[1]_climb_f_cm_np1_le_bad_0"} <= stems
    assert all(len(read_video(row["video"]["path"])[0]) for row in clips)
    names = LABEL_SETS["hmdb51"].names  # climb is a prefix of climb_stairs
    assert {names[row["label"]] for row in clips if "climb_stairs" in row["video_id"]} == {"climb_stairs"}


@pytest.mark.parametrize(
    ("label", "stem", "title"),
    [
        ("climb_stairs", "20_Stairs_climb_stairs_f_cm_np10_le_bad_12", "20_Stairs"),
        ("pullup", "girl_exercise_pullups_pullup_f_nm_np1_ba_goo_0", "girl_exercise_pullups"),
        ("golf", "A_golf_f_nm_np1_fr_med_0_golf_h_cm_np1_ri_goo_1", "A_golf_f_nm_np1_fr_med_0"),
        ("pour", "Tips_@18_-_(Part_1)_[_NEW_]_A&B!!!_pour_u_nm_np1_fr_goo_0", "Tips_@18_-_(Part_1)_[_NEW_]_A&B!!!"),
        ("run", "something_else", None),
    ],
)
def test_the_group_of_a_jhmdb_clip_is_the_title_of_its_source(label, stem, title):
    assert JHMDB.group(label, stem) == title


def test_ssv2s_classes_are_templates_without_brackets(load):
    clips = load("ssv2", "train")
    names = clips.features["label"].names
    assert {row["video_id"]: names[row["label"]] for row in clips} == {
        "78687": "Holding something next to something",
        "2": "Something falling like a feather or paper",
        "31": "Putting something, something and something on the table",
        "4": "Stacking number of something",
    }


def test_ssv2s_test_split_is_there_with_its_answers_only(load, releases, tmp_path):
    with pytest.raises(ValueError, match="has no split 'test'; choose one of train, validation"):
        load("ssv2", "test")
    shutil.copytree(releases["ssv2"], tmp_path / "ssv2")
    (tmp_path / "ssv2" / "labels" / "test-answers.csv").write_text("6;Pushing something from left to right\n")
    assert load("ssv2", "test", data_dir=tmp_path / "ssv2")["video_id"] == ["6"]


def test_a_replacement_of_kinetics400_stands_for_its_namesake(load):
    rows = {row["video_id"]: row["video"]["path"] for row in load("kinetics400", "validation")}
    assert "replacement" in rows["zzzzzzzzzz0_000000_000010"]
    assert "--6bJUbfpnQ_000017_000027" in rows


# what is missing, blocked or wrong


def test_missing_clips_are_counted_and_named(load):
    with pytest.warns(UserWarning, match="1 of 30 clips are missing in .*: Hammering/v_Hammering_g22_c02"):
        clips = load("ucf101", "train")
    facts = split_facts(clips)
    assert (facts["listed"], facts["missing"]) == (30, ["Hammering/v_Hammering_g22_c02"])


def test_a_block_list_leaves_out_what_it_names(load, tmp_path):
    report = tmp_path / "verify.jsonl"
    rows = [
        {"video_id": "JumpRope/v_JumpRope_g01_c01", "outcome": "undecodable"},
        {"video_id": "JumpRope/v_JumpRope_g01_c02", "outcome": "short"},  # named, and still used
        {"video_id": "JumpRope/v_JumpRope_g08_c01", "outcome": "missing"},  # may be there by now
    ]
    report.write_text("".join(json.dumps(row) + "\n" for row in rows))
    clips = load("ucf101", "test", block_list=report)
    assert split_facts(clips)["blocked"] == ["JumpRope/v_JumpRope_g01_c01"]
    assert len(clips) == 9


def test_a_folder_without_lists_says_which_file_is_needed(load, releases):
    with pytest.raises(FileNotFoundError, match=r"has no trainlist01\.txt, which comes with UCF101TrainTestSplits"):
        load("ucf101", "test", data_dir=releases["ucf101"] / "UCF-101")


def test_lists_without_videos_are_refused(load, releases):
    with (
        pytest.warns(UserWarning, match="10 of 10 clips are missing"),
        pytest.raises(FileNotFoundError, match="contains none of the test videos"),
    ):
        load("ucf101", "test", data_dir=releases["ucf101"] / "ucfTrainTestlist")


def test_a_class_that_is_not_in_the_list_is_refused(load, releases, tmp_path):
    shutil.copytree(releases["kinetics400"], tmp_path / "k400")
    csv = tmp_path / "k400" / "annotations" / "val.csv"
    csv.write_text(csv.read_text().replace("petting cat", "petting lion"))
    with pytest.raises(ValueError, match="validation has the classes 'petting lion', which are not classes of K"):
        load("kinetics400", "validation", data_dir=tmp_path / "k400")


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("UCF101.rar", r"contains UCF101\.rar: extract archives first"),
        ("UCF101.tar.gz", r"contains UCF101\.tar\.gz: extract archives first"),
        ("20bn-something-something-v2-00", r"join and extract them first \(cat .*-v2-\?\? \| tar"),
        ("ucf101.py", "loading scripts are no longer supported"),
    ],
)
def test_what_datasets_cannot_open_gets_a_sentence_on_what_to_do(load, tmp_path, file, reason):
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / file).touch()
    with pytest.raises(FileNotFoundError, match=reason):
        load("ucf101", "test", data_dir=tmp_path / "release")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("imagenet", "test"), "unknown benchmark 'imagenet'; choose one of ucf50, .*, kinetics400, or 'folder'"),
        (("ucf101", "test", "logo"), "UCF101: unknown protocol 'logo'; choose one of official, dvflnet_8020"),
        (("ucf101", "test", "official", 4), "has no fold 4; choose one from 1 to 3"),
        (("ucf101", "validation"), "has no split 'validation'; choose one of train, test"),
        (("ucf50", "test", "logo", 26), "has no fold 26; choose one from 1 to 25"),
    ],
)
def test_a_protocol_fold_or_split_that_is_not_there_is_refused(load, arguments, reason):
    with pytest.raises(ValueError, match=reason):
        load(*arguments)


def test_lists_made_of_file_names_say_that_the_release_is_not_whole(releases):
    with pytest.warns(UserWarning, match="contains 24 of the 6681 clips of UCF50. This protocol makes its lists"):
        clips = load_benchmark("ucf50", releases["ucf50"], "test")
    assert (len(clips), split_facts(clips)["listed"]) == (12, 1376)


HEADER = b"label,youtube_id,time_start,time_end,split\n"
LISTS = [
    ("ssv2", "train.json", b'{"a": 1}', "train.json cannot be read: expected a list of "),
    ("ssv2", "train.json", b'[{"id": "1"}]', "train.json cannot be read: .*template"),
    ("ssv2", "train.json", b"[" * 100_000, "train.json cannot be read"),
    ("ssv2", "train.json", b"\xff\xfe[", "train.json: is not UTF-8 text"),
    ("kinetics400", "val.csv", HEADER + b"abseiling,abc,1,two,val\n", "validation's csv cannot be read: .*'two'"),
    ("kinetics400", "val.csv", HEADER + b"a" * 200_000 + b",abc,1,2,val\n", "csv cannot be read: .*field limit"),
    ("kinetics400", "val.csv", b"youtube_id,time_start,time_end,label\nabc,1,2\n", "validation has the classes "),
    (
        "hmdb51",
        "brush_hair_test_split1.txt",
        b"a.avi",
        "brush_hair_test_split1.txt: 'a.avi' does not end with one of 0, 1",
    ),
    # HMDB51's lists have the same names
    ("jhmdb", "run_test_split1.txt", b"a.avi 0", "run_test_split1.txt: 'a.avi 0' does not end with one of 1, 2"),
]


@pytest.mark.parametrize(("name", "file", "content", "reason"), LISTS)
def test_a_list_of_another_shape_is_named(load, releases, tmp_path, name, file, content, reason):
    shutil.copytree(releases[name], tmp_path / "release")
    (tmp_path / "release" / file).write_bytes(content)  # above the list of this name that comes with the release
    with pytest.raises(ValueError, match=reason) as error:
        load(name, "validation", data_dir=tmp_path / "release")
    assert str(tmp_path) in str(error.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_video_named_by_its_id_alone_is_found(load, releases, tmp_path):
    root = tmp_path / "k400"
    shutil.copytree(releases["kinetics400"], root)
    clip = root / "val" / "--6bJUbfpnQ_000017_000027.mp4"
    clip.rename(root / "val" / "--6bJUbfpnQ.mp4")
    assert len(load("kinetics400", "validation", data_dir=root)) == 3


@pytest.mark.parametrize("arguments", [{"protocol": "official"}, {"fold": 2}, {"label_set": "y"}])
def test_what_does_not_apply_to_class_folders_is_refused(tmp_path, arguments):
    name = next(iter(arguments))
    with pytest.raises(ValueError, match=f"{name}=.* does not apply"):
        load_benchmark("folder", tmp_path, "test", **arguments)


# other forms of a release


def test_a_repository_of_loose_files_loads_from_the_hub(releases, tmp_path):
    """Listed, downloaded and decoded through the Hub's interface."""
    root = releases["kinetics400"]
    files = {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
    with LocalHub() as hub:
        hub.repositories["me/k400"] = files
        script = """
            from hf_dvflnet import VideoFocalNetForVideoClassification, load_benchmark, prepare_videos, read_video
            from hf_dvflnet.data.video_column import video_source
            clips = load_benchmark("kinetics400", "hf://datasets/me/k400", "train")
            print([(row["video_id"], len(read_video(video_source(row["video"]))[0])) for row in clips])
        """
        environment = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        lines = run(script, cwd=tmp_path, HF_HUB_DISABLE_XET="1", **environment).splitlines()[-1:]
    expected = [
        ("0wR5jVB-WPk_000417_000427", 14),
        ("-3B32lodo2M_000059_000069", 15),
        ("a_b_c_d_e_f_000003_000013", 16),
    ]
    assert lines == [str(expected)]


# some of the classes


def test_the_chosen_classes_have_the_first_ids_in_the_order_of_the_benchmark(load):
    clips = load("ucf101", "test", classes=["JumpRope", "ApplyEyeMakeup"])
    assert clips.features["label"].names == ["ApplyEyeMakeup", "JumpRope"]
    assert [(row["video_id"].split("/")[0], row["label"]) for row in clips] == [("ApplyEyeMakeup", 0)] * 2 + [
        ("JumpRope", 1)
    ] * 2
    facts = split_facts(clips)
    assert (facts["listed"], facts["missing"], facts["part"]) == (4, [], "2 of 101 classes")
    assert describe_split(facts) == "ucf101 (2 of 101 classes), official fold 1, test"


def test_classes_without_videos_are_named_once_and_left_out_on_request(load):
    present = ["ApplyEyeMakeup", "HammerThrow", "Hammering", "HandstandPushups", "JumpRope"]
    with warnings.catch_warnings(record=True) as caught:  # with Python's own filter, which shows a text once
        for split in ("train", "test"):
            clips = load("ucf101", split, classes="present")
            assert sorted(clips.features["label"].names) == present
    said = [str(warning.message) for warning in caught if "classes have no videos" in str(warning.message)]
    assert said[0].startswith("UCF101: 96 of 101 classes have no videos in ")
    assert len(set(said)) == 1


@pytest.mark.parametrize(
    ("classes", "got"), [(["JumpRope", "Jumping"], "'Jumping'"), ("JumpRope", "'JumpRope'"), ([], r"\[\]")]
)
def test_other_classes_are_refused(load, classes, got):
    with pytest.raises(ValueError, match=f"classes must be 'present' or a list of classes of UCF101, .*; got {got}"):
        load("ucf101", "test", classes=classes)


def test_a_clip_in_both_lists_is_refused(load, releases, tmp_path):
    shutil.copytree(releases["ucf101"], tmp_path / "copy")
    with open(tmp_path / "copy" / "ucfTrainTestlist" / "trainlist01.txt", "a") as file:
        file.write("JumpRope/v_JumpRope_g01_c02.avi 48\n")
    with pytest.raises(ValueError, match="the lists have 'JumpRope/v_JumpRope_g01_c02' in both train and test"):
        load("ucf101", "test", data_dir=tmp_path / "copy")


def test_a_training_clip_that_is_also_tested_is_named_and_left_out_on_request(load, releases, tmp_path, dvflnet):
    shutil.copytree(releases["ucf101"], tmp_path / "copy")
    folder = tmp_path / "copy" / "UCF-101" / "JumpRope"
    shutil.copy(folder / "v_JumpRope_g01_c02.avi", folder / "v_JumpRope_g22_c01.avi")
    report = tmp_path / "report.jsonl"
    options = ("--classes", "JumpRope", "--report", report, "--num-workers", 0)
    code, out, _ = dvflnet("verify", "ucf101", tmp_path / "copy", *options)
    assert code == 0
    assert "JumpRope/v_JumpRope_g22_c01 in train: same bytes as JumpRope/v_JumpRope_g01_c02 in test" in out
    table = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert (table["train"], table["test"]) == (
        ["6", "-", "5", "0", "0", "0", "0", "0", "1"],
        ["2", "-", "1", "0", "0", "0", "1", "0", "0"],
    )
    clips = load("ucf101", "train", data_dir=tmp_path / "copy", classes=["JumpRope"], block_list=report)
    assert split_facts(clips)["blocked"] == ["JumpRope/v_JumpRope_g22_c01"]
    assert "JumpRope/v_JumpRope_g22_c01" not in clips["video_id"]
    assert len(load("ucf101", "train", data_dir=tmp_path / "copy", classes=["JumpRope"])) == 6  # the official list


VARIABLE = "DVFLNET_UCF101"
real = pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} does not name UCF101's release")


@real
@pytest.mark.filterwarnings("ignore:.*no videos:UserWarning")
def test_the_present_classes_of_the_real_release_are_whole(load):
    for fold in (1, 2, 3):
        for split in ("train", "test"):
            clips = load("ucf101", split, data_dir=os.environ[VARIABLE], fold=fold, classes="present")
            assert split_facts(clips)["missing"] == []
            assert set(clips["label"]) == set(range(len(clips.features["label"].names)))


@real
def test_the_basketball_clip_on_both_sides_of_the_first_split_is_named(tmp_path):
    options = {"classes": ["Basketball"], "num_workers": 0}
    found = verify_benchmark("ucf101", os.environ[VARIABLE], tmp_path / "report.jsonl", **options)
    assert found["leaked"] == {
        "Basketball/v_Basketball_g23_c01": "same bytes as Basketball/v_Basketball_g03_c01 in test"
    }
    found = verify_benchmark("ucf101", os.environ[VARIABLE], tmp_path / "second.jsonl", fold=2, **options)
    assert found["leaked"] == {}
