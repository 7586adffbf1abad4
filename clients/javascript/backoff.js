/**
 * When to come back after a connection ended (close codes: contract, section 4). Pure.
 *
 * Full jitter: a thousand clients that lost one instance must not return in the same moment,
 * so the delay is drawn from the whole range and not from around its end.
 */

const STOP = new Set([4400, 4401, 4403]);
const SLOW = new Set([1013, 4413, 4429]);

/** @typedef {{base: number, cap: number, slowBase: number, slowCap: number}} Pace in ms */

/** @type {Pace} */
export const DEFAULT_PACE = { base: 250, cap: 15_000, slowBase: 5_000, slowCap: 60_000 };

/**
 * What a close code asks for. Whatever is not known to be final is worth another try: 1000
 * too, which is what some servers send when their own ping timed out.
 *
 * @param {number} code
 * @returns {"stop" | "slow" | "soon"}
 */
export function afterClose(code) {
  if (STOP.has(code)) return "stop";
  return SLOW.has(code) ? "slow" : "soon";
}

/**
 * How long to wait before the next attempt, in ms: from 0 to the bound if it may be soon,
 * from half the bound to the bound if a limit asked for patience.
 *
 * @param {"soon" | "slow"} urgency
 * @param {number} attempt 0 for the first try after a good connection
 * @param {Pace} pace
 * @param {() => number} random from 0 to 1
 */
export function delay(urgency, attempt, pace = DEFAULT_PACE, random = Math.random) {
  const slow = urgency === "slow";
  const bound = Math.min(
    slow ? pace.slowCap : pace.cap,
    (slow ? pace.slowBase : pace.base) * 2 ** Math.min(attempt, 30),
  );
  return slow ? bound / 2 + random() * (bound / 2) : random() * bound;
}
