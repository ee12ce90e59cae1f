import bz2
import gzip
import io
import lzma
import random
import re
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from hf_dvflnet import load_video_folder, prepare_videos
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


def read_all(folder: Path):
    release = Release(folder)
    for archive in release.archives:
        release.members(archive)
        list(release.contents(archive, suffixes=("",)))


@pytest.mark.parametrize("write, name", [(write_zip, "a.zip"), (write_tar, "a.tar.gz")])
def test_an_archive_that_would_fill_memory_or_disk_is_refused(tmp_path, monkeypatch, write, name):
    monkeypatch.setattr("hf_dvflnet.data.archives.MIN_UNPACKED", 1 << 20)
    write(tmp_path / name, {f"{number}.txt": bytes(1 << 20) for number in range(3)})
    with pytest.raises(ValueError, match=rf"{name}: cannot be read as an archive: the archive has \d+ bytes, but"):
        Release(tmp_path).members(str(tmp_path / name))
    with pytest.raises(ValueError, match="but unpacks to"):
        list(Release(tmp_path).contents(str(tmp_path / name), suffixes=("",)))


def test_parts_of_a_zip_that_overlap_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_dvflnet.data.archives.MIN_UNPACKED", 1 << 20)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("0.mp4", bytes(100_000))
        for _ in range(20_000):  # each in the central directory only, with the bytes of the first
            file.filelist.append(file.filelist[0])
    with pytest.raises(ValueError, match="but unpacks to"):
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


def read_within_memory(path: Path, limit: int = 24 << 20) -> list[tuple[str, bytes]]:
    """Members and contents of an archive; `AssertionError` if that takes more memory at any moment."""
    tracemalloc.start()
    try:
        Release(path.parent).members(str(path))
        return list(Release(path.parent).contents(str(path), suffixes=("",)))
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_tells_a_wrong_size_unpacks_to_no_more(tmp_path, method):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("a.mp4", bytes(64 << 20))
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02") + 24  # of the size in the directory
    data[place : place + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    reason = "Bad CRC-32" if method == zipfile.ZIP_DEFLATED else f"a.mp4 uses compression method {method}, but"
    with pytest.raises(ValueError, match=rf"a\.zip: cannot be read as an archive: {reason}"):
        read_within_memory(path)


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress])
def test_a_tar_of_a_compression_that_bursts_is_refused(tmp_path, compress):
    path = write_tar(tmp_path / "a.tar", {"a.mp4": b"abc"})
    path.write_bytes(compress(path.read_bytes() + bytes(64 << 20)))
    with pytest.raises(ValueError, match=r"a\.tar: cannot be .*; only plain and gzip-compressed tars are supported"):
        list(Release(tmp_path).contents(str(path)))
    with pytest.raises(ValueError, match="only plain and gzip-compressed tars are supported"):
        read_within_memory(path)


def headers_of(kind: str) -> bytes:
    """The start of a tar that makes tarfile read 64 MB of headers, or forget no header."""
    member = tarfile.TarInfo("a.mp4")
    member.size = 64 << 20
    if kind == "sparse":
        member.type = tarfile.GNUTYPE_SPARSE
        member.size = 0
        block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
        block[482] = 1  # its map goes on, for ever
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        return bytes(block) + (b"00000000001\0" * 42 + b"\1" + bytes(7)) * (16 << 11)
    if kind == "pax sparse":
        member.size, member.pax_headers = 0, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        return member.tobuf(tarfile.PAX_FORMAT) + b"99999999\n" + b"0\n" * (4 << 20)
    member.type = {"pax": tarfile.XHDTYPE, "global": tarfile.XGLTYPE, "name": tarfile.GNUTYPE_LONGNAME}[kind]
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(64 << 20)


@pytest.mark.parametrize("kind", ["pax", "global", "name", "sparse", "pax sparse"])
def test_headers_of_a_tar_that_would_fill_memory_are_refused(tmp_path, kind):
    path = write_tar(tmp_path / "a.tar", {"b.mp4": b"abc"})
    path.write_bytes(gzip.compress(headers_of(kind) + path.read_bytes()))
    what = "it contains a sparse file" if "sparse" in kind else "a name or extended header has 67108864 bytes"
    with pytest.raises(ValueError, match=rf"a\.tar: cannot be read as an archive: {what}"):
        list(Release(tmp_path).contents(str(path)))
    with pytest.raises(ValueError, match=what):
        read_within_memory(path)


def test_headers_of_a_tar_do_not_add_up(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for number in range(300):
            member = tarfile.TarInfo(f"{number:03d}" * 50)  # which takes an extended header
            member.pax_headers = {"comment": "x" * 60_000}
            tar.addfile(member)
    (tmp_path / "a").mkdir()
    path = (tmp_path / "a.tar.gz").rename(tmp_path / "a" / "a.tar.gz")
    assert len(read_within_memory(path, 8 << 20)) == 300


def test_a_tar_of_many_gzips_is_read_to_its_end(tmp_path):
    members = {f"{number}.mp4": bytes([number]) * 3000 for number in range(8)}
    path = write_tar(tmp_path / "a.tar", members)
    data = path.read_bytes()
    path.write_bytes(b"".join(gzip.compress(data[start : start + 5000]) for start in range(0, len(data), 5000)))
    assert dict(read_within_memory(path)) == members


@pytest.mark.parametrize("write, name", [(write_zip, "a.zip"), (write_tar, "a.tar"), (write_tar, "a.tar.gz")])
def test_a_list_in_an_archive_is_read_by_its_whole_name(tmp_path, write, name):
    write(tmp_path / name, {"videos/a.mp4": b"", "lists/classes.txt": b"jump", "lists/more_classes.txt": b"run"})
    assert Release(tmp_path).read("classes.txt") == "jump"


def test_an_encrypted_zip_is_named(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.mp4": b"secret"})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag of the member
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and that of the directory
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.zip: cannot be read as an archive: .*encrypted"):
        list(Release(tmp_path).contents(str(path)))
    with pytest.raises(ValueError, match=r"a\.zip: cannot be read as an archive: File 'a\.mp4' is encrypted"):
        Release(tmp_path).read("a.mp4")


def test_a_damaged_list_in_a_zip_is_named(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"train.json": b"[]"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 16] ^= 0xFF  # of the checksum
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.zip: cannot be read as an archive: Bad CRC-32"):
        Release(tmp_path).read("train.json")


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


def test_a_manifest_cannot_name_a_file_outside_of_its_folder(tmp_path, video_files):
    folder = tmp_path / "source" / "train" / "jump"
    folder.mkdir(parents=True)
    (folder / "a.mp4").write_bytes(video_files["h264_short_gop.mp4"].read_bytes())
    prepare_videos(tmp_path / "source", tmp_path / "out", layout="folder", num_workers=0)
    manifest = tmp_path / "out" / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"train/jump/a.mp4"', '"train/../../a.mp4"', 1))
    with pytest.raises(ValueError, match=r"contains the path train/\.\./\.\./a\.mp4, which is outside of the folder"):
        load_video_folder(tmp_path / "out")


MANIFESTS = {
    "a list": "[]",
    "a number": "7",
    "no JSON": "{",
    "too deep": "[" * 100_000,
    "nothing in it": "{}",
    "a path of another kind": '{"path": 7}',
    "a stamp of another kind": '"stamp": 7',
    "no place in its tar": '"tar": "train-00000.tar"',
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_of_another_shape_is_named_by_line(tmp_path, video_files, kind):
    source, out = tmp_path / "source" / "train" / "jump", tmp_path / "out"
    source.mkdir(parents=True)
    (source / "a.mp4").write_bytes(video_files["h264_short_gop.mp4"].read_bytes())
    prepare_videos(tmp_path / "source", out, layout="folder", num_workers=0)
    line = (out / "manifest.jsonl").read_text()
    name = MANIFESTS[kind].partition(":")[0]
    wrong = re.sub(rf"{name}: (null|\[.*?\])", MANIFESTS[kind], line) if name[0] == '"' else MANIFESTS[kind] + "\n"
    assert wrong != line
    (out / "manifest.jsonl").write_text(wrong + line)
    with pytest.raises(ValueError, match=r"manifest\.jsonl: line 1 is not a manifest line"):
        load_video_folder(out)
    with pytest.raises(ValueError, match=r"manifest\.jsonl: line 1 is not a manifest line"):
        prepare_videos(tmp_path / "source", out, layout="folder", num_workers=0)


@pytest.mark.parametrize("settings", ["7", "[1]", "{", "[" * 100_000])
def test_settings_of_another_shape_are_named(tmp_path, settings):
    (tmp_path / "source").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "prepare.json").write_text(settings)
    with pytest.raises(ValueError, match=r"prepare\.json: is not a settings file of an earlier run"):
        prepare_videos(tmp_path / "source", tmp_path / "out", num_workers=0)


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
            read_all(path.parent)
        except ValueError as error:
            assert str(path) in str(error), number
            refused += 1
        path.unlink()
    assert 30 < refused < 300
