"""Check that wheel and sdist carry everything: ``contents.py DIST TREE``, TREE being a clean checkout."""

import sys
import tarfile
import zipfile
from pathlib import Path

dist, tree = map(Path, sys.argv[1:])
[wheel], [sdist] = dist.glob("*.whl"), dist.glob("*.tar.gz")

files = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
ignored = ("build/", "approxtopk.egg-info/", ".venv/", ".git/")
files = {name for name in files if not name.startswith(ignored) and "__pycache__" not in name}

wanted = {name for name in files if name.startswith("approxtopk/")}
wanted |= {f"approxtopk/{name}" for name in files if name.startswith(("kernels/", "adapters/"))}
carried = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
complaints = [f"{wheel.name} lacks {name}" for name in sorted(wanted - carried)]
complaints += [f"{wheel.name} should not carry {name}" for name in sorted(carried - wanted)]

with tarfile.open(sdist) as archive:
    carried = {name.partition("/")[2] for name in archive.getnames()}
complaints += [f"{sdist.name} lacks {name}" for name in sorted(files - carried)]

for needed in ("kernels/bucket_walk.cu", "approxtopk/py.typed", "tests/conftest.py", "constraints.txt", ".ci/run"):
    if needed not in files:
        complaints.append(f"{tree} itself lacks {needed}")
if complaints:
    sys.exit("\n".join(complaints))
print(f"{wheel.name}: {len(wanted)} files; {sdist.name}: all {len(files)} files of the checkout")
