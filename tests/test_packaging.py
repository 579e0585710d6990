"""What is installed is what is here."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

import approxtopk as atk

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib came with Python 3.11")
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_folder_is_a_package(project: dict[str, Any]) -> None:
    """A folder with Python files that `packages` does not name would be missing from the wheel."""
    files = (path for top in ("approxtopk", "kernels", "adapters") for path in (ROOT / top).rglob("*.py"))
    folders = {path.parent.relative_to(ROOT) for path in files}
    named = (".".join(("approxtopk", *folder.parts)) for folder in folders)
    names = {name.replace("approxtopk.approxtopk", "approxtopk") for name in named}
    assert sorted(names) == sorted(project["tool"]["setuptools"]["packages"])
    for folder in folders:
        assert (ROOT / folder / "__init__.py").is_file(), folder


def test_one_version() -> None:
    try:
        installed = version("approxtopk")
    except PackageNotFoundError:
        pytest.skip("not installed: run from the checkout")
    assert installed == atk.__version__
    assert f"## [{atk.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_what_the_extras_name_is_pinned(project: dict[str, Any]) -> None:
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
    wanted = {
        re.match(r"[\w-]+", requirement)[0]  # type: ignore[index]
        for extra in project["project"]["optional-dependencies"].values()
        for requirement in [*extra, *project["project"]["dependencies"]]
    }
    # PyTorch's CUDA build asks for a cuda-toolkit of its own.
    assert wanted - pinned == {"approxtopk", "cuda-toolkit"}
