/** What a client can be told, with defaults. */

import { DEFAULT_PACE } from "./backoff.js";
import { memoryStore } from "./storage.js";

/**
 * @typedef {object} Options
 * @property {string} tenant
 * @property {string} session
 * @property {string} [url] of the service, `http(s)://host[:port]`; default: this page's origin
 * @property {string} [userId]
 * @property {string | (() => string | Promise<string>)} [token] a function is asked at every
 *   connection, and once more when the service ends one because its token has expired
 * @property {"history" | "live"} [from] where to begin without a stored position: with all that
 *   is kept (the default), or with what happens from now on
 * @property {import("./storage.js").Store} [store] default: in memory
 * @property {number} [maxOutbox] requests that may wait for an answer, default 100
 * @property {number} [openTimeout] ms until the first frame must be there, default 10000
 * @property {number} [pingInterval] ms, default 15000, or less if the service pings more often
 * @property {number} [pongTimeout] ms, default 10000
 * @property {Partial<import("./backoff.js").Pace>} [pace]
 * @property {() => number} [random]
 * @property {typeof WebSocket} [WebSocket] where the platform has none
 * @property {typeof fetch} [fetch]
 * @property {EventTarget | null} [window] default: the page's, if any
 * @property {Document | null} [document] default: the page's, if any
 */

/** @param {Options} options */
export function withDefaults(options) {
  return {
    url: globalThis.location?.origin,
    from: "history",
    store: memoryStore(),
    maxOutbox: 100,
    openTimeout: 10_000,
    pingInterval: 15_000,
    pongTimeout: 10_000,
    random: Math.random,
    WebSocket: globalThis.WebSocket,
    fetch: (...args) => globalThis.fetch(...args),
    window: globalThis.window ?? null,
    document: globalThis.document ?? null,
    ...options,
    pace: { ...DEFAULT_PACE, ...options.pace },
  };
}
