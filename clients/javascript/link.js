/**
 * One WebSocket, from opening to its end. Knows frames and silence, nothing of sessions.
 *
 * Promises: `onFrame` for each frame in order, until `onEnd`, which comes exactly once, also
 * where the network died without a word (no ack in time, no answer to a ping in time).
 *
 * @typedef {{type: string, data: any, timestamp?: string, tenant_id?: string,
 *   session_id?: string, task_id?: string, offset?: number, from_offset?: number,
 *   metadata?: object, id?: string}} Frame
 * @typedef {{code: number, reason: string}} End
 */

import { newId } from "./ids.js";

/** The codes that we give to ends which no close frame told us of. */
export const LOST = 1006;
export const SILENT = 4408;

export class Link {
  #socket;
  #onFrame;
  #onEnd;
  #ended = false;
  #deadline = null;
  #heartbeat = null;

  /**
   * @param {{WebSocket: typeof WebSocket, url: string, protocols: string[],
   *   openTimeout: number, onFrame: (frame: Frame) => void, onEnd: (end: End) => void}} options
   */
  constructor({ WebSocket, url, protocols, openTimeout, onFrame, onEnd }) {
    this.#onFrame = onFrame;
    this.#onEnd = onEnd;
    this.#socket = new WebSocket(url, protocols);
    this.#socket.onmessage = ({ data }) => this.#receive(data);
    this.#socket.onclose = ({ code, reason }) => this.#finish(code || LOST, reason);
    this.#socket.onerror = () => {}; // a close follows and says more
    this.#expectSomething(openTimeout);
  }

  /** Sends if the socket still takes it. @returns {boolean} */
  send(frame) {
    if (this.#ended || this.#socket.readyState !== 1) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  /**
   * Pings every `interval` ms while `isWatched()`; a page that nobody sees is left in peace,
   * since its timers are throttled and would raise false alarms.
   */
  keepAlive(interval, timeout, isWatched) {
    clearInterval(this.#heartbeat);
    if (this.#ended) return;
    this.#heartbeat = setInterval(() => isWatched() && this.probe(timeout), interval);
  }

  /** Asks for a sign of life; without one in `timeout` ms the link is at its end. */
  probe(timeout) {
    if (this.send({ type: "ping", id: newId() }) && this.#deadline === null) {
      this.#expectSomething(timeout);
    }
  }

  /** Ends the link now, without waiting for a close handshake that may never come. */
  end(code = 1000, reason = "") {
    this.#finish(code, reason);
  }

  #expectSomething(timeout) {
    this.#deadline = setTimeout(() => this.#finish(SILENT, "no sign of life in time"), timeout);
  }

  #receive(text) {
    // Any frame proves that the other side lives; a pong may stand behind a long replay.
    clearTimeout(this.#deadline);
    this.#deadline = null;
    const frame = parse(text);
    if (frame) this.#onFrame(frame);
    else this.#finish(LOST, "a frame that is no JSON object");
  }

  #finish(code, reason = "") {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#deadline);
    clearInterval(this.#heartbeat);
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#onEnd({ code, reason });
  }
}

/** @returns {Frame | null} */
function parse(text) {
  try {
    const frame = JSON.parse(text);
    return typeof frame?.type === "string" ? { ...frame, data: frame.data ?? {} } : null;
  } catch {
    return null;
  }
}
