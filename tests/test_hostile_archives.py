import io
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from hf_dvflnet import load_video_folder, prepare_videos
from hf_dvflnet.benchmark_datasets import Release


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


def read_all(folder: Path):
    release = Release(folder)
    for archive in release.archives:
        release.members(archive)
        list(release.contents(archive, suffixes=("",)))


@pytest.mark.parametrize("write, name", [(write_zip, "a.zip"), (write_tar, "a.tar.gz")])
def test_an_archive_that_would_fill_memory_or_disk_is_refused(tmp_path, monkeypatch, write, name):
    monkeypatch.setattr("hf_dvflnet.benchmark_datasets.MIN_UNPACKED", 1 << 20)
    write(tmp_path / name, {f"{number}.txt": bytes(1 << 20) for number in range(3)})
    with pytest.raises(ValueError, match=rf"{name}: cannot be read as an archive: it has \d+ bytes, and \d+ or more"):
        Release(tmp_path).members(str(tmp_path / name))
    with pytest.raises(ValueError, match="or more when it is unpacked"):
        list(Release(tmp_path).contents(str(tmp_path / name), suffixes=("",)))


def test_parts_of_a_zip_that_overlap_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_dvflnet.benchmark_datasets.MIN_UNPACKED", 1 << 20)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("0.mp4", bytes(100_000))
        for _ in range(20_000):  # each in the central directory only, with the bytes of the first
            file.filelist.append(file.filelist[0])
    with pytest.raises(ValueError, match="or more when it is unpacked"):
        Release(tmp_path).members(str(path))


def test_a_tar_that_leads_back_to_itself_ends(tmp_path):
    header = bytearray(tarfile.TarInfo("b.mp4").tobuf())
    header[124:136] = bytes([0xFF]) * 10 + bytes([0xFE, 0x00])  # a size of -512
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    first = tarfile.TarInfo("a.mp4")
    first.size = 600
    (tmp_path / "a.tar").write_bytes(first.tobuf() + bytes(1024) + bytes(header) + bytes(1024))
    with pytest.raises(ValueError, match=r"a\.tar: cannot be read as an archive: b\.mp4 has a size of -512 bytes"):
        Release(tmp_path).members(str(tmp_path / "a.tar"))


def test_an_encrypted_zip_is_named(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.mp4": b"secret"})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag of the member
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and that of the directory
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.zip: cannot be read as an archive: .*encrypted"):
        list(Release(tmp_path).contents(str(path)))


LINKS = {
    "a link to a folder": (tarfile.SYMTYPE, "{outside}"),
    "a link to a file": (tarfile.SYMTYPE, "{outside}/secret.txt"),
    "a hard link": (tarfile.LNKTYPE, "{outside}/secret.txt"),
    "a device": (tarfile.CHRTYPE, ""),
    "a pipe": (tarfile.FIFOTYPE, ""),
}


@pytest.mark.parametrize("kind", LINKS)
def test_links_and_devices_of_a_tar_are_left_out(tmp_path, video_files, kind):
    outside, source = tmp_path / "outside", tmp_path / "source"
    outside.mkdir()
    source.mkdir()
    (outside / "secret.txt").write_text("secret")
    with tarfile.open(source / "a.tar", "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = LINKS[kind][0], LINKS[kind][1].format(outside=outside)
        tar.addfile(link)
        if kind == "a link to a folder":  # what would be written through it
            evil = tarfile.TarInfo("link/evil.txt")
            evil.size = 4
            tar.addfile(evil, io.BytesIO(b"evil"))
        tar.add(video_files["h264_short_gop.mp4"], "a.mp4")
    prepare_videos(source, tmp_path / "out", layout="folder", num_workers=0)
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_symlink()] == []
    assert not (tmp_path / "out" / "link").is_file()


@pytest.mark.parametrize("write, archive", [(write_zip, "a.zip"), (write_tar, "a.tar")])
@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", ".unfinished/evil.txt"])
def test_a_member_cannot_leave_its_folder(tmp_path, video_files, write, archive, name):
    (tmp_path / "source").mkdir()
    write(tmp_path / "source" / archive, {"a.mp4": b"", name: b"evil"})
    with pytest.raises(ValueError, match=f"{name}: would be written"):
        prepare_videos(tmp_path / "source", tmp_path / "out", num_workers=0)
    assert list(tmp_path.rglob("evil.txt")) == []


def test_a_manifest_cannot_name_a_file_outside_of_its_folder(tmp_path, video_files):
    folder = tmp_path / "source" / "train" / "jump"
    folder.mkdir(parents=True)
    (folder / "a.mp4").write_bytes(video_files["h264_short_gop.mp4"].read_bytes())
    prepare_videos(tmp_path / "source", tmp_path / "out", layout="folder", num_workers=0)
    manifest = tmp_path / "out" / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"train/jump/a.mp4"', '"train/../../a.mp4"', 1))
    with pytest.raises(ValueError, match=r"names train/\.\./\.\./a\.mp4, which is outside of the folder"):
        load_video_folder(tmp_path / "out")


def test_damaged_archives_are_read_or_refused_by_name(tmp_path, capsys):
    seed = random.SystemRandom().randrange(10**6)
    with capsys.disabled():
        print(f"\n300 damaged archives of seed {seed}", end=" ")
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
        draw = random.Random(f"{seed}/{number}")
        name = draw.choice(sorted(contents))
        data = bytearray(contents[name])
        for _ in range(draw.choice((1, 3, 20))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path = tmp_path / "a" / f"{number}_{name}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data if draw.random() < 0.7 else data[: draw.randrange(len(data))])
        try:
            read_all(path.parent)
        except ValueError as error:
            assert str(path) in str(error), (seed, number)
            refused += 1
        path.unlink()
    assert 30 < refused < 300, seed
