#!/usr/bin/env bash
# Packages for a GPU machine without network: `bash tests/gpu/wheels.sh [FOLDER] [PYTHON]`, e.g. .whl 3.12. Run it where there is a network.
# There: python -m pip install --no-index --find-links FOLDER -e . ; a machine that has torch already only needs the rest:
# WITHOUT="torch torchvision" leaves packages out by the beginning of their names, and takes the others alone, without what they need.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-.whl} python=${2:-3.11}
wanted=$(mktemp)
trap 'rm -f "$wanted"' EXIT
"${PIP_PYTHON:-python3}" - "$wanted" ${WITHOUT:-} <<'PY'
import re, sys, tomllib
out, *without = sys.argv[1:]
names = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]
kept = [name for name in names if not any(re.match(f"{word}\\b", name) for word in without)]
open(out, "w").write("\n".join(kept) + "\n")
PY
flags=(--only-binary=:all: --python-version "$python" --implementation cp -c constraints.txt -d "$folder")
for minor in 17 24 27 28 31 34; do flags+=(--platform "manylinux_2_${minor}_x86_64"); done
[ -z "${WITHOUT:-}" ] || flags+=(--no-deps)
"${PIP_PYTHON:-python3}" -m pip download -q "${flags[@]}" --platform manylinux2014_x86_64 -r "$wanted"
du -sh "$folder"
