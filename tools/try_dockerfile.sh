#!/usr/bin/env bash
# Carries out the Dockerfile in a fresh Debian root, for machines without a Docker engine, then what
# `docker run` would start:
#   tools/try_dockerfile.sh FOLDER [--build-arg NAME=VALUE ...] [-- ARGUMENT ...]
# Needs root, debootstrap, and Debian 12 as the machine's own, whose mirror and pip settings it uses.
# Debian's Python 3.11 stands in for that of the base image. A FOLDER built before is run again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$(realpath -m "$1") && shift
declare -A arguments=()
while [ "${1-}" = --build-arg ]; do
    arguments[${2%%=*}]=${2#*=}
    shift 2
done
[ "${1-}" = -- ] && shift

environment=(PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin LANG=C.UTF-8)
folder=/ user=0

# The image's base: a minimal Debian with Python and pip as `python` and `pip`.
base() {
    # shellcheck disable=SC2016  # apt-get fills it in
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Created-By: Packages')
    debootstrap --variant=minbase bookworm "$root" "${mirror%%$'\n'*}" >"$root.log"
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    cp /etc/pip.conf "$root/etc/" 2>/dev/null || true
    inside "apt-get update -qq && apt-get install -qq -y --no-install-recommends ca-certificates python3-pip >/dev/null 2>&1
        rm /usr/lib/python3.11/EXTERNALLY-MANAGED && ln -s /usr/bin/python3 /usr/local/bin/python"
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
}

# Runs a command as the first process of a container, in processes and mounts of its own.
contained() {
    # shellcheck disable=SC2016  # the inner shell expands it
    env -i "${environment[@]}" unshare --mount --pid --fork --kill-child bash -c '
        root=$1 user=$2 folder=$3 && shift 3
        mount -t proc proc "$root/proc"
        group=$(chroot "$root" id -g "$user" 2>/dev/null || echo 0)
        exec chroot --userspec="$user:$group" "$root" /bin/sh -c "cd $folder && exec \"\$@\"" sh "$@"
    ' bash "$root" "$user" "$folder" "$@"
}

inside() { contained /bin/sh -c "$1"; }

# Copies into the root what .dockerignore lets through; it names what is sent, after a `*`.
copy() {
    local words=("$@") target=${!#} source
    [[ $target = /* ]] || target=$folder/$target
    for source in "${words[@]:0:$#-1}"; do
        if [ "$source" = . ]; then
            sed -n 's/^!//p' .dockerignore | tar -c --exclude=__pycache__ -T - | tar -x -C "$root$target"
        else
            cp "$source" "$root$target"
        fi
    done
}

# Prints the words of a JSON list, one a line.
words() { python3 -c 'import json, sys; print(*json.loads(sys.argv[1]), sep="\n")' "$1"; }

step() {
    local instruction=$1 rest=$2
    case $instruction in FROM | RUN | COPY) [ ! -e "$root/built" ] || return 0 ;; esac
    echo "--- $instruction $rest" | cut -c -100
    case $instruction in
    FROM) base ;;
    ENV) eval "environment+=($rest)" ;;
    ARG) environment+=("${rest%%=*}=${arguments[${rest%%=*}]-${rest#*=}}") ;;
    WORKDIR) folder=$rest && mkdir -p "$root$rest" ;;
    RUN) inside "$rest" ;;
    COPY) read -ra names <<<"$rest" && copy "${names[@]}" ;;
    USER) user=$rest ;;
    HEALTHCHECK) mapfile -t healthcheck < <(words "${rest#*CMD }") ;;
    ENTRYPOINT) mapfile -t entrypoint < <(words "$rest") ;;
    VOLUME) ;;
    *) echo "$instruction is not known to this script" >&2 && exit 1 ;;
    esac
}

while read -r instruction rest; do
    step "$instruction" "$rest"
done < <(grep -v '^ *#' Dockerfile | sed -e ':a' -e '/\\$/{N;s/\\\n *//;ba}' | grep .)
touch "$root/built"

echo "--- docker run IMAGE $*"
status=0
contained "${entrypoint[@]}" "$@" || status=$?
echo "--- exit status $status; the health check:"
contained "${healthcheck[@]}"
exit "$status"
