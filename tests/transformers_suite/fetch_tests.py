"""
Puts the tests of the installed transformers into `.venv/transformers-tests`. `make test-transformers` runs this first.

They come from its source distribution, which is downloaded once, and again when another version is installed. It holds
only `tests/test_*.py`. What these import besides stands in `missing`, and is laid beside them:

| file of `missing` | what is therefore not tested |
|---|---|
| `tests/exporters/test_export.py` | export (`ExportTesterMixin`); `tests/inference/test_export.py` tests ours |
| `tests/generation/test_utils.py` | text generation (`GenerationTesterMixin`), which no video classifier has |
| `tests/utils/test_configuration_utils.py` | arguments of `PreTrainedConfig` that are not in our copy of the list |
| `tests/utils/tiny_model_summary.json` | tiny models on the Hub: the pipeline gets one that is made on the spot |
| `utils/fetch_hub_objects_for_ci.py` | images on the Hub, which tests of segmentation and detection use |
| `tests/__init__.py`, `src/transformers/__init__.py` | nothing: they are empty, and the installed package is tested |
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path


MISSING = Path(__file__).with_name("missing")
TARGET = Path(__file__).parents[2] / ".venv" / "transformers-tests"


def download(release: str, folder: Path):
    """Extract `tests` of the source distribution of transformers `release` into `folder`."""
    # only metadata is built, for which the build tools of this environment are enough
    options = ["--no-deps", "--no-binary", "transformers", "--no-build-isolation", "--dest", str(folder)]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", *options]
    attempts = (subprocess.run([*pip, f"transformers=={release}"]).returncode for _ in range(2))
    if all(attempts):  # the first download may have broken off
        sys.exit(
            f"The tests of transformers {release} cannot be downloaded, see above. They are downloaded once and then "
            f"kept in {TARGET}: run make test-transformers again with a network"
        )
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        root = archive.name.removesuffix(".tar.gz")
        tests = [member for member in file.getmembers() if member.name.startswith(f"{root}/tests/")]
        file.extractall(folder, tests, filter="data")
    archive.unlink()
    (folder / root / "tests").rename(folder / "tests")
    (folder / root).rmdir()
    for path in MISSING.rglob("*.*"):
        if (folder / path.relative_to(MISSING)).exists():
            sys.exit(f"{path} is not missing from the source distribution of transformers {release}: delete it")


def main():
    release, stamp = version("transformers"), TARGET / "version.txt"
    if not stamp.is_file() or stamp.read_text() != release:
        with tempfile.TemporaryDirectory(dir=TARGET.parent) as folder:
            download(release, Path(folder))
            shutil.rmtree(TARGET, ignore_errors=True)
            shutil.copytree(folder, TARGET)
        stamp.write_text(release)
    shutil.copytree(MISSING, TARGET, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
