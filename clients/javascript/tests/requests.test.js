import assert from "node:assert/strict";
import { test } from "node:test";

import {
  ClientClosed,
  memoryStore,
  OrchestratorClient,
  OutboxFull,
  RequestRefused,
  ServiceUnavailable,
} from "../orchestrator-client.js";
import { opened, record, SESSION, TENANT, until, withClient } from "./support/service.js";

const sends = (service) => service.frames.filter(({ type }) => type === "chat.send_message");
const ids = (frames) => new Set(frames.map(({ id }) => id));
const refuse = (socket, frame, code, more = {}) =>
  socket.send({ type: "error", id: frame.id, data: { code, message: code, ...more } });

test("a message is answered with its task, and its event names the message", async () => {
  await withClient({}, async (service, client) => {
    const told = record(client, "event");
    client.connect();
    const sent = client.send("hello", { agentId: "echo", priority: "high", context: { a: 1 } });
    const { task_id: task } = await sent;
    await until(client, () => told.length === 1);
    const [{ id, data }] = sends(service);
    assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.deepEqual(data, {
      agent_id: "echo",
      message: "hello",
      context: { a: 1 },
      priority: "high",
      metadata: { client_message_id: id },
    });
    assert.equal(told[0].task_id, task);
    assert.equal(told[0].metadata.client_message_id, id);
  });
});

test("a message sent before there is a connection goes out with the first one", async () => {
  await withClient({}, async (service, client) => {
    const sent = client.send("early", { agentId: "echo" });
    client.connect();
    await sent;
    assert.equal(service.tasks.size, 1);
  });
});

test("a cut before the answer: the same id is sent again, and there is one task", async () => {
  await withClient({}, async (service, client) => {
    service.onFrame = (socket, frame) => {
      if (frame.type !== "chat.send_message" || sends(service).length > 3) return false;
      if (sends(service).length > 1) service.take(frame); // taken, but no one hears of it
      socket.cut();
      return true;
    };
    client.connect();
    const answer = await client.send("once", { agentId: "echo" });
    assert.equal(sends(service).length, 4);
    assert.equal(ids(sends(service)).size, 1);
    assert.deepEqual([...service.tasks.values()], [answer]);
  });
});

test("what waits is sent in its order", async () => {
  await withClient({}, async (service, client) => {
    const sent = ["a", "b", "c"].map((text) => client.send(text, { agentId: "echo" }));
    client.connect();
    await Promise.all(sent);
    assert.deepEqual(sends(service).map(({ data }) => data.message), ["a", "b", "c"]);
  });
});

test("a refusal rejects with its code, and is not sent again", async () => {
  await withClient({}, async (service, client) => {
    service.onFrame = (socket, frame) =>
      frame.type === "chat.send_message" &&
      (refuse(socket, frame, "validation_failed", { errors: { message: ["too long"] } }), true);
    client.connect();
    await assert.rejects(client.send("x", { agentId: "echo" }), (error) => {
      assert.ok(error instanceof RequestRefused);
      assert.equal(error.code, "validation_failed");
      assert.deepEqual(error.errors, { message: ["too long"] });
      return true;
    });
    service.cutAll();
    await until(client, () => client.state.name === "waiting");
    await opened(client);
    assert.equal(sends(service).length, 1);
  });
});

test("not now is tried again under the same id, on the same connection", async () => {
  await withClient({}, async (service, client) => {
    service.onFrame = (socket, frame) => {
      if (sends(service).length > 3) return false;
      refuse(socket, frame, "redis_unavailable");
      return true;
    };
    client.connect();
    await client.send("later", { agentId: "echo" });
    assert.equal(sends(service).length, 4);
    assert.equal(ids(sends(service)).size, 1);
    assert.equal(service.upgrades.length, 1);
  });
});

test("not now for ever ends, and says that it was the service", async () => {
  await withClient({}, async (service, client) => {
    service.onFrame = (socket, frame) => (refuse(socket, frame, "overloaded"), true);
    client.connect();
    await assert.rejects(client.send("never", { agentId: "echo" }), ServiceUnavailable);
    assert.equal(sends(service).length, 10);
  });
});

test("the outbox is bounded, and what it refuses it has not taken", async () => {
  await withClient({ maxOutbox: 2 }, async (service, client) => {
    const sent = [client.send("1", { agentId: "echo" }), client.send("2", { agentId: "echo" })];
    await assert.rejects(client.send("3", { agentId: "echo" }), OutboxFull);
    client.connect();
    await Promise.all(sent);
    await client.send("4", { agentId: "echo" });
    assert.equal(service.tasks.size, 3);
  });
});

test("a frame larger than the service takes is refused here, and costs no connection", async () => {
  await withClient({}, async (service, client) => {
    service.onConnect = (socket) => {
      const ack = service.ack(true, 0);
      socket.send({ ...ack, data: { ...ack.data, max_message_bytes: 500 } });
      return true;
    };
    client.connect();
    const large = client.send("é".repeat(300), { agentId: "echo" });
    await assert.rejects(large, { code: "payload_too_large" });
    assert.equal(service.upgrades.length, 1);
    assert.deepEqual(service.frames, []);
  });
});

test("a close over a frame too large gives up the largest message only", async () => {
  await withClient({}, async (service, client) => {
    service.onFrame = (socket, frame) =>
      frame.data?.message?.length > 100 && (socket.close(1009), true);
    const large = client.send("x".repeat(200), { agentId: "echo" });
    const small = client.send("small", { agentId: "echo" });
    client.connect();
    await assert.rejects(large, { code: "payload_too_large" });
    await small;
  });
});

test("cancel and status name the task, and give the answer", async () => {
  await withClient({}, async (service, client) => {
    service.onFrame = (socket, { type, id, data }) => {
      const task_id = data?.task_id;
      if (type === "chat.cancel_task") {
        socket.send({ type: "ack", id, data: { task_id, status: "cancelling" } });
      } else if (type === "chat.get_status") {
        socket.send({ type: "ack", id, data: { task_id, status: "running", progress: 5 } });
      }
      return true;
    };
    client.connect();
    assert.deepEqual(await client.cancel("t-1", "enough"), { task_id: "t-1", status: "cancelling" });
    assert.equal((await client.status("t-1")).progress, 5);
    assert.deepEqual(service.frames[0].data, { task_id: "t-1", reason: "enough" });
    assert.deepEqual(service.frames[1].data, { task_id: "t-1" });
  });
});

test("a cancel of a finished task is a typed refusal", async () => {
  await withClient({}, async (service, client) => {
    service.onFrame = (socket, frame) => (refuse(socket, frame, "task_already_finished"), true);
    client.connect();
    await assert.rejects(client.cancel("t-1"), { name: "RequestRefused", code: "task_already_finished" });
  });
});

test("a cancel without an answer is asked again after the cut", async () => {
  await withClient({}, async (service, client) => {
    service.onFrame = (socket, { id, data }) => {
      if (service.frames.length === 1) socket.cut();
      else socket.send({ type: "ack", id, data: { ...data, status: "cancelling" } });
      return true;
    };
    client.connect();
    assert.equal((await client.cancel("t-1")).status, "cancelling");
    assert.equal(ids(service.frames).size, 1);
  });
});

test("messages that a closed client leaves are sent by the next one, under their ids", async () => {
  const store = memoryStore();
  await withClient({ store }, async (service, client) => {
    service.onFrame = (_socket, frame) => {
      service.take(frame); // and the answer never comes
      return true;
    };
    client.connect();
    const lost = client.send("reload me", { agentId: "echo" });
    await until(client, () => service.tasks.size === 1 || !client.state);
    client.close();
    await assert.rejects(lost, ClientClosed);

    service.onFrame = () => false;
    const { url } = service;
    const next = new OrchestratorClient({ url, tenant: TENANT, session: SESSION, store });
    const changes = record(next, "outbox");
    next.connect();
    await until(next, () => changes.at(-1)?.status === "accepted");
    next.close();
    assert.deepEqual(changes.map(({ status }) => status), ["sending", "accepted"]);
    assert.equal(service.tasks.size, 1);
    assert.equal(ids(sends(service)).size, 1);
    assert.deepEqual(store.load().outbox, []);
  });
});

test("the same client goes on with its messages after close and connect", async () => {
  await withClient({}, async (service, client) => {
    const sent = client.send("patient", { agentId: "echo" });
    client.connect();
    client.close();
    await assert.rejects(sent, ClientClosed);
    const changes = record(client, "outbox");
    client.connect();
    await until(client, () => changes.at(-1)?.status === "accepted");
    assert.equal(service.tasks.size, 1);
  });
});

test("an id sent twice at once is one request", async () => {
  await withClient({}, async (service, client) => {
    const id = "0123456789abcdef";
    const sent = [1, 2].map(() => client.send("twin", { agentId: "echo", id }));
    client.connect();
    const [one, other] = await Promise.all(sent);
    assert.deepEqual(one, other);
    assert.equal(sends(service).length, 1);
    await assert.rejects(client.send("short", { agentId: "echo", id: "short" }), RangeError);
  });
});

test("an error frame that answers nothing is told as a problem", async () => {
  await withClient({}, async (service, client) => {
    const problems = record(client, "problem");
    service.onConnect = (socket, query) => {
      service.greet(socket, query);
      socket.send({ type: "error", data: { code: "bad_request", message: "what?" } });
      return true;
    };
    client.connect();
    await until(client, () => problems.length === 1);
    assert.equal(problems[0].code, "bad_request");
    assert.equal(client.state.name, "open");
  });
});

test("what is told but not kept arrives as a notice", async () => {
  await withClient({}, async (service, client) => {
    const notices = record(client, "notice");
    service.onConnect = (socket, query) => {
      service.greet(socket, query);
      socket.send({ type: "typing_indicator", task_id: "t", data: { agent_id: "echo" } });
      socket.send({ type: "broadcast", data: { text: "hello all" } });
      return true;
    };
    client.connect();
    await until(client, () => notices.length === 2);
    assert.deepEqual(notices.map(({ type }) => type), ["typing_indicator", "broadcast"]);
  });
});
