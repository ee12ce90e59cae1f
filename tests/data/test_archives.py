import io
import random
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from hf_dvflnet import prepare_videos
from hf_dvflnet.data.releases import Release


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def read_all(path: Path) -> dict[str, bytes]:
    archive = Release(path).archives[str(path)]
    contents = dict(archive.contents(suffixes=("",)))
    assert list(contents) == archive.members
    return contents


@pytest.mark.parametrize("write, name", [(write_zip, "a.zip"), (write_tar, "a.tar"), (write_tar, "a.tar.gz")])
def test_an_archive_is_read_in_its_order(tmp_path, write, name):
    members = {f"v/{number}.mp4": bytes([number]) * 600 for number in (3, 1, 2)}
    assert list(read_all(write(tmp_path / name, members)).items()) == list(members.items())


def test_a_tar_that_leads_back_to_itself_ends(tmp_path):
    header = bytearray(tarfile.TarInfo("b.mp4").tobuf())
    header[124:136] = bytes([0xFF]) * 10 + bytes([0xFE, 0x00])  # a size of -512
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    first = tarfile.TarInfo("a.mp4")
    first.size = 600
    (tmp_path / "a.tar").write_bytes(first.tobuf() + bytes(1024) + bytes(header) + bytes(1024))
    with pytest.raises(ValueError, match=r"a\.tar: cannot be read as an archive: b\.mp4 has a size of -512 bytes"):
        read_all(tmp_path / "a.tar")


def test_links_and_devices_of_a_tar_are_left_out(tmp_path, video_files):
    outside, source = tmp_path / "outside", tmp_path / "source"
    outside.mkdir()
    source.mkdir()
    (outside / "secret.txt").write_text("secret")
    with tarfile.open(source / "a.tar", "w") as tar:
        for name, kind, target in (
            ("folder", tarfile.SYMTYPE, outside),
            ("file", tarfile.SYMTYPE, outside / "secret.txt"),
            ("hard", tarfile.LNKTYPE, outside / "secret.txt"),
            ("device", tarfile.CHRTYPE, ""),
            ("pipe", tarfile.FIFOTYPE, ""),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, str(target)
            tar.addfile(link)
        through = tarfile.TarInfo("folder/evil.txt")
        through.size = 4
        tar.addfile(through, io.BytesIO(b"evil"))
        tar.add(video_files["h264_short_gop.mp4"], "a.mp4")
    prepare_videos(source, tmp_path / "out", layout="folder", num_workers=0)
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")}
    assert found == {"a.mp4", "folder", "folder/evil.txt", "manifest.jsonl", "prepare.json"}
    assert not (tmp_path / "out" / "folder").is_symlink()


@pytest.mark.parametrize("write, archive", [(write_zip, "a.zip"), (write_tar, "a.tar")])
@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "."])
def test_a_member_cannot_leave_its_folder(tmp_path, video_files, write, archive, name):
    (tmp_path / "source").mkdir()
    write(tmp_path / "source" / archive, {"a.mp4": b"", name: b"evil"})
    with pytest.raises(ValueError, match=f"{re.escape(name)}: would be written"):
        prepare_videos(tmp_path / "source", tmp_path / "out", num_workers=0)
    assert list(tmp_path.rglob("evil.txt")) == []


@pytest.mark.parametrize("write, archive", [(write_zip, "a.zip"), (write_tar, "a.tar")])
def test_hidden_members_are_neither_prepared_nor_copied(tmp_path, write, archive):
    (tmp_path / "source").mkdir()
    hidden = ("._a.mp4", "__MACOSX/._a.mp4", ".DS_Store", ".unfinished/evil.txt", "./@eaDir/a.mp4")
    write(tmp_path / "source" / archive, {"a.mp4": b"", "notes.txt": b"", **dict.fromkeys(hidden, b"")})
    with pytest.warns(UserWarning, match=rf"{archive}: left out: 3 hidden or system files \(._a.mp4, ...\)"):
        found = prepare_videos(tmp_path / "source", tmp_path / "out", layout="folder", num_workers=0)
    assert found["videos"] == 1
    names = {path.name for path in (tmp_path / "out").rglob("*")}
    assert names == {"notes.txt", "manifest.jsonl", "prepare.json"}  # an empty file has no clip


def test_damaged_archives_are_read_or_refused_by_name(tmp_path):
    members = {f"v/{number}.mp4": bytes([number]) * 3000 for number in range(4)}
    good = [
        write_zip(tmp_path / "good.zip", members),
        write_tar(tmp_path / "good.tar", members),
        write_tar(tmp_path / "good.tar.gz", members),
    ]
    contents = {path.name: path.read_bytes() for path in good}
    for path in good:
        path.unlink()
    refused = 0
    for number in range(300):
        draw = random.Random(number)
        name = draw.choice(sorted(contents))
        data = bytearray(contents[name])
        for _ in range(draw.choice((1, 3, 20))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path = tmp_path / "a" / f"{number}_{name}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data if draw.random() < 0.7 else data[: draw.randrange(len(data))])
        try:
            read_all(path)
        except ValueError as error:
            assert str(path) in str(error), number
            refused += 1
        path.unlink()
    assert 30 < refused < 300
