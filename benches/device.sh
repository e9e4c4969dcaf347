#!/usr/bin/env bash
# Measures loss and gradient on this machine's device, and its Python peers where torch is installed; prints one table.
#
#   benches/device.sh [BINARY [ARGUMENT…]]
#
# BINARY is the built `device` benchmark (an empty one, or none: cargo builds it); arguments go to it, as `--quick`.
# Records go to $OUT (benches/record). Needs the binary, a Vulkan loader and python3; nothing is fetched.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${OUT:-$here/record}
binary=${1:-}
if [ "$#" -gt 0 ]; then shift; fi

fail() {
  echo "device.sh: $1" >&2
  exit 1
}

command -v python3 >/dev/null 2>&1 || fail "python3 is needed for the table"
if [ -z "$binary" ]; then
  command -v cargo >/dev/null 2>&1 || fail "no cargo here; give the built binary: benches/device.sh BINARY"
  messages=$(cd "$here/.." && cargo bench --bench device --no-run --message-format=json) || fail "cargo bench failed"
  binary=$(printf '%s\n' "$messages" | python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line) if line.startswith("{") else {}
    if message.get("executable") and message["target"]["name"] == "device":
        print(message["executable"])' | tail -n 1)
fi
[ -x "$binary" ] || fail "$binary: no program that can be run"
case $binary in
  */*) ;;
  *) binary=./$binary ;;
esac
mkdir -p "$out" || fail "$out: cannot be made"
own=$out/wgloss.json
peers=$out/peers.json
rm -f "$own" "$peers"

"$binary" --json "$own" "$@"
status=$?
[ "$status" -eq 0 ] || echo "device.sh: $binary ended with $status" >&2

like=()
if [ -s "$own" ]; then like=(--like "$own"); fi
python3 "$here/device_peers.py" ${like[@]+"${like[@]}"} --json "$peers" || echo "device.sh: the peers failed" >&2

echo
python3 "$here/device_table.py" "$own" "$peers" || status=1
exit "$status"
