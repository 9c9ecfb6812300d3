// What @kubernetes/client-node finds. Says a line a case: ok<TAB>CASE, FAIL<TAB>CASE<TAB>WHY or not run<TAB>CASE<TAB>WHY.
//
// Wants KUBECONFIG and NAMESPACE, a namespace of its own that is there and empty.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import * as k8s from '@kubernetes/client-node';
import WebSocket from 'ws';

const namespace = process.env.NAMESPACE;
const group = 'gantry.dev';
const version = 'v1alpha1';
const plural = 'dockerinstances';

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const custom = config.makeApiClient(k8s.CustomObjectsApi);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const path = `/api/v1/namespaces/${namespace}/configmaps`;

const configMap = (name, data = {}, labels = {}) =>
  ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace, labels }, data });
const instance = (name, spec = {}) =>
  ({ apiVersion: `${group}/${version}`, kind: 'DockerInstance', metadata: { name, namespace }, spec });
const as = (strategy) => k8s.setHeaderOptions('Content-Type', strategy);
const names = (items) => items.map((item) => item.metadata.name);

async function eventually(what, probe) {
  for (let left = 200; !(await probe()); left -= 1) {
    assert.ok(left > 0, `waited for ${what}`);
    await pause(50);
  }
}

/** The Status with which the call is refused. */
async function refused(code, call) {
  try {
    await call();
  } catch (error) {
    assert.equal(error.code, code, `${error.code}: ${error.body ?? error.message}`);
    return typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
  }
  assert.fail(`not refused with ${code}`);
}

/** Watches until `count` events have come or the server ends the watch. */
async function watched(query, count = Infinity) {
  const seen = [];
  let end;
  const ended = new Promise((resolve, reject) => {
    end = (error) => (error && error.name !== 'AbortError' && error !== k8s.Watch.SERVER_SIDE_CLOSE ? reject(error) : resolve());
  });
  const abort = await new k8s.Watch(config).watch(path, query, (type, object) => {
    seen.push({ type, object });
    if (seen.length >= count) end();
  }, end);
  await ended;
  abort.abort();
  return seen;
}

const cases = {
  async version() {
    const said = await config.makeApiClient(k8s.VersionApi).getCode();
    assert.deepEqual([said.major, said.minor], ['1', '33']);
  },

  async discovery() {
    const { groups } = await config.makeApiClient(k8s.ApisApi).getAPIVersions();
    assert.ok(groups.some((one) => one.name === group), JSON.stringify(groups));
    const { resources } = await core.getAPIResources();
    assert.ok(resources.some((one) => one.kind === 'ConfigMap'), JSON.stringify(resources));
  },

  async namespaces() {
    const name = `${namespace}-inner`;
    const made = await core.createNamespace({ body: { metadata: { name } } });
    assert.equal(made.status.phase, 'Active');
    await core.deleteNamespace({ name });
    await eventually('the namespace to go', async () => !names((await core.listNamespace()).items).includes(name));
  },

  async secrets() {
    const body = { metadata: { name: 's' }, stringData: { password: 'moon' } };
    assert.deepEqual((await core.createNamespacedSecret({ namespace, body })).data, { password: 'bW9vbg==' });
  },

  async events() {
    const body = { metadata: { name: 'e' }, involvedObject: { kind: 'ConfigMap', name: 'about', namespace }, reason: 'Tried', type: 'Normal' };
    await core.createNamespacedEvent({ namespace, body });
    const found = await core.listNamespacedEvent({ namespace, fieldSelector: 'involvedObject.name=about' });
    assert.deepEqual(names(found.items), ['e']);
  },

  async 'create and get'() {
    const made = await core.createNamespacedConfigMap({ namespace, body: configMap('a', { k: 'v' }) });
    assert.ok(made.metadata.uid && made.metadata.creationTimestamp instanceof Date);
    assert.deepEqual((await core.readNamespacedConfigMap({ name: 'a', namespace })).data, { k: 'v' });
    const said = await refused(409, () => core.createNamespacedConfigMap({ namespace, body: configMap('a') }));
    assert.equal(said.reason, 'AlreadyExists');
  },

  async 'replace and conflict'() {
    const old = await core.createNamespacedConfigMap({ namespace, body: configMap('replaced', { k: '1' }) });
    const replace = (k) => core.replaceNamespacedConfigMap({ name: 'replaced', namespace, body: { ...old, data: { k } } });
    assert.deepEqual((await replace('2')).data, { k: '2' });
    assert.equal((await refused(409, () => replace('3'))).reason, 'Conflict');
  },

  async 'patch: merge'() {
    await custom.createNamespacedCustomObject({ group, version, namespace, plural, body: instance('merged', { description: 'kept' }) });
    const body = { spec: { displayName: 'new' } };
    const patched = await custom.patchNamespacedCustomObject(
      { group, version, namespace, plural, name: 'merged', body }, as(k8s.PatchStrategy.MergePatch));
    assert.deepEqual([patched.spec.displayName, patched.spec.description], ['new', 'kept']);
  },

  async 'patch: json'() {
    await core.createNamespacedConfigMap({ namespace, body: configMap('listed', { k: 'old' }) });
    const send = (...body) => core.patchNamespacedConfigMap({ name: 'listed', namespace, body }, as(k8s.PatchStrategy.JsonPatch));
    assert.deepEqual((await send({ op: 'replace', path: '/data/k', value: 'new' })).data, { k: 'new' });
    await refused(422, () => send({ op: 'test', path: '/data/k', value: 'other' }));
  },

  async 'patch: strategic'() {
    const body = { ...configMap('strategic'), metadata: { name: 'strategic', finalizers: ['gantry.dev/a'] } };
    await core.createNamespacedConfigMap({ namespace, body });
    const send = (metadata) => core.patchNamespacedConfigMap(
      { name: 'strategic', namespace, body: { metadata } }, as(k8s.PatchStrategy.StrategicMergePatch));
    assert.deepEqual((await send({ finalizers: ['gantry.dev/b'] })).metadata.finalizers.sort(), ['gantry.dev/a', 'gantry.dev/b']);
    const all = { '$deleteFromPrimitiveList/finalizers': ['gantry.dev/a', 'gantry.dev/b'] };
    assert.equal((await send(all)).metadata.finalizers, undefined);
  },

  async 'apply: create'() {
    const send = (data) => objects.patch(
      configMap('applied', data), undefined, undefined, 'node', false, k8s.PatchStrategy.ServerSideApply);
    const made = await send({ k: 'v' });
    assert.deepEqual(made.metadata.managedFields.map((one) => [one.manager, one.operation]), [['node', 'Apply']]);
    assert.deepEqual((await send({ other: 'w' })).data, { other: 'w' });
  },

  async 'apply: conflict and force'() {
    const send = (manager, k, force = false) => objects.patch(
      configMap('fought-over', { k }), undefined, undefined, manager, force, k8s.PatchStrategy.ServerSideApply);
    await send('one', '1');
    const said = await refused(409, () => send('two', '2'));
    assert.equal(said.details.causes[0].reason, 'FieldManagerConflict');
    assert.deepEqual((await send('two', '2', true)).data, { k: '2' });
  },

  async 'apply: own kinds and status'() {
    const made = await objects.patch(
      instance('applied', { displayName: 'x' }), undefined, undefined, 'node', false, k8s.PatchStrategy.ServerSideApply);
    assert.equal(made.spec.displayName, 'x');
  },

  async 'dynamic client'() {
    await objects.create(instance('dynamic', { displayName: 'x' }));
    const found = await objects.read(instance('dynamic'));
    assert.equal(found.spec.displayName, 'x');
    const patched = await objects.patch(
      { ...instance('dynamic'), spec: { displayName: 'y' } }, undefined, undefined, undefined, undefined, k8s.PatchStrategy.MergePatch);
    assert.equal(patched.spec.displayName, 'y');
    // Its status may be written meanwhile.
    await eventually('a replace without a conflict', async () => {
      const newest = await objects.read(instance('dynamic'));
      newest.spec.displayName = 'z';
      return objects.replace(newest).then((replaced) => replaced.spec.displayName === 'z', (error) => {
        if (error.code !== 409) throw error;
      });
    });
    assert.ok(names((await objects.list(`${group}/${version}`, 'DockerInstance', namespace)).items).includes('dynamic'));
    await objects.delete(instance('dynamic'));
  },

  async paging() {
    for (const number of [0, 1, 2, 3, 4]) {
      await core.createNamespacedConfigMap({ namespace, body: configMap(`page-${number}`, {}, { paged: 'yes' }) });
    }
    const seen = [];
    let _continue;
    do {
      const page = await core.listNamespacedConfigMap({ namespace, labelSelector: 'paged', limit: 2, _continue });
      seen.push(...names(page.items));
      _continue = page.metadata._continue;
    } while (_continue);
    assert.deepEqual(seen, [0, 1, 2, 3, 4].map((number) => `page-${number}`));
  },

  async selectors() {
    await core.createNamespacedConfigMap({ namespace, body: configMap('red', {}, { team: 'red' }) });
    await core.createNamespacedConfigMap({ namespace, body: configMap('blue', {}, { team: 'blue' }) });
    const chosen = async (labelSelector) => names((await core.listNamespacedConfigMap({ namespace, labelSelector })).items);
    assert.deepEqual(await chosen('team in (red,blue),team!=red'), ['blue']);
  },

  async watch() {
    const resourceVersion = (await core.listNamespacedConfigMap({ namespace })).metadata.resourceVersion;
    await core.createNamespacedConfigMap({ namespace, body: configMap('w', { k: '1' }) });
    await core.patchNamespacedConfigMap({ name: 'w', namespace, body: { data: { k: '2' } } }, as(k8s.PatchStrategy.MergePatch));
    await core.deleteNamespacedConfigMap({ name: 'w', namespace });
    const seen = await watched({ resourceVersion, fieldSelector: 'metadata.name=w' }, 3);
    assert.deepEqual(seen.map(({ type, object }) => [type, object.data.k]), [['ADDED', '1'], ['MODIFIED', '2'], ['DELETED', '2']]);
  },

  async 'watch: bookmarks'() {
    const seen = await watched({ allowWatchBookmarks: true, timeoutSeconds: 1 });
    assert.equal(seen.at(-1)?.type, 'BOOKMARK');
  },

  async 'watch: initial events'() {
    const seen = await watched({
      sendInitialEvents: true, resourceVersionMatch: 'NotOlderThan', allowWatchBookmarks: true, timeoutSeconds: 1 });
    const end = seen.find(({ type }) => type === 'BOOKMARK');
    assert.equal(end?.object.metadata.annotations['k8s.io/initial-events-end'], 'true');
  },

  // As dashboards do in a browser.
  async 'watch: websocket'() {
    const options = {};
    await config.applyToHTTPSOptions(options);
    const server = config.getCurrentCluster().server.replace(/^http/, 'ws');
    const socket = new WebSocket(`${server}${path}?watch=1&fieldSelector=metadata.name%3Dsocket`, ['base64.binary.k8s.io'], options);
    const seen = [];
    socket.on('message', (message, isBinary) => seen.push([JSON.parse(message).type, isBinary]));
    await once(socket, 'open');
    await core.createNamespacedConfigMap({ namespace, body: configMap('socket') });
    await core.deleteNamespacedConfigMap({ name: 'socket', namespace });
    await eventually('two events', () => seen.length >= 2);
    socket.close();
    await once(socket, 'close');
    assert.deepEqual(seen, [['ADDED', false], ['DELETED', false]]);
  },

  async informer() {
    const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: 'informed' });
    await core.createNamespacedConfigMap({ namespace, body: configMap('i-1', { k: '1' }, { informed: 'yes' }) });
    const informer = k8s.makeInformer(config, path, list, 'informed');
    const seen = [];
    for (const verb of ['add', 'update', 'delete']) informer.on(verb, (object) => seen.push(`${verb} ${object.metadata.name}`));
    informer.on('error', (error) => seen.push(`error ${error}`));
    await informer.start();
    await core.createNamespacedConfigMap({ namespace, body: configMap('i-2', {}, { informed: 'yes' }) });
    await core.patchNamespacedConfigMap({ name: 'i-1', namespace, body: { data: { k: '2' } } }, as(k8s.PatchStrategy.MergePatch));
    await core.deleteNamespacedConfigMap({ name: 'i-2', namespace });
    await eventually('four events', () => seen.length >= 4);
    await informer.stop();
    // Stopping it is an error to it.
    assert.deepEqual(seen.slice(0, 4), ['add i-1', 'add i-2', 'update i-1', 'delete i-2']);
    assert.deepEqual(names(informer.list(namespace)), ['i-1']);
  },

  async 'field validation'() {
    const make = (name, fieldValidation) => custom.createNamespacedCustomObject(
      { group, version, namespace, plural, body: instance(name, { wrong: 1 }), fieldValidation });
    const said = await refused(400, () => make('strict', 'Strict'));
    assert.match(said.message, /strict decoding error: unknown field "spec.wrong"/);
    assert.equal((await make('ignored', 'Ignore')).spec.wrong, undefined);
  },

  async 'dry run'() {
    await core.createNamespacedConfigMap({ namespace, body: configMap('dry'), dryRun: 'All' });
    await refused(404, () => core.readNamespacedConfigMap({ name: 'dry', namespace }));
  },

  async finalizers() {
    const held = { ...configMap('held'), metadata: { name: 'held', finalizers: ['gantry.dev/hold'] } };
    await core.createNamespacedConfigMap({ namespace, body: held });
    await core.deleteNamespacedConfigMap({ name: 'held', namespace });
    assert.ok((await core.readNamespacedConfigMap({ name: 'held', namespace })).metadata.deletionTimestamp);
    const body = { metadata: { finalizers: null } };
    await core.patchNamespacedConfigMap({ name: 'held', namespace, body }, as(k8s.PatchStrategy.MergePatch));
    await refused(404, () => core.readNamespacedConfigMap({ name: 'held', namespace }));
  },

  async 'delete: foreground'() {
    const owner = await core.createNamespacedConfigMap({ namespace, body: configMap('fore') });
    const child = configMap('fore-child');
    child.metadata.ownerReferences = [
      { apiVersion: 'v1', kind: 'ConfigMap', name: 'fore', uid: owner.metadata.uid, blockOwnerDeletion: true }];
    await core.createNamespacedConfigMap({ namespace, body: child });
    await core.deleteNamespacedConfigMap({ name: 'fore', namespace, propagationPolicy: 'Foreground' });
    await eventually('both to go', async () => !names((await core.listNamespacedConfigMap({ namespace })).items)
      .some((name) => name.startsWith('fore')));
  },

  async 'delete: collection'() {
    for (const name of ['m-1', 'm-2']) {
      await core.createNamespacedConfigMap({ namespace, body: configMap(name, {}, { many: 'yes' }) });
    }
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'many' });
    assert.deepEqual((await core.listNamespacedConfigMap({ namespace, labelSelector: 'many' })).items, []);
  },

  async 'leader election'() {
    const leases = config.makeApiClient(k8s.CoordinationV1Api);
    const spec = { holderIdentity: 'a', leaseDurationSeconds: 15, renewTime: new k8s.V1MicroTime() };
    const made = await leases.createNamespacedLease({ namespace, body: { metadata: { name: 'l' }, spec } });
    made.spec.holderIdentity = 'b';
    await leases.replaceNamespacedLease({ name: 'l', namespace, body: made });
  },
};

for (const [name, claim] of Object.entries(cases)) {
  try {
    await claim();
    console.log(`ok\t${name}`);
  } catch (error) {
    const line = /cases\.mjs:(\d+)/.exec(error.stack ?? '')?.[1] ?? '?';
    const why = error.body ? `${error.code} ${JSON.stringify(error.body)}` : String(error.message ?? error);
    console.log(`FAIL\t${name}\tline ${line}: ${why.replace(/\s+/g, ' ')}`);
  }
}
