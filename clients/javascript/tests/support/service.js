/**
 * A service of one session, small enough to be made to misbehave: it keeps a log, resumes,
 * takes messages idempotently and answers the events endpoint, over real sockets. What a test
 * wants to go wrong it puts into `onConnect`, `onFrame`, `outgoing` and `onHistory`.
 */

import { once } from "node:events";
import { createServer } from "node:http";
import { randomUUID } from "node:crypto";

import { OrchestratorClient } from "../../orchestrator-client.js";
import { ServerSocket } from "./websocket.js";

export const TENANT = "acme";
export const SESSION = "s-1";
const LIVES = 1;

export class Service {
  epoch = "epoch-1";
  events = [];
  oldest = 1;
  connections = new Set();
  /** Queries of all upgrades, client frames and history requests so far. */
  upgrades = [];
  frames = [];
  historyRequests = [];
  tasks = new Map();

  /** May answer an upgrade by itself; then it returns true. */
  onConnect = (_socket, _query, _count) => false;
  /** May answer a client frame by itself; then it returns true. */
  onFrame = (_socket, _frame) => false;
  /** Sends an event to a socket; a test may cut here. */
  outgoing = (socket, frame) => socket.send(frame);
  /** Runs before a page of history is answered; may answer itself and return true. */
  onHistory = async (_query, _response) => false;

  async start() {
    this.server = createServer((request, response) => this.#history(request, response));
    this.server.on("upgrade", (request, socket) => this.#upgrade(request, socket));
    this.server.listen(0, "127.0.0.1");
    await once(this.server, "listening");
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  async stop() {
    for (const socket of this.connections) socket.cut();
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, "close");
  }

  cutAll() {
    for (const socket of [...this.connections]) socket.cut();
  }

  get last() {
    return this.events.length;
  }

  add(type, data = {}, more = {}) {
    const offset = this.last + 1;
    const frame = { type, data, tenant_id: TENANT, session_id: SESSION, offset, ...more };
    this.events.push(frame);
    for (const socket of this.connections) if (socket.life === LIVES) this.outgoing(socket, frame);
    return frame;
  }

  /** As when the log expires under its connections. */
  beginAnew(epoch) {
    this.epoch = epoch;
    this.events = [];
    this.oldest = 1;
    for (const socket of [...this.connections]) socket.close(4410);
  }

  ack(recovered, replayed) {
    const data = { epoch: this.epoch, offset: this.last, recovered, replayed };
    return { type: "connection_ack", data: { ...data, ping_interval: 30 } };
  }

  greet(socket, query) {
    const { recovered, after } = this.#plan(query);
    const replay = this.events.slice(Math.max(after, this.oldest - 1));
    socket.send(this.ack(recovered, replay.length));
    for (const frame of replay) if (!socket.socket.destroyed) this.outgoing(socket, frame);
    socket.life = LIVES;
  }

  #plan(query) {
    if (!query.has("offset")) return { recovered: false, after: this.last };
    const offset = Number(query.get("offset"));
    if (!query.has("epoch")) return { recovered: this.oldest === 1, after: 0 };
    const same = query.get("epoch") === this.epoch && offset <= this.last;
    const recovered = same && offset >= this.oldest - 1;
    return { recovered, after: recovered ? offset : this.last };
  }

  #upgrade(request, raw) {
    const socket = new ServerSocket(request, raw);
    const { pathname, searchParams } = new URL(request.url, this.url);
    this.upgrades.push({ pathname, query: searchParams, headers: request.headers });
    this.connections.add(socket);
    socket.onEnd = () => this.connections.delete(socket);
    socket.onText = (text) => this.#receive(socket, JSON.parse(text));
    if (!this.onConnect(socket, searchParams, this.upgrades.length)) {
      this.greet(socket, searchParams);
    }
  }

  #receive(socket, frame) {
    this.frames.push(frame);
    if (this.onFrame(socket, frame)) return;
    if (frame.type === "ping") socket.send({ type: "pong", id: frame.id, data: {} });
    if (frame.type === "chat.send_message") {
      socket.send({ type: "ack", id: frame.id, data: this.take(frame) });
    }
  }

  /** Takes a message as the real service does: the same id again is the same task. */
  take({ id, data }) {
    const known = this.tasks.get(id);
    if (known) return known;
    const task = { task_id: randomUUID(), status: "queued", session_id: SESSION };
    this.tasks.set(id, task);
    const { message, agent_id, metadata } = data;
    this.add("user_message", { message, agent_id }, { task_id: task.task_id, metadata });
    return task;
  }

  async #history(request, response) {
    const { pathname, searchParams: query } = new URL(request.url, this.url);
    this.historyRequests.push({ pathname, query });
    if (await this.onHistory(query, response)) return;
    if (query.get("epoch") !== this.epoch) return answer(response, 409, { code: "epoch_changed" });
    const after = Math.max(Number(query.get("offset")), this.oldest - 1);
    const events = this.events.slice(after, after + (this.pageSize ?? 1000));
    answer(response, 200, {
      epoch: this.epoch,
      events,
      next_offset: events.at(-1)?.offset ?? Number(query.get("offset")),
      last_offset: this.last,
      oldest_offset: this.last ? this.oldest : null,
    });
  }
}

export function answer(response, status, body) {
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(JSON.stringify(body));
}

/** Runs `body(service, client)`; the client is quick, and both are closed whatever happens. */
export async function withClient(options, body) {
  const service = await new Service().start();
  const client = new OrchestratorClient({
    url: service.url,
    tenant: TENANT,
    session: SESSION,
    pace: { base: 1, cap: 5, slowBase: 2, slowCap: 10 },
    ...options,
  });
  try {
    await body(service, client);
  } finally {
    client.close();
    await service.stop();
  }
}

/** All details of one type that the client tells, from now on. */
export function record(client, type) {
  const told = [];
  client.on(type, (detail) => told.push(detail));
  return told;
}

/** Resolves once `condition()` holds, looked at after whatever the client tells. */
export function until(client, condition) {
  return new Promise((resolve) => {
    const types = ["state", "event", "notice", "gap", "reset", "outbox", "problem"];
    const look = () => {
      if (!condition()) return;
      for (const type of types) client.removeEventListener(type, look);
      resolve();
    };
    for (const type of types) client.addEventListener(type, look);
    look();
  });
}

export const opened = (client) => until(client, () => client.state.name === "open");
