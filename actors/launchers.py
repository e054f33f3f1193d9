"""The two small programs that make source code run by an image's contract: `train` and `serve`, in plain POSIX sh.

In an image the code lies in /opt/ml/code; in a staged folder it lies beside the launchers.
"""

from __future__ import annotations

import shlex
from pathlib import Path

MARKER = "raymaker-source"

LAUNCHER = """\
#!/bin/sh
# Written by raymaker: starts the source code's {program}.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
code=/opt/ml/code
[ -f "$here/../{marker}" ] && code=$(cd -- "$here/../code" && pwd)
cd "$code" || exit 66
for file in {candidates}; do
    [ -f "$file" ] || continue
    case $file in
    *.py)
        if ! command -v python3 >/dev/null; then
            echo "raymaker: there is no python3 here to run $file: name a BaseImage that has it" >&2
            exit 127
        fi
        exec python3 -u "$code/$file" "$@" ;;
    *.sh) exec sh "$code/$file" "$@" ;;
    *) exec "$code/$file" "$@" ;;
    esac
done
echo "raymaker: the source code has nothing to {program} with: add one of" {candidates} >&2
exit 64
"""


def write_launchers(folder: Path, entry_point: str) -> None:
    """Write `bin/train` and `bin/serve` beside `code/`, and the marker by which they know that they lie there."""
    beside = Path(entry_point).parent
    serving = [str(beside / name) for name in ("serve.py", "serve.sh", "serve")]
    (folder / MARKER).touch()
    (folder / "bin").mkdir()
    for program, candidates in (("train", [entry_point]), ("serve", serving)):
        launcher = folder / "bin" / program
        launcher.write_text(LAUNCHER.format(program=program, marker=MARKER, candidates=shlex.join(candidates)))
        launcher.chmod(0o755)
