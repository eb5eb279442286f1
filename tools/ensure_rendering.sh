#!/bin/sh
# Renders a frame with the interpreter $1; where that fails, installs software OpenGL if it may.
# The failure's own message says what to install by hand.
set -eu
python=$1
cd "$(dirname "$0")/.."

render() {
    "$python" run.py doctor --part rendering
}

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    render
    exit
fi
told=$(render) && echo "$told" && exit
# A second make waits here for the first one's installation.
exec 9<tools/ensure_rendering.sh
flock 9
if ! render >/dev/null; then
    echo "no frame can be rendered yet: installing software OpenGL"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        libegl1 libgl1-mesa-dri libopengl0 >/dev/null
fi
render
