/** Reads what a session's log keeps, page by page (contract, section 3, events). */

import { OrchestratorError } from "./errors.js";

const PAGE = 1000;

/**
 * Every page after `offset`, in order, until the log's end as it was when asked, or `until`.
 *
 * @param {{fetch: typeof fetch, url: string, headers: object, epoch: string, offset: number,
 *   until: number, timeout: number}} options `url` is the events endpoint of the session
 * @yields {{events: import("./link.js").Frame[], oldest: number | null}}
 * @throws {OrchestratorError} with the code of the answer; `epoch_changed` if the log began anew
 */
export async function* pagesAfter({ fetch, url, headers, epoch, offset, until, timeout }) {
  let next = offset;
  while (next < until) {
    const query = new URLSearchParams({ offset: next, epoch, limit: PAGE, compact: 1 });
    const response = await fetch(`${url}?${query}`, {
      headers: { Accept: "application/json", ...headers },
      signal: AbortSignal.timeout(timeout),
    });
    const page = await response.json().catch(() => ({}));
    if (!response.ok) throw new OrchestratorError(page.code ?? "bad_answer", page.detail);
    if (page.epoch !== epoch) throw new OrchestratorError("epoch_changed", "the log began anew");
    yield { events: page.events, oldest: page.oldest_offset };
    if (!(page.next_offset > next)) return; // nothing more is kept
    next = page.next_offset;
  }
}
