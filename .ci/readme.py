"""Print the README's one shell block that contains a word: ``readme.py README.md WORD``."""

import re
import sys
from pathlib import Path

blocks = re.findall(r"^```sh\n(.*?)^```$", Path(sys.argv[1]).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
found = [block for block in blocks if sys.argv[2] in block]
if len(found) != 1:
    sys.exit(f"{sys.argv[1]} has {len(found)} sh blocks with {sys.argv[2]!r}; wanted is one")
print(found[0], end="")
