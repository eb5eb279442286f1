#!/bin/sh
# Makes the virtual environment $1 hold the pinned packages; does nothing where it already does.
# Those for CUDA are among them where there is an NVIDIA GPU, and stay where it has none.
set -eu
venv=$1
cd "$(dirname "$0")/.."

holds_pins() {
    cat "$@" | cmp -s - "$venv/pins" &&
        "$venv/bin/python" -c '' 2>/dev/null
}

set -- requirements.txt requirements-dev.txt
# Another machine with a GPU may use this folder too.
if nvidia-smi --list-gpus 2>/dev/null | grep -q GPU || grep -qs '^nvidia-' "$venv/pins"; then
    set -- "$@" requirements-cuda.txt
fi

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null
}

# Prints the first interpreter on the path that is Python 3.10 to 3.13.
find_python() {
    for name in python3 python3.13 python3.12 python3.11 python3.10; do
        if fits "$name"; then
            command -v "$name"
            return
        fi
    done
    echo "no Python 3.10, 3.11, 3.12 or 3.13 on the path: install one, then try again" >&2
    return 1
}

# Debian and Ubuntu split what makes a virtual environment off from Python itself.
ensure_venv_module() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing $package"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
            "$package" >/dev/null
    else
        echo "$1 cannot make virtual environments: run \`sudo apt-get install $package\`" >&2
        return 1
    fi
}

if [ -n "$(ls -A "$venv" 2>/dev/null)" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
    echo "$venv holds something other than a virtual environment: name another folder" >&2
    exit 1
fi
mkdir -p "$venv"
# The lock makes a second make wait for the first one's installation instead of joining in.
if command -v flock >/dev/null; then
    exec 9<"$venv"
    flock 9
fi
holds_pins "$@" && exit
echo "installing $* into $venv (2.7 GB without CUDA; takes some minutes)"
# What works is not made anew: a run may be using it.
if ! { fits "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; }; then
    python=$(find_python)
    ensure_venv_module "$python"
    "$python" -m venv --clear "$venv"
fi
cat "$@" >"$venv/wanted"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$venv/wanted"
mv "$venv/wanted" "$venv/pins"
