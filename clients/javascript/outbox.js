/**
 * Requests that wait for their answer. I/O is handed in, time too.
 *
 * A request keeps its id through every resend. For a message the id is the Idempotency-Key, so
 * that sending it again, on any connection to any instance, runs it once.
 */

import { isTemporary, OutboxFull, RequestRefused, ServiceUnavailable } from "./errors.js";

const MOST_TRIES = 10;

/**
 * @typedef {import("./storage.js").Request} Request
 * @typedef {Request & {resolve: (answer: any) => void, reject: (error: Error) => void,
 *   answer: Promise<any>, sentOn: object | null, tries: number}} Waiting
 */

export class Outbox {
  /** @type {Map<string, Waiting>} */
  #waiting = new Map();
  #limit;

  /** @param {number} limit */
  constructor(limit) {
    this.#limit = limit;
  }

  /** The messages still unconfirmed, as they may be stored. @returns {Request[]} */
  get messages() {
    return [...this.#waiting.values()]
      .filter(({ type }) => type === "chat.send_message")
      .map(({ id, type, data }) => ({ id, type, data }));
  }

  /**
   * Settles with the answer to the request, however many connections that takes. An id that
   * waits already is the same request, and shares its answer.
   *
   * @param {Request} request
   * @returns {Promise<any>}
   * @throws {OutboxFull} at once, and nothing is kept
   */
  add(request) {
    const known = this.#waiting.get(request.id);
    if (known) return known.answer;
    if (this.#waiting.size >= this.#limit) throw new OutboxFull(this.#limit);
    const waiting = { ...request, sentOn: null, tries: 0 };
    waiting.answer = new Promise((resolve, reject) => Object.assign(waiting, { resolve, reject }));
    this.#waiting.set(request.id, waiting);
    return waiting.answer;
  }

  /**
   * Sends, oldest first, what has not been sent on this link yet.
   *
   * @param {import("./link.js").Link} link
   * @param {number} maxBytes of one frame; what is larger is refused here, since sending it
   *   would cost the connection, again and again
   */
  flush(link, maxBytes) {
    for (const request of this.#waiting.values()) {
      if (request.sentOn === link) continue;
      const { id, type, data } = request;
      if (byteLength({ id, type, data }) > maxBytes) {
        this.refuse(id, "payload_too_large", `more than ${maxBytes} bytes`);
      } else if (link.send({ id, type, data })) {
        request.sentOn = link;
      }
    }
  }

  /** @returns {boolean} whether the id is one of ours */
  answer(id, body) {
    const request = this.#take(id);
    request?.resolve(body);
    return request !== undefined;
  }

  /**
   * An `error` frame for a request. "Not now" keeps it, to be flushed again later.
   *
   * @returns {"unknown" | "refused" | number} a number: that was the n-th "not now"
   */
  refuse(id, code, message, errors) {
    const request = this.#waiting.get(id);
    if (!request) return "unknown";
    if (isTemporary(code) && ++request.tries < MOST_TRIES) {
      request.sentOn = null;
      return request.tries;
    }
    const Kind = isTemporary(code) ? ServiceUnavailable : RequestRefused;
    this.#take(id).reject(new Kind(code, message, errors));
    return "refused";
  }

  /** The link was closed over a frame too large: the largest on it will not be sent again. */
  refuseLargest(link) {
    const sent = [...this.#waiting.values()].filter(({ sentOn }) => sentOn === link);
    const size = ({ id, type, data }) => byteLength({ id, type, data });
    const largest = sent.sort((one, other) => size(other) - size(one))[0];
    if (largest) this.refuse(largest.id, "payload_too_large", "the service takes no such frame");
  }

  /** Nothing will be answered any more. @param {Error} error */
  rejectAll(error) {
    const requests = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of requests) reject(error);
  }

  #take(id) {
    const request = this.#waiting.get(id);
    this.#waiting.delete(id);
    return request;
  }
}

const byteLength = (frame) => new TextEncoder().encode(JSON.stringify(frame)).length;
