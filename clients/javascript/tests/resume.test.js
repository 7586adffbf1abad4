import assert from "node:assert/strict";
import { test } from "node:test";

import { memoryStore, OrchestratorClient } from "../orchestrator-client.js";
import { answer, opened, record, SESSION, TENANT, until, withClient } from "./support/service.js";

const offsets = (events) => events.map(({ offset }) => offset);
const upTo = (count) => Array.from({ length: count }, (_, index) => index + 1);
const fill = (service, count) => {
  for (const n of upTo(count)) service.add("agent_delta", { text: `${n} ` }, { task_id: "t" });
};

test("the first connection asks for all that is kept, compacted", async () => {
  await withClient({ userId: "u-1", token: "abc" }, async (service, client) => {
    client.connect();
    await opened(client);
    const [{ pathname, query, headers }] = service.upgrades;
    assert.equal(pathname, `/ws/${TENANT}/${SESSION}`);
    assert.deepEqual(Object.fromEntries(query), {
      compact: "1",
      close_codes: "1",
      user_id: "u-1",
      offset: "0",
    });
    assert.equal(headers["sec-websocket-protocol"], "orchestrator.v1, bearer, abc");
  });
});

test("each event is told once although the connection is cut after every frame", async () => {
  await withClient({}, async (service, client) => {
    const told = record(client, "event");
    fill(service, 30);
    service.outgoing = (socket, frame) => {
      socket.send(frame);
      socket.socket.end();
    };
    client.connect();
    await until(client, () => told.length === 30);
    assert.deepEqual(offsets(told), upTo(30));
    assert.ok(service.upgrades.length >= 30);
  });
});

test("a frame cut in its middle is told once, and whole", async () => {
  await withClient({}, async (service, client) => {
    const told = record(client, "event");
    fill(service, 10);
    const cut = new Set();
    service.outgoing = (socket, frame) => {
      if (cut.has(frame.offset)) return socket.send(frame);
      cut.add(frame.offset);
      return socket.sendHalfAndCut(frame);
    };
    client.connect();
    await until(client, () => told.length === 10);
    assert.deepEqual(offsets(told), upTo(10));
  });
});

test("whatever is cut, doubled or left out, each event is told once, in order", async () => {
  for (let seed = 1; seed <= 25; seed += 1) {
    const random = generator(seed);
    await withClient({ random }, async (service, client) => {
      const told = record(client, "event");
      service.outgoing = (socket, frame) => {
        const chance = random();
        if (chance < 0.1) return socket.cut();
        if (chance < 0.2) return socket.sendHalfAndCut(frame);
        if (chance < 0.25) return undefined;
        socket.send(frame);
        if (chance < 0.35) socket.send(frame);
        return undefined;
      };
      fill(service, 20);
      client.connect();
      await until(client, () => told.length >= 5);
      fill(service, 20);
      // A frame left out at the very end is only missed when something follows.
      const nudge = setInterval(() => service.add("task_update", { status: "running" }), 5);
      await until(client, () => told.length >= 45);
      clearInterval(nudge);
      assert.deepEqual(offsets(told), upTo(told.length), `seed ${seed}`);
    });
  }
});

test("a joined frame stands for all the offsets it names", async () => {
  await withClient({}, async (service, client) => {
    const told = record(client, "event");
    fill(service, 5);
    service.onConnect = (socket) => {
      socket.send(service.ack(true, 5));
      socket.send({ ...service.events[3], from_offset: 1, data: { text: "1 2 3 4 " } });
      socket.send(service.events[4]);
      return true;
    };
    client.connect();
    await until(client, () => told.length === 2);
    assert.deepEqual(offsets(told), [4, 5]);
    assert.equal(client.position.offset, 5);
    assert.equal(service.upgrades.length, 1);
  });
});

test("a hole is noticed, and what is missing is asked for from the last good offset", async () => {
  await withClient({}, async (service, client) => {
    const told = record(client, "event");
    fill(service, 6);
    service.outgoing = (socket, frame) => {
      if (service.upgrades.length > 1 || frame.offset !== 4) socket.send(frame);
    };
    client.connect();
    await until(client, () => told.length === 6);
    assert.deepEqual(offsets(told), upTo(6));
    assert.equal(service.upgrades[1].query.get("offset"), "3");
    assert.equal(service.upgrades[1].query.get("epoch"), "epoch-1");
  });
});

test("a joined frame that overlaps what was told is asked for again, not told in part", async () => {
  await withClient({}, async (service, client) => {
    const told = record(client, "event");
    fill(service, 4);
    service.onConnect = (socket, _query, count) => {
      if (count > 1) return false;
      socket.send(service.ack(true, 4));
      socket.send(service.events[0]);
      socket.send({ ...service.events[2], from_offset: 1, data: { text: "1 2 3 " } });
      return true;
    };
    client.connect();
    await until(client, () => told.length === 4);
    assert.deepEqual(told.map(({ data }) => data.text).join(""), "1 2 3 4 ");
    assert.equal(service.upgrades[1].query.get("offset"), "1");
  });
});

test("with a stored position the client goes on where an earlier one ended", async () => {
  const store = memoryStore();
  await withClient({ store }, async (service, client) => {
    const told = record(client, "event");
    store.savePosition({ epoch: "epoch-1", offset: 3 });
    fill(service, 5);
    const { url } = service;
    const later = new OrchestratorClient({ url, tenant: TENANT, session: SESSION, store });
    const toldLater = record(later, "event");
    later.connect();
    await until(later, () => toldLater.length === 2);
    later.close();
    assert.deepEqual(offsets(toldLater), [4, 5]);
    assert.deepEqual(store.load().position, { epoch: "epoch-1", offset: 5 });
    assert.deepEqual(told, []);
  });
});

test("a client that begins live is told nothing old, and no gap", async () => {
  await withClient({ from: "live" }, async (service, client) => {
    const told = record(client, "event");
    const gaps = record(client, "gap");
    fill(service, 3);
    client.connect();
    await opened(client);
    assert.equal(service.upgrades[0].query.has("offset"), false);
    service.add("agent_delta", { text: "new" }, { task_id: "t" });
    await until(client, () => told.length === 1);
    service.cutAll();
    await until(client, () => client.state.name === "waiting");
    service.add("agent_delta", { text: "newer" }, { task_id: "t" });
    await until(client, () => told.length === 2);
    assert.deepEqual(offsets(told), [4, 5]);
    assert.deepEqual(gaps, []);
  });
});

test("a log that was trimmed before the first connection is told from its oldest event", async () => {
  await withClient({}, async (service, client) => {
    const gaps = record(client, "gap");
    const told = record(client, "event");
    fill(service, 8);
    service.oldest = 5;
    client.connect();
    await until(client, () => told.length === 4);
    assert.deepEqual(gaps, [{ from: 1, to: 4 }]);
    assert.deepEqual(offsets(told), [5, 6, 7, 8]);
  });
});

test("trimmed past our offset: the gap is told, then the rest, then what came meanwhile", async () => {
  await withClient({}, async (service, client) => {
    const order = [];
    client.on("gap", (gap) => order.push(gap));
    client.on("event", ({ offset }) => order.push(offset));
    fill(service, 2);
    client.connect();
    await until(client, () => order.length === 2);
    service.onConnect = (socket, query) => {
      service.onConnect = () => false;
      fill(service, 8);
      service.oldest = 6;
      service.greet(socket, query);
      return true;
    };
    service.pageSize = 2;
    service.onHistory = async () => {
      if (service.historyRequests.length === 1) fill(service, 2); // live, during the load
      return false;
    };
    service.cutAll();
    await until(client, () => order.at(-1) === 12);
    assert.deepEqual(order, [1, 2, { from: 3, to: 5 }, 6, 7, 8, 9, 10, 11, 12]);
    assert.ok(service.historyRequests.length > 2);
    assert.equal(service.upgrades.length, 2, "live events waited; none was taken for a hole");
    assert.equal(service.historyRequests[0].pathname, `/api/sessions/${TENANT}/${SESSION}/events`);
    await opened(client);
  });
});

test("a log that began anew resets the reader and is told from its beginning", async () => {
  await withClient({}, async (service, client) => {
    const order = [];
    client.on("reset", ({ epoch }) => order.push(epoch));
    client.on("event", ({ offset }) => order.push(offset));
    fill(service, 3);
    client.connect();
    await until(client, () => order.length === 3);
    service.onConnect = () => {
      service.onConnect = () => false;
      fill(service, 2);
      return false;
    };
    service.beginAnew("epoch-2");
    await until(client, () => order.length === 6);
    service.add("agent_delta", { text: "live" }, { task_id: "t" });
    await until(client, () => order.length === 7);
    assert.deepEqual(order, [1, 2, 3, "epoch-2", 1, 2, 3]);
    assert.deepEqual(client.position, { epoch: "epoch-2", offset: 3 });
  });
});

test("a log that lost its end under the same epoch is read from its beginning", async () => {
  await withClient({}, async (service, client) => {
    const resets = record(client, "reset");
    const told = record(client, "event");
    fill(service, 5);
    client.connect();
    await until(client, () => told.length === 5);
    service.events.length = 3;
    service.cutAll();
    await until(client, () => told.length === 8);
    assert.deepEqual(offsets(told), [1, 2, 3, 4, 5, 1, 2, 3]);
    assert.equal(resets.length, 1);
  });
});

test("a log that begins anew while it is being read is asked for from nothing", async () => {
  await withClient({}, async (service, client) => {
    const told = record(client, "event");
    fill(service, 3);
    client.connect();
    await until(client, () => told.length === 3);
    service.onHistory = async (_query, response) => {
      service.onHistory = async () => false;
      answer(response, 409, { code: "epoch_changed", detail: "the log began anew" });
      service.epoch = "epoch-3";
      return true;
    };
    service.beginAnew("epoch-2");
    fill(service, 2);
    await until(client, () => told.length === 5);
    assert.deepEqual(client.position, { epoch: "epoch-3", offset: 2 });
    const asked = service.upgrades.at(-1).query;
    assert.deepEqual([asked.get("offset"), asked.get("epoch")], ["0", null]);
  });
});

test("a history that cannot be read is tried again, and nothing is told twice", async () => {
  await withClient({}, async (service, client) => {
    const told = record(client, "event");
    fill(service, 2);
    client.connect();
    await until(client, () => told.length === 2);
    service.onHistory = async (_query, response) => {
      if (service.historyRequests.length > 3) return false;
      answer(response, 503, { code: "redis_unavailable" });
      return true;
    };
    service.onConnect = () => {
      service.onConnect = () => false;
      fill(service, 6);
      service.oldest = 5;
      return false;
    };
    service.cutAll();
    await until(client, () => told.length === 6);
    assert.deepEqual(offsets(told), [1, 2, 5, 6, 7, 8]);
    assert.equal(service.historyRequests.length, 4);
  });
});

/** A small seeded generator (mulberry32), so that a failure can be repeated. */
function generator(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
