#!/bin/sh
# Starts a fake Polar on a free port and runs Polar's official client against it.
set -eu

folder=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$folder/../../.." && pwd)
[ -d "$folder/node_modules" ] || (cd "$folder" && npm ci --no-audit --no-fund)

work=$(mktemp -d)
pid=
stop() {
	[ -z "$pid" ] || kill "$pid" 2>/dev/null || true
	[ -z "$pid" ] || wait "$pid" 2>/dev/null || true
	rm -rf "$work"
}
trap stop EXIT
trap 'exit 1' INT TERM

# Built first, so that the process to stop is the fake itself and not the go command.
(cd "$root" && go build -o "$work/truenorth" ./cmd/truenorth)

port=$(node -e 'const s = require("node:net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })')
FAKE_URL="http://127.0.0.1:$port"
export FAKE_URL
"$work/truenorth" fake-polar --addr "127.0.0.1:$port" >"$work/log" 2>&1 &
pid=$!

tries=0
until node -e "fetch(process.env.FAKE_URL + \"/_fake/state\").catch(() => process.exit(1))"; do
	tries=$((tries + 1))
	if [ "$tries" -gt 100 ] || ! kill -0 "$pid" 2>/dev/null; then
		echo "the fake Polar did not start; it said:" >&2
		cat "$work/log" >&2
		exit 1
	fi
	sleep 0.1
done

cd "$folder"
node --test check.mjs
