"""What is installed is what is in the tree: a package left out of the list is silently missing."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def packages_in_the_tree() -> set[str]:
    found = {
        ".".join(folder.relative_to(ROOT).parts)
        for init in (ROOT / "cnndsl").rglob("__init__.py")
        for folder in [init.parent]
    }
    # The last holds pages only; setuptools complains of a folder of data that is not named.
    return found | {"cnndsl.kernels", "cnndsl.grammars", "cnndsl.diagnostics.codes"}


def test_the_list_of_packages_names_every_folder() -> None:
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages_in_the_tree()


def test_every_folder_with_python_files_is_a_package() -> None:
    folders = {file.parent for file in (ROOT / "cnndsl").rglob("*.py")}
    assert [str(f) for f in sorted(folders) if not (f / "__init__.py").is_file()] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in a wheel that is built from a copy of the tracked files, without the network."""
    copy, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if tracked.returncode:
        pytest.skip("not a git checkout, so the list of its files is unknown")
    for name in tracked.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(out), str(copy)]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module_and_what_the_compiler_reads(wheel: set[str]) -> None:
    modules = {str(f.relative_to(ROOT)) for f in (ROOT / "cnndsl").rglob("*.py")}
    kernels = {f"cnndsl/kernels/{f.name}" for f in (ROOT / "kernels").glob("*.py")}
    grammars = {f"cnndsl/grammars/{f.name}" for f in (ROOT / "grammars").glob("*.lark")}
    pages = {str(f.relative_to(ROOT)) for f in (ROOT / "cnndsl").rglob("*.md")}
    assert (modules | kernels | grammars | pages) - wheel == set()


def test_the_wheel_holds_nothing_else(wheel: set[str]) -> None:
    strangers = {n for n in wheel if not n.startswith(("cnndsl/", "cnndsl-"))}
    assert strangers == set()
