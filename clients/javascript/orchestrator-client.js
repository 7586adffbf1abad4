/**
 * A client of the Agent Orchestrator that a bad network cannot confuse.
 *
 *     const client = new OrchestratorClient({ tenant: "demo", session: "s-1" });
 *     client.on("event", (frame) => console.log(frame.offset, frame.type, frame.data));
 *     client.connect();
 *     const { task_id } = await client.send("Hello", { agentId: "echo" });
 *
 * Promises: every event of the session is told once and in order, across any number of
 * connections; where that is no longer possible, `gap` or `reset` says so first. A message that
 * was sent becomes exactly one task, or its promise is rejected.
 */

import { afterClose, delay } from "./backoff.js";
import { Cursor } from "./cursor.js";
import { ClientClosed, ConnectionRefused, isTemporary, OrchestratorError } from "./errors.js";
import { pagesAfter } from "./history.js";
import { newId } from "./ids.js";
import { Link, LOST } from "./link.js";
import { withDefaults } from "./options.js";
import { Outbox } from "./outbox.js";
import { Surroundings } from "./surroundings.js";

export * from "./errors.js";
export { newId } from "./ids.js";
export { memoryStore, webStore } from "./storage.js";

const MOST_BACKLOG = 10_000;
const STABLE_AFTER = 5_000;

/**
 * @typedef {"closed" | "connecting" | "catching_up" | "open" | "waiting" | "stopped"} StateName
 * @typedef {{name: StateName, attempt?: number, retryInMs?: number, code?: number,
 *   reason?: string}} State
 * @typedef {import("./link.js").Frame} Frame
 * @typedef {import("./options.js").Options} Options
 * @typedef {{id: string, data: object, status: "sending" | "accepted" | "refused",
 *   answer?: object, error?: OrchestratorError}} OutboxChange
 */

/**
 * Tells, as `CustomEvent`s, or through `on(type, listener)` with the detail alone:
 *
 * - `state` {State}: the connection's;
 * - `event` {Frame}: an event of the session's log, each once, in order;
 * - `notice` {Frame}: what is told but not kept: `typing_indicator`, a broadcast;
 * - `gap` {{from, to}}: these offsets are no longer kept; what follows comes after them;
 * - `reset` {{epoch}}: the log began anew; forget everything, all that is kept follows;
 * - `outbox` {OutboxChange}: a message is on its way, was taken, or was refused;
 * - `problem` {OrchestratorError}: an `error` frame that answers no request of ours.
 */
export class OrchestratorClient extends EventTarget {
  #options;
  #cursor;
  #outbox;
  /** @type {import("./storage.js").Request[]} what an earlier client could not finish */
  #restored;
  #around;
  #state = { name: "closed" };
  /** @type {Link | null} */
  #link = null;
  #asked = {};
  #greeted = false;
  #attempt = 0;
  #comeBackAt = 0;
  #maxBytes = Infinity;
  /** @type {Frame[] | null} live frames that wait until history is told */
  #backlog = null;
  #retryTimer = null;
  #stableTimer = null;
  #flushTimer = null;
  #farewellTimer = null;

  /** @param {Options} options */
  constructor(options) {
    super();
    this.#options = withDefaults(options);
    const { position, outbox } = this.#options.store.load();
    this.#cursor = new Cursor(position);
    this.#outbox = new Outbox(this.#options.maxOutbox);
    this.#restored = outbox;
    const { window, document } = this.#options;
    this.#around = new Surroundings(window, document, (hint) => this.#lookAtOnce(hint));
  }

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  /** Of the last event told. @returns {import("./cursor.js").Position | null} */
  get position() {
    return this.#cursor.position;
  }

  /**
   * @param {string} type
   * @param {(detail: any) => void} listener
   * @returns {() => void} stops listening
   */
  on(type, listener) {
    const wrapped = (event) => listener(event.detail);
    this.addEventListener(type, wrapped);
    return () => this.removeEventListener(type, wrapped);
  }

  /** Connects, and stays connected until `close()` or a refusal that is final. */
  connect() {
    if (!["closed", "stopped"].includes(this.#state.name)) return;
    this.#attempt = 0;
    this.#around.watch();
    for (const request of this.#restored.splice(0)) this.#mail(request).catch(() => {});
    this.#open();
  }

  /** Ends the connection. Messages without an answer are kept, for the next `connect()`. */
  close() {
    if (this.#state.name === "closed") return;
    this.#leave({ name: "closed" });
    this.#restored = this.#outbox.messages;
    this.#outbox.rejectAll(new ClientClosed());
  }

  /**
   * Sends a message to an agent. May be called at any time: what cannot be sent now is sent as
   * soon as there is a connection, and again after a loss, under the same id: the
   * Idempotency-Key, of 16 characters or more, by default a new UUID.
   *
   * @param {string} message
   * @param {{agentId: string, id?: string, userInfo?: object, context?: object,
   *   timeout?: number, priority?: "high" | "normal" | "low", ifBusy?: string,
   *   metadata?: object}} options
   * @returns {Promise<{task_id: string, status: string, created_at: string}>}
   * @throws {RequestRefused | ServiceUnavailable | OutboxFull | ConnectionRefused | ClientClosed}
   */
  async send(message, { agentId, id = newId(), metadata, ...rest }) {
    if (id.length < 16) throw new RangeError("an id below 16 characters is no Idempotency-Key");
    const data = withoutNothing({
      agent_id: agentId,
      message,
      user_info: rest.userInfo,
      context: rest.context,
      timeout: rest.timeout,
      priority: rest.priority,
      if_busy: rest.ifBusy,
      // So that every connection of the session can tell whose message the event is.
      metadata: { ...metadata, client_message_id: id },
    });
    return this.#mail({ id, type: "chat.send_message", data });
  }

  /** Asks for a task to be stopped. @returns {Promise<{task_id: string, status: string}>} */
  async cancel(taskId, reason) {
    const data = withoutNothing({ task_id: taskId, reason });
    return this.#mail({ id: newId(), type: "chat.cancel_task", data });
  }

  /** The body of `POST /api/chat/status`. @returns {Promise<object>} */
  async status(taskId) {
    return this.#mail({ id: newId(), type: "chat.get_status", data: { task_id: taskId } });
  }

  // ── requests ─────────────────────────────────────────────────────────────────────────────

  async #mail(request) {
    const answer = this.#outbox.add(request);
    const tell = (status, more) => {
      if (request.type !== "chat.send_message") return;
      this.#emit("outbox", { id: request.id, data: request.data, status, ...more });
    };
    this.#saveOutbox();
    tell("sending");
    this.#flush();
    try {
      const body = await answer;
      this.#saveOutbox();
      tell("accepted", { answer: body });
      return body;
    } catch (error) {
      // A closed client keeps its messages: they are still to be sent.
      if (!(error instanceof ClientClosed)) {
        this.#saveOutbox();
        tell("refused", { error });
      }
      throw error;
    }
  }

  #saveOutbox() {
    this.#options.store.saveOutbox([...this.#restored, ...this.#outbox.messages]);
  }

  #flush() {
    if (this.#greeted) this.#outbox.flush(this.#link, this.#maxBytes);
  }

  #refused({ id, data }) {
    const outcome = this.#outbox.refuse(id, data.code, data.message, data.errors);
    if (outcome === "unknown") {
      this.#emit("problem", new OrchestratorError(data.code, data.message, data.errors));
    } else if (isTemporary(data.code) && outcome !== "refused") {
      clearTimeout(this.#flushTimer);
      const wait = delay("soon", outcome + 1, this.#options.pace, this.#options.random);
      this.#flushTimer = setTimeout(() => this.#flush(), wait);
    }
  }

  // ── a connection's life ──────────────────────────────────────────────────────────────────

  async #open() {
    this.#setState({ name: "connecting", attempt: this.#attempt });
    const turn = this.#state;
    const token = await this.#token();
    if (this.#state !== turn) return; // closed, or opened anew, while the token was fetched
    this.#asked = this.#whereToBegin();
    this.#greeted = false;
    const link = new Link({
      WebSocket: this.#options.WebSocket,
      ...this.#address(token),
      openTimeout: this.#options.openTimeout,
      onFrame: (frame) => link === this.#link && this.#receive(frame),
      onEnd: (end) => link === this.#link && this.#ended(end),
    });
    this.#link = link;
  }

  async #token() {
    const { token } = this.#options;
    try {
      return typeof token === "function" ? await token() : token;
    } catch {
      return undefined; // the service then says what it thinks of no token
    }
  }

  #whereToBegin() {
    const position = this.#cursor.position;
    if (position) return position;
    return this.#options.from === "history" ? { offset: 0 } : {};
  }

  /** Where to connect, and what to offer there. A token is offered as a subprotocol if it can
   *  be one, else told by the query. */
  #address(token) {
    const { url, tenant, session, userId } = this.#options;
    const offered = token && SUBPROTOCOL.test(token);
    const query = new URLSearchParams(
      withoutNothing({
        compact: 1,
        close_codes: 1,
        user_id: userId,
        token: (!offered && token) || undefined,
        ...this.#asked,
      }),
    );
    return {
      url: `${url.replace(/^http/, "ws")}/ws/${path(tenant)}/${path(session)}?${query}`,
      protocols: ["orchestrator.v1", ...(offered ? ["bearer", token] : [])],
    };
  }

  #receive(frame) {
    if (frame.type === "connection_ack") this.#welcome(frame.data);
    else if (Number.isInteger(frame.offset)) this.#event(frame);
    else if (frame.type === "ack") this.#outbox.answer(frame.id, frame.data);
    else if (frame.type === "error") this.#refused(frame);
    else if (frame.type === "reconnect") this.#prepareToComeBack(frame.data);
    else if (frame.type !== "pong") this.#emit("notice", frame);
  }

  #welcome(ack) {
    const { pingInterval, pongTimeout } = this.#options;
    this.#greeted = true;
    this.#maxBytes = ack.max_message_bytes ?? Infinity;
    const interval = Math.min(pingInterval, (ack.ping_interval ?? Infinity) * 1000);
    this.#link.keepAlive(interval, pongTimeout, () => this.#around.watched);
    this.#stableTimer = setTimeout(() => (this.#attempt = 0), STABLE_AFTER);
    this.#flush();
    const { epoch, offset } = this.#asked;
    if (offset === undefined) this.#cursor.moveTo(ack.epoch, ack.offset);
    else if (epoch === undefined) this.#beginWithHistory(ack);
    else if (!ack.recovered) return this.#catchUp(ack);
    this.#savePosition();
    this.#setState({ name: "open" });
  }

  #beginWithHistory(ack) {
    const before = ack.recovered ? 0 : ack.offset - (ack.replayed ?? 0);
    this.#cursor.moveTo(ack.epoch, 0);
    this.#skipTo(before);
  }

  #event(frame) {
    if (this.#backlog === null) return this.#tell(frame);
    this.#backlog.push(frame);
    if (this.#backlog.length > MOST_BACKLOG) this.#link.end(LOST, "too much happened meanwhile");
  }

  #tell(frame) {
    const place = this.#cursor.place(frame);
    if (place === "hole") this.#link?.end(LOST, "a hole before an event");
    if (place !== "next") return;
    this.#cursor.advance(frame);
    this.#attempt = 0; // a connection that brings something forward was worth its while
    this.#emit("event", frame);
    this.#savePosition();
  }

  #prepareToComeBack({ after_ms: after = 0 }) {
    this.#comeBackAt = Date.now() + after;
    const link = this.#link;
    // The close follows by itself; if it does not, we go when it is time to come back.
    this.#farewellTimer = setTimeout(() => link.end(1012, "the instance drains"), after);
  }

  #ended({ code, reason }) {
    const link = this.#link;
    const greeted = this.#greeted;
    this.#link = null;
    this.#greeted = false;
    this.#backlog = null;
    clearTimeout(this.#stableTimer);
    clearTimeout(this.#farewellTimer);
    if (code === 1009) this.#outbox.refuseLargest(link);
    const hasExpired = code === 4401 && greeted && typeof this.#options.token === "function";
    const urgency = hasExpired ? "soon" : afterClose(code); // with another token
    if (urgency === "stop") return this.#stop(code, reason);
    const { pace, random } = this.#options;
    const wait = this.#comeBackAt
      ? Math.max(0, this.#comeBackAt - Date.now())
      : delay(urgency, this.#attempt, pace, random);
    this.#comeBackAt = 0;
    this.#attempt += 1;
    this.#setState({ name: "waiting", attempt: this.#attempt, retryInMs: wait, code, reason });
    this.#retryTimer = setTimeout(() => this.#open(), wait);
  }

  #stop(code, reason) {
    this.#leave({ name: "stopped", code, reason });
    this.#outbox.rejectAll(new ConnectionRefused(`closed_${code}`, reason || `code ${code}`));
  }

  #leave(state) {
    const link = this.#link;
    this.#link = null;
    this.#greeted = false;
    this.#backlog = null;
    this.#comeBackAt = 0;
    this.#around.unwatch();
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#stableTimer);
    clearTimeout(this.#flushTimer);
    clearTimeout(this.#farewellTimer);
    this.#setState(state);
    link?.end();
  }

  // ── what the log no longer gives by itself ───────────────────────────────────────────────

  async #catchUp(ack) {
    const link = this.#link;
    this.#backlog = [];
    this.#setState({ name: "catching_up" });
    // An offset beyond the log's end was lost with it: what we know did not happen there.
    const { epoch, offset } = this.#cursor;
    if (ack.epoch !== epoch || ack.offset < offset) this.#reset(ack.epoch);
    try {
      await this.#readHistory(link, ack.offset);
    } catch (error) {
      if (link !== this.#link) return;
      if (error.code === "epoch_changed") this.#cursor.forget();
      return link.end(LOST, `the history could not be read: ${error.message}`);
    }
    if (link === this.#link) this.#goLive(link);
  }

  async #readHistory(link, until) {
    const { url, tenant, session, fetch, openTimeout } = this.#options;
    const token = await this.#token();
    const pages = pagesAfter({
      fetch,
      url: `${url}/api/sessions/${path(tenant)}/${path(session)}/events`,
      headers: token ? { Authorization: `Bearer ${token}` } : {},
      ...this.#cursor.position,
      until,
      timeout: openTimeout,
    });
    for await (const { events, oldest } of pages) {
      if (link !== this.#link) return;
      this.#skipTo((oldest ?? 1) - 1);
      for (const frame of events) this.#tell(frame);
    }
    // What the log has lost up to here it will not bring back.
    if (link === this.#link) this.#skipTo(until);
  }

  #goLive(link) {
    const backlog = this.#backlog;
    this.#backlog = null;
    for (const frame of backlog) if (link === this.#link) this.#tell(frame);
    if (link === this.#link) this.#setState({ name: "open" });
  }

  #reset(epoch) {
    this.#cursor.moveTo(epoch, 0);
    this.#savePosition();
    this.#emit("reset", { epoch });
  }

  /** Gives up on the events up to `offset`, and says so, if there are any. */
  #skipTo(offset) {
    const from = this.#cursor.offset + 1;
    if (offset < from) return;
    this.#cursor.moveTo(this.#cursor.epoch, offset);
    this.#emit("gap", { from, to: offset });
    this.#savePosition();
  }

  #savePosition() {
    this.#options.store.savePosition(this.#cursor.position);
  }

  // ── the page around us ───────────────────────────────────────────────────────────────────

  /**
   * Something changed around us: what waits tries now, what is open proves that it lives.
   * `offline` is no more than a hint (a service on this machine needs no network), so it
   * starts a probe and decides nothing.
   */
  #lookAtOnce(hint) {
    if (this.#greeted) this.#link.probe(this.#options.pongTimeout);
    else if (this.#state.name === "waiting" && hint !== "offline" && !this.#isAskedToWait()) {
      clearTimeout(this.#retryTimer);
      this.#open();
    }
  }

  #isAskedToWait() {
    return this.#state.code === 1012 || afterClose(this.#state.code) === "slow";
  }

  #setState(state) {
    this.#state = state;
    this.#emit("state", state);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

const path = encodeURIComponent;

/** What a browser takes as the name of a subprotocol (RFC 6455, section 4.1). */
const SUBPROTOCOL = /^[\w!#$%&'*+.^`|~-]+$/;

/** The object without the fields that are undefined. */
const withoutNothing = (fields) =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
