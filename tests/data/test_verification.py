import json
import shutil

import pytest
from mini_releases import write_kinetics400, write_ucf101

from hf_dvflnet import load_benchmark
from hf_dvflnet.data.loading import split_facts
from hf_dvflnet.data.verification import verify_benchmark


@pytest.fixture
def ucf101(tmp_path):
    root = tmp_path / "ucf101"
    write_ucf101(root)
    folder = root / "UCF-101" / "JumpRope"
    (folder / "v_JumpRope_g08_c01.avi").write_bytes(b"RIFF and nothing more")
    (folder / "v_JumpRope_g08_c02.avi").write_bytes(b"")
    shutil.copy(folder / "v_JumpRope_g22_c01.avi", folder / "v_JumpRope_g22_c02.avi")
    return root


def rows(report) -> dict[str, dict]:
    return {row["video_id"]: row for row in map(json.loads, report.read_text().splitlines())}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_fault_is_found_and_counted(ucf101, tmp_path, num_workers):
    found = verify_benchmark("ucf101", ucf101, tmp_path / "report.jsonl", num_workers=num_workers)
    nothing = {"missing": 0, "empty": 0, "undecodable": 0, "short": 0, "duplicate": 0, "leaked": 0}
    assert found["counts"] == {
        "train": {
            **{"listed": 30, "official": 9537, "ok": 26},
            **{**nothing, "missing": 1, "empty": 1, "undecodable": 1, "duplicate": 1},
        },
        "test": {**{"listed": 10, "official": 3783, "ok": 9}, **{**nothing, "short": 1}},
    }
    named = {name: row["outcome"] for name, row in rows(tmp_path / "report.jsonl").items() if row["outcome"] != "ok"}
    assert named == {
        "Hammering/v_Hammering_g22_c02": "missing",
        "JumpRope/v_JumpRope_g01_c01": "short",
        "JumpRope/v_JumpRope_g08_c01": "undecodable",
        "JumpRope/v_JumpRope_g08_c02": "empty",
        "JumpRope/v_JumpRope_g22_c02": "duplicate",
    }


def test_a_report_is_gone_on_with_and_a_changed_file_read_again(ucf101, tmp_path):
    report = tmp_path / "report.jsonl"
    assert verify_benchmark("ucf101", ucf101, report, num_workers=0)["checked"] == 39
    assert verify_benchmark("ucf101", ucf101, report, num_workers=0)["checked"] == 0
    # stopped half way: the last line is cut
    lines = report.read_text().splitlines(keepends=True)
    report.write_text("".join(lines[:20]) + lines[20][:30])
    assert verify_benchmark("ucf101", ucf101, report, num_workers=0)["checked"] == 39 - 19  # one of the 20 is missing
    folder = ucf101 / "UCF-101" / "JumpRope"
    shutil.copyfile(folder / "v_JumpRope_g15_c01.avi", folder / "v_JumpRope_g08_c01.avi")
    found = verify_benchmark("ucf101", ucf101, report, num_workers=0)
    assert found["checked"] == 1
    assert found["counts"]["train"]["undecodable"] == 0


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_report_is_the_builders_block_list(ucf101, tmp_path):
    verify_benchmark("ucf101", ucf101, tmp_path / "report.jsonl", num_workers=0)
    clips = load_benchmark("ucf101", ucf101, "train", block_list=tmp_path / "report.jsonl")
    assert len(clips) == 27
    assert {"JumpRope/v_JumpRope_g08_c01", "JumpRope/v_JumpRope_g08_c02"} <= set(split_facts(clips)["blocked"])


def test_the_command_prints_a_table_and_fails_where_clips_are_unusable(dvflnet, tmp_path):
    write_kinetics400(tmp_path / "k400")
    options = ("--report", tmp_path / "report.jsonl", "--num-workers", 0)
    code, out, _ = dvflnet("verify", "kinetics400", tmp_path / "k400", *options)
    assert code == 1
    table = [line.split() for line in out.splitlines()]
    assert table[0] == [
        "split",
        "listed",
        "official",
        "ok",
        "missing",
        "empty",
        "undecodable",
        "short",
        "duplicate",
        "leaked",
    ]
    assert table[2] == ["validation", "3", "19906", "2", "0", "1", "0", "0", "0", "0"]
    code, out, _ = dvflnet("verify", "kinetics400", tmp_path / "k400", *options, "--json")
    assert json.loads(out)["checked"] == 0
    (tmp_path / "k400" / "annotations" / "val.csv").write_text(
        "label,youtube_id,time_start,time_end,split\nabseiling,--6bJUbfpnQ,17,27,val\n"
    )
    assert dvflnet("verify", "kinetics400", tmp_path / "k400", *options)[0] == 0


def test_an_unknown_data_set_is_named_with_the_known_ones(dvflnet):
    code, _, err = dvflnet("verify", "imagenet", "folder")
    assert (code, "unknown dataset 'imagenet'; choose one of ucf50" in err) == (1, True)


def test_a_changed_limit_of_frames_needs_no_new_decoding(ucf101, tmp_path):
    verify_benchmark("ucf101", ucf101, tmp_path / "report.jsonl", num_workers=0)
    found = verify_benchmark("ucf101", ucf101, tmp_path / "report.jsonl", min_frames=12, num_workers=0)
    fresh = verify_benchmark("ucf101", ucf101, tmp_path / "fresh.jsonl", min_frames=12, num_workers=0)
    assert found["checked"] == 0
    assert found["counts"] == fresh["counts"]
    assert found["counts"]["test"]["short"] > 1


@pytest.mark.parametrize("content", ["a diary\n", '{"video_id": "1", "split": "test", "benchmark": "ssv2"}\n'])
def test_a_file_that_is_no_report_on_these_lists_is_kept(ucf101, tmp_path, content):
    (tmp_path / "report.jsonl").write_text(content)
    with pytest.raises(ValueError, match=r"report\.jsonl: line 1 is not part of a report on ucf101, official, 1"):
        verify_benchmark("ucf101", ucf101, tmp_path / "report.jsonl", num_workers=0)
    assert (tmp_path / "report.jsonl").read_text() == content
