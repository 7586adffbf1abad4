import assert from "node:assert/strict";
import { test } from "node:test";

import { ConnectionRefused } from "../orchestrator-client.js";
import { opened, record, until, withClient } from "./support/service.js";

const closeFirstWith = (service, code, reason) => {
  service.onConnect = (socket, _query, count) => count === 1 && (socket.close(code, reason), true);
};

for (const code of [1000, 1001, 1006, 1011, 1012, 1013, 4008, 4408, 4410, 4413, 4429, 4500]) {
  test(`closed with ${code}, the client comes back by itself`, async () => {
    await withClient({}, async (service, client) => {
      const states = record(client, "state");
      if (code === 1006) {
        service.onConnect = (socket, _query, count) => count === 1 && (socket.cut(), true);
      } else closeFirstWith(service, code);
      client.connect();
      await opened(client);
      const waited = states.find(({ name }) => name === "waiting");
      assert.equal(waited.code, code);
      assert.equal(service.upgrades.length, 2);
    });
  });
}

for (const code of [4400, 4401, 4403]) {
  test(`closed with ${code}, the client stops and says so`, async () => {
    await withClient({}, async (service, client) => {
      closeFirstWith(service, code, "no");
      const sent = client.send("hello", { agentId: "echo" });
      client.connect();
      await assert.rejects(sent, ConnectionRefused);
      assert.deepEqual(client.state, { name: "stopped", code, reason: "no" });
      client.connect(); // when whoever uses it has put it right
      await opened(client);
    });
  });
}

test("a limit that was reached is given more time than a lost connection", async () => {
  const pace = { base: 1, cap: 1, slowBase: 40, slowCap: 40 };
  await withClient({ pace }, async (service, client) => {
    const states = record(client, "state");
    closeFirstWith(service, 4429);
    client.connect();
    await opened(client);
    const { retryInMs } = states.find(({ name }) => name === "waiting");
    assert.ok(retryInMs >= 20 && retryInMs <= 40, `${retryInMs}`);
  });
});

test("a draining instance says when to come back, and is obeyed", async () => {
  await withClient({}, async (service, client) => {
    const states = record(client, "state");
    const connectedAt = [];
    service.onConnect = (socket, query, count) => {
      connectedAt.push(Date.now());
      service.greet(socket, query);
      if (count === 1) {
        socket.send({ type: "reconnect", data: { after_ms: 120, reason: "draining" } });
        setTimeout(() => socket.close(1012), 20);
      }
      return true;
    };
    client.connect();
    await until(client, () => client.state.name === "waiting");
    assert.ok(client.state.retryInMs <= 120);
    await opened(client);
    const [first, second] = connectedAt;
    assert.ok(second - first >= 119, "not before its time, but for the timers' millisecond");
    assert.equal(states.filter(({ name }) => name === "waiting").length, 1);
  });
});

test("a draining instance that never closes is left when the time has come", async () => {
  await withClient({}, async (service, client) => {
    service.onConnect = (socket, query, count) => {
      service.greet(socket, query);
      if (count === 1) socket.send({ type: "reconnect", data: { after_ms: 10 } });
      return true;
    };
    client.connect();
    await until(client, () => service.upgrades.length === 2 && client.state.name === "open");
  });
});

test("a server that says nothing in time is left", async () => {
  await withClient({ openTimeout: 20 }, async (service, client) => {
    const states = record(client, "state");
    service.onConnect = (_socket, _query, count) => count === 1;
    client.connect();
    await opened(client);
    assert.equal(states.find(({ name }) => name === "waiting").code, 4408);
  });
});

test("a half-open connection is noticed by a ping without a pong", async () => {
  await withClient({ pingInterval: 15, pongTimeout: 25 }, async (service, client) => {
    const states = record(client, "state");
    service.onFrame = () => service.upgrades.length === 1; // deaf on the first connection
    client.connect();
    await until(client, () => service.upgrades.length === 2 && client.state.name === "open");
    assert.equal(states.find(({ name }) => name === "waiting").code, 4408);
    assert.ok(service.frames.every(({ type, id }) => type === "ping" && id.length === 36));
  });
});

test("answered pings keep a quiet connection", async () => {
  await withClient({ pingInterval: 5, pongTimeout: 10_000 }, async (service, client) => {
    const notices = record(client, "notice");
    service.onFrame = (socket) => {
      if (service.frames.length === 10) socket.send({ type: "broadcast", data: {} });
      return false;
    };
    client.connect();
    await until(client, () => notices.length === 1);
    assert.equal(service.upgrades.length, 1);
  });
});

test("a page that nobody watches is not pinged for, and is looked at when it is shown", async () => {
  const document = Object.assign(new EventTarget(), { visibilityState: "hidden" });
  await withClient({ document, pingInterval: 1 }, async (service, client) => {
    client.connect();
    await opened(client);
    // Messages go to and fro while many ping intervals pass.
    const end = performance.now() + 40;
    while (performance.now() < end) await client.send("hello", { agentId: "echo" });
    assert.equal(service.frames.filter(({ type }) => type === "ping").length, 0);
    const pinged = new Promise((resolve) => {
      service.onFrame = (_socket, { type }) => type === "ping" && (resolve(), false);
    });
    document.visibilityState = "visible";
    document.dispatchEvent(new Event("visibilitychange"));
    await pinged;
  });
});

test("back online, the client does not wait out its delay", async () => {
  const window = new EventTarget();
  const pace = { base: 3_600_000, cap: 3_600_000 };
  await withClient({ window, pace, random: () => 1 }, async (service, client) => {
    client.connect();
    await opened(client);
    service.cutAll();
    await until(client, () => client.state.name === "waiting");
    window.dispatchEvent(new Event("offline"));
    assert.equal(client.state.name, "waiting");
    window.dispatchEvent(new Event("online"));
    await opened(client);
  });
});

test("back online, a client that was asked for patience stays patient", async () => {
  const window = new EventTarget();
  const pace = { slowBase: 3_600_000, slowCap: 3_600_000 };
  await withClient({ window, pace }, async (service, client) => {
    closeFirstWith(service, 4429);
    client.connect();
    await until(client, () => client.state.name === "waiting");
    window.dispatchEvent(new Event("online"));
    assert.equal(client.state.name, "waiting");
  });
});

test("a frame that is no JSON object ends the connection, and the client comes back", async () => {
  await withClient({}, async (service, client) => {
    service.onConnect = (socket, _query, count) => count === 1 && (socket.send("just text"), true);
    client.connect();
    await opened(client);
    assert.equal(service.upgrades.length, 2);
  });
});

test("a closed client stays closed", async () => {
  await withClient({}, async (service, client) => {
    client.connect();
    await opened(client);
    client.close();
    client.close();
    assert.equal(client.state.name, "closed");
    assert.equal(service.upgrades.length, 1);
  });
});

test("the token is asked for at every connection", async () => {
  let asked = 0;
  const token = async () => `token-${(asked += 1)}`;
  await withClient({ token }, async (service, client) => {
    closeFirstWith(service, 4500);
    client.connect();
    await opened(client);
    const offered = service.upgrades.map(({ headers }) => headers["sec-websocket-protocol"]);
    assert.deepEqual(offered, ["orchestrator.v1, bearer, token-1", "orchestrator.v1, bearer, token-2"]);
  });
});

test("a token that has expired is replaced, and the conversation goes on", async () => {
  let asked = 0;
  await withClient({ token: () => `token-${(asked += 1)}` }, async (service, client) => {
    const states = record(client, "state");
    service.onConnect = (socket, query, count) => {
      service.greet(socket, query);
      if (count === 1) setTimeout(() => socket.close(4401, "the token has expired"), 5);
      return true;
    };
    client.connect();
    await until(client, () => service.upgrades.length === 2 && client.state.name === "open");
    assert.equal(states.find(({ name }) => name === "waiting").code, 4401);
    assert.equal(asked, 2);
  });
});

test("a token that is refused is asked for no second time", async () => {
  let asked = 0;
  await withClient({ token: () => `token-${(asked += 1)}` }, async (service, client) => {
    service.onConnect = (socket) => (socket.close(4401, "no"), true);
    client.connect();
    await until(client, () => client.state.name === "stopped");
    assert.equal(asked, 1);
    assert.equal(service.upgrades.length, 1);
  });
});

test("a token that expires and is always the same stops the client", async () => {
  await withClient({ token: "abc" }, async (service, client) => {
    service.onConnect = (socket, query) => {
      service.greet(socket, query);
      setTimeout(() => socket.close(4401, "the token has expired"), 5);
      return true;
    };
    client.connect();
    await until(client, () => client.state.name === "stopped");
    assert.equal(service.upgrades.length, 1);
  });
});

test("a key that cannot be a subprotocol is told by the query", async () => {
  await withClient({ token: "a/key==" }, async (service, client) => {
    client.connect();
    await opened(client);
    const [{ query, headers }] = service.upgrades;
    assert.equal(query.get("token"), "a/key==");
    assert.equal(headers["sec-websocket-protocol"], "orchestrator.v1");
  });
});
