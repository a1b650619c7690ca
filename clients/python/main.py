"""etcd3gw: the JSON gateway's client."""

import base64
import os
import sys
import threading
import time

from etcd3gw import client as make
from etcd3gw.exceptions import Etcd3Exception


def connect():
    """A client of the first server that answers."""
    last = None
    for endpoint in os.environ["ENDPOINTS"].split(","):
        host, port = endpoint.removeprefix("http://").rsplit(":", 1)
        client = make(host=host, port=int(port), timeout=5)
        try:
            client.status()
            return client
        except Exception as error:  # the one that was killed
            last = error
    raise last


def again(work):
    """Until it works: for the time without a leader."""
    end = time.monotonic() + 20
    while True:
        try:
            return work()
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def text(data):
    return base64.b64encode(data).decode()


client = connect()
client.delete_prefix("py/")
assert client.put("py/a", "one")
assert client.get("py/a") == [b"one"]
assert client.create("py/b", "two")
assert not client.create("py/b", "two")
assert client.replace("py/b", "two", "three")
assert not client.replace("py/b", "two", "four")
assert sorted(v for v, _ in client.get_prefix("py/")) == [b"one", b"three"]
assert client.delete("py/b")
print("keys", flush=True)

done = client.transaction(
    {
        "compare": [{"key": text(b"py/a"), "result": "EQUAL", "target": "VALUE", "value": text(b"one")}],
        "success": [{"request_put": {"key": text(b"py/a"), "value": text(b"1")}}],
        "failure": [],
    }
)
assert done["succeeded"] is True, done
print("transactions", flush=True)

events, cancel = client.watch_prefix("py/w")
seen = []
ready = threading.Event()


def follow():
    for event in events:
        seen.append((event.get("type", "PUT"), event["kv"]["key"]))
        ready.set()


thread = threading.Thread(target=follow, daemon=True)
thread.start()
end = time.monotonic() + 10
while not ready.wait(0.1):
    client.put("py/w", "begin")
    assert time.monotonic() < end, "nothing was seen"
client.put("py/w1", "x")
client.delete("py/w1")
while ("DELETE", b"py/w1") not in seen:
    assert time.monotonic() < end, seen
    time.sleep(0.05)
assert seen[-2:] == [("PUT", b"py/w1"), ("DELETE", b"py/w1")], seen
cancel()
print("watch", flush=True)

lease = client.lease(ttl=60)
assert client.put("py/leased", "x", lease)
assert lease.keys() == [b"py/leased"]
assert 0 < lease.ttl() <= 60
assert lease.refresh() == 60
assert lease.revoke()
assert client.get("py/leased") == []
print("leases", flush=True)

with client.lock(id="py-lock", ttl=60) as held:
    assert held.is_acquired()
    assert not client.lock(id="py-lock", ttl=60).acquire()
print("locks (its own recipe)", flush=True)

lease = client.lease(ttl=60)
name = text(b"py-election")
won = client.post(client.get_url("/election/campaign"), json={"name": name, "lease": lease.id, "value": text(b"me")})
assert won["leader"]["lease"] == str(lease.id), won
led = client.post(client.get_url("/election/leader"), json={"name": name})
assert led["kv"]["value"] == text(b"me"), led
held = client.post(client.get_url("/lock/lock"), json={"name": text(b"py-line"), "lease": lease.id})
client.post(client.get_url("/lock/unlock"), json={"key": held["key"]})
print("locks and elections (served)", flush=True)

assert client.put("py/before", "kept")
print("kill", flush=True)
sys.stdin.readline()
client = again(connect)
assert again(lambda: client.get("py/before")) == [b"kept"]
assert again(lambda: client.put("py/after", "x"))
led = again(lambda: client.post(client.get_url("/election/leader"), json={"name": name}))
assert led["kv"]["value"] == text(b"me"), led
print("all of it through the loss of the leader", flush=True)


def post(path, body, **more):
    return client.session.post(client.get_url(path), json=body, timeout=5, **more)


def must(path, body, **more):
    answer = post(path, body, **more)
    assert answer.status_code == 200, (path, answer.text)
    return answer.json()


must("/auth/user/add", {"name": "root", "password": "secret"})
post("/auth/role/add", {"name": "root"})
must("/auth/user/grant", {"user": "root", "role": "root"})
must("/auth/enable", {})
try:
    client.get("py/before")
    raise AssertionError("read without a user")
except Etcd3Exception:
    pass
token = must("/auth/authenticate", {"name": "root", "password": "secret"})["token"]
wrong = post("/auth/authenticate", {"name": "root", "password": "wrong"})
assert "authentication failed" in wrong.text, wrong.text
headers = {"Authorization": token}
found = must("/kv/range", {"key": text(b"py/before")}, headers=headers)
assert found["count"] == "1", found
must("/auth/disable", {}, headers=headers)
must("/auth/user/delete", {"name": "root"})
must("/auth/role/delete", {"role": "root"})
print("users and roles", flush=True)
os._exit(0)  # the watch's thread may be reading still
