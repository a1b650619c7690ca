// etcd3, the client of Node.js.

import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';
import { Etcd3 } from 'etcd3';

const hosts = process.env.ENDPOINTS.split(',');
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Until it works: for the time without a leader.
async function again(work) {
  const end = Date.now() + 20_000;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (Date.now() > end) throw error;
      await sleep(100);
    }
  }
}

async function until(what, look) {
  const end = Date.now() + 20_000;
  while (!look()) {
    assert.ok(Date.now() < end, what);
    await sleep(20);
  }
}

const client = new Etcd3({ hosts });
await client.delete().prefix('node/');
await client.put('node/a').value('one');
assert.equal(await client.get('node/a').string(), 'one');
await client.put('node/b').value('two');
assert.deepEqual(await client.getAll().prefix('node/').strings(), { 'node/a': 'one', 'node/b': 'two' });
assert.equal((await client.delete().key('node/b')).deleted, '1');
console.log('keys');

const won = await client
  .if('node/a', 'Value', '==', 'one')
  .then(client.put('node/a').value('1'))
  .else(client.put('node/a').value('no'))
  .commit();
assert.equal(won.succeeded, true);
assert.equal(await client.get('node/a').string(), '1');
console.log('transactions');

const seen = [];
const watcher = await client.watch().prefix('node/w').create();
watcher.on('put', (kv) => seen.push(`put ${kv.key} ${kv.value}`));
watcher.on('delete', (kv) => seen.push(`delete ${kv.key}`));
await client.put('node/w1').value('x');
await client.delete().key('node/w1');
await until('two events', () => seen.length === 2);
assert.deepEqual(seen, ['put node/w1 x', 'delete node/w1']);
console.log('watch');

const lease = client.lease(30);
await lease.put('node/leased').value('x');
assert.equal(await client.get('node/leased').string(), 'x');
await lease.keepaliveOnce();
await lease.revoke();
assert.equal(await client.get('node/leased').string(), null);
console.log('leases');

assert.equal(await client.lock('node-lock').ttl(30).do(() => 'held'), 'held');
const lock = client.lock('node-lock').ttl(30);
await lock.acquire();
await assert.rejects(client.lock('node-lock').ttl(30).acquire());
await lock.release();

const election = client.election('node-election', 30);
const campaign = election.campaign('me');
await new Promise((done, failed) => {
  campaign.on('elected', done);
  campaign.on('error', failed);
});
assert.equal(await election.leader(), 'me');
await campaign.resign();
console.log('locks and elections (its own recipes)');

await client.put('node/before').value('kept');
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
console.log('kill');
await lines.next();
assert.equal(await again(() => client.get('node/before').string()), 'kept');
await again(() => client.put('node/after').value('x'));
// Under the same lock again, and the watch goes on where it was.
await again(() => client.lock('node-lock').ttl(30).do(() => 'held'));
seen.length = 0;
await again(() => client.put('node/w2').value('on'));
await until('the watch to go on', () => seen.includes('put node/w2 on'));
console.log('all of it through the loss of the leader');
await watcher.cancel();

const root = client.user('root');
await root.create('secret');
const rootRole = client.role('root');
await rootRole.create().catch(() => {});
await root.addRole(rootRole);
const reader = client.role('node-reader');
await reader.create();
await reader.grant({ permission: 'Read', key: Buffer.from('node/before') });
const user = client.user('node-user');
await user.create('secret');
await user.addRole(reader);
await client.auth.authEnable();
// Asked with a wrong password, it tells what the last of its servers said: that must not be the one that is gone.
const answers = async (host) => (await fetch(`${host}/health`).catch(() => ({ ok: false }))).ok;
const checked = await Promise.all(hosts.map(answers));
const alive = hosts.filter((_, n) => checked[n]);
const as = (username, password) => new Etcd3({ hosts: alive, auth: { username, password } });
const reads = as('node-user', 'secret');
assert.equal(await reads.get('node/before').string(), 'kept');
await assert.rejects(async () => reads.put('node/before').value('x'), /permission denied/);
reads.close();
const wrong = as('node-user', 'wrong');
await assert.rejects(async () => wrong.get('node/before').string(), /authentication failed/);
wrong.close();
const admin = as('root', 'secret');
await admin.auth.authDisable();
admin.close();
await user.delete();
await reader.delete();
await root.delete();
await rootRole.delete();
console.log('users and roles');
client.close();
process.exit(0);
