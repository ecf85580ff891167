#!/usr/bin/env bash
# Makes docker/requirements-*.txt anew: each package of an image with its version and hashes.
#     docker/lock.sh              after a change of pyproject.toml: versions stay where they can
#     docker/lock.sh --upgrade    takes the newest versions
# Needs uv, PyPI, and PyTorch's index of CPU builds or a folder with its wheel (UV_FIND_LINKS=FOLDER).
set -euo pipefail
cd "$(dirname "$0")/.."

lock() {  # NAME HEADER, then what uv is to resolve
    local file=docker/requirements-$1.txt header=$2
    shift 2
    uv pip compile --quiet --generate-hashes --only-binary :all: --no-header --no-annotate \
        --python-version 3.11 --python-platform x86_64-manylinux_2_31 --output-file "$file" "$@"
    sed -i "1i # Made by docker/lock.sh for Python 3.11 on x86-64. $header" "$file"
}

cpu_torch=(--torch-backend cpu)
if [[ -n ${UV_FIND_LINKS:-} ]]; then cpu_torch=(); fi

lock cpu "Its torch comes from https://download.pytorch.org/whl/cpu." \
    pyproject.toml --extra server --extra trace "${cpu_torch[@]}" "$@"
unset UV_FIND_LINKS
lock cuda "PyPI has all of it." pyproject.toml --extra server --extra trace --extra gpu "$@"
lock build "What makes the project's wheel." <(echo 'hatchling>=1.27,<2') "$@"
