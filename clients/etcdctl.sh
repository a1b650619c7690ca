#!/usr/bin/env bash
# etcdctl: what it prints is compared with what it prints of a real etcd.
set -euo pipefail
export ETCDCTL_API=3 ETCDCTL_ENDPOINTS="$ENDPOINTS"

is() {
    if [ "$1" != "$2" ]; then
        printf 'line %s: expected\n%s\nfound\n%s\n' "${BASH_LINENO[0]}" "$2" "$1" >&2
        exit 1
    fi
}
# Until a command works: for the time without a leader.
again() {
    for _ in $(seq 100); do
        "$@" 2>/dev/null && return
        sleep 0.1
    done
    "$@"
}

etcdctl del --prefix ctl/ >/dev/null
is "$(etcdctl put ctl/a one)" OK
is "$(etcdctl put ctl/b two)" OK
is "$(etcdctl get ctl/a)" $'ctl/a\none'
is "$(etcdctl get --prefix ctl/ --keys-only --order=DESCEND --sort-by=KEY | grep .)" $'ctl/b\nctl/a'
is "$(etcdctl put ctl/a three --prev-kv)" $'OK\nctl/a\none'
is "$(etcdctl del ctl/b)" 1
echo "keys"

is "$(printf 'value("ctl/a") = "three"\n\nput ctl/a four\nget ctl/a\n\nput ctl/a other\n\n' | etcdctl txn | grep .)" $'SUCCESS\nOK\nctl/a\nfour'
is "$(printf 'version("ctl/a") = "100"\n\nput ctl/a no\n\nget ctl/a\n\n' | etcdctl txn | grep .)" $'FAILURE\nctl/a\nfour'
echo "transactions"

out="$(mktemp)"
trap 'rm -f "$out"' EXIT
etcdctl watch --prefix ctl/w >"$out" &
watch=$!
for _ in $(seq 100); do
    etcdctl put ctl/w0 begin >/dev/null
    [ -s "$out" ] && break
    sleep 0.1
done
etcdctl put ctl/w1 x >/dev/null
etcdctl del ctl/w1 >/dev/null
for _ in $(seq 100); do
    grep -q DELETE "$out" && break
    sleep 0.1
done
is "$(grep . "$out" | tail -n 5)" $'PUT\nctl/w1\nx\nDELETE\nctl/w1'
echo "watch"

lease="$(etcdctl lease grant 600 | cut -d' ' -f2)"
etcdctl put ctl/leased x --lease="$lease" >/dev/null
etcdctl lease timetolive --keys "$lease" | grep -q 'attached keys(\[ctl/leased\])'
etcdctl lease keep-alive --once "$lease" | grep -q "keepalived with TTL(600)"
is "$(etcdctl lease revoke "$lease")" "lease $lease revoked"
is "$(etcdctl get ctl/leased)" ""
echo "leases"

is "$(etcdctl lock ctl-lock echo held)" held
etcdctl elect ctl-election me >"$out.elect" &
elect=$!
for _ in $(seq 100); do
    grep -q me "$out.elect" && break
    sleep 0.1
done
is "$(tail -n 1 "$out.elect")" me
kill -INT "$elect"
wait "$elect" || true
rm -f "$out.elect"
echo "locks and elections"

etcdctl put ctl/before kept >/dev/null
echo kill
read -r _
is "$(again etcdctl get ctl/before)" $'ctl/before\nkept'
is "$(again etcdctl put ctl/after x)" OK
is "$(again etcdctl lock ctl-lock echo held)" held
# Its connection may have been to the server that was killed.
again etcdctl put ctl/w2 on >/dev/null
for _ in $(seq 200); do
    grep -q '^ctl/w2$' "$out" && break
    sleep 0.1
done
is "$(tail -n 3 "$out")" $'PUT\nctl/w2\non'
kill "$watch"
wait "$watch" || true
echo "all of it through the loss of the leader"

etcdctl user add root:secret >/dev/null
etcdctl role add root >/dev/null 2>&1 || true
etcdctl user grant-role root root >/dev/null
etcdctl role add ctl-reader >/dev/null
etcdctl role grant-permission ctl-reader --prefix=true read ctl/ >/dev/null
etcdctl user add ctl-user:secret >/dev/null
etcdctl user grant-role ctl-user ctl-reader >/dev/null
etcdctl auth enable >/dev/null
is "$(etcdctl --user ctl-user:secret get ctl/before)" $'ctl/before\nkept'
denied="$(etcdctl --user ctl-user:secret put ctl/x y 2>&1 || true)"
grep -q "etcdserver: permission denied" <<<"$denied"
wrong="$(etcdctl --user ctl-user:wrong get ctl/before 2>&1 || true)"
grep -q "authentication failed, invalid user ID or password" <<<"$wrong"
etcdctl --user root:secret auth disable >/dev/null
etcdctl user delete ctl-user >/dev/null
etcdctl role delete ctl-reader >/dev/null
etcdctl user delete root >/dev/null
etcdctl role delete root >/dev/null
echo "users and roles"
