import hashlib

import pytest

from hf_dvflnet.data.label_sets import LABEL_SETS, read_labels


# of the names, one a line: an order must not change unnoticed
DIGESTS = {
    "ucf50": "bb0dd5fdcfaea883",
    "ucf101": "3ec3894f84996395",
    "ucf101-sorted": "01e7e1408d08ad15",
    "hmdb51": "154ef596b6037121",
    "jhmdb": "835082ecf2eb30ad",
    "ssv2": "a31a2ad624a558d6",
    "kinetics400": "a8dafb93a1204d4e",
    "kinetics600": "5d9a560f98fcfed0",
    "diving48": "d8ffe0bc8a280ea4",
    "activitynet": "a5bed94c3d53b1ba",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_the_order_of_each_set_is_the_one_of_its_checkpoints(name):
    text = "\n".join(LABEL_SETS[name].names)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == DIGESTS[name]


def test_the_two_orders_of_ucf101_differ_in_two_pairs():
    official, by_folder = LABEL_SETS["ucf101"].names, LABEL_SETS["ucf101-sorted"].names
    assert [index for index in range(101) if official[index] != by_folder[index]] == [34, 35, 46, 47]
    assert (official[34], official[46]) == ("Hammering", "JumpingJack")  # lines 35 and 47 of classInd.txt


def test_a_file_gives_names_in_the_order_of_its_lines(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(
        "\ufefför\r\nauf, ab\r\n\r\n".encode()
    )  # a mark in front, Windows line ends, blank lines at the end
    assert read_labels(path).names == ("ör", "auf, ab")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a\nb\na\n", "'a' is on line 1 and again on line 3"),
        (b"a\n\nb\n", "line 2 is empty"),
        (b"", "contains no class names"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"1 ApplyEyeMakeup\n2 Archery\n", "has numbered lines, such as '1 ApplyEyeMakeup'; .*the class name alone"),
        (b"0: run\n1: jump\n2: wave\n", "has numbered lines"),
        (b"1. run\n0. jump\n", "has numbered lines"),  # in another order than that of the ids
        (b"run,0\njump,1\n", "has numbered lines"),
        (b'["run", "jump"]', "is JSON"),
        (b'{\n  "0": "run",\n  "1": "jump"\n}\n', "is JSON"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_line(tmp_path, content, reason):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"labels.txt: {reason}"):
        read_labels(path)


def test_a_name_that_is_neither_set_nor_file_is_refused_with_the_sets():
    with pytest.raises(ValueError, match="imagenet is neither a file nor one of the label sets ucf50, .*activitynet"):
        read_labels("imagenet")


@pytest.mark.parametrize(
    "content", ["1 finger\n2 fingers\n3 fingers\n", "level 0\nlevel 1\n", "2 run\n7 jump\n", "[a]\n"]
)
def test_numbers_that_belong_to_names_are_kept(tmp_path, content):
    path = tmp_path / "labels.txt"
    path.write_text(content)
    assert list(read_labels(path).names) == content.split("\n")[:-1]
