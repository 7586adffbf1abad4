/**
 * What a client remembers beyond one connection: its position, and the messages that no one
 * has confirmed yet. A store is any object with `load`, `savePosition` and `saveOutbox`.
 *
 * @typedef {import("./cursor.js").Position} Position
 * @typedef {{id: string, type: string, data: object}} Request
 * @typedef {{
 *   load(): {position: Position | null, outbox: Request[]},
 *   savePosition(position: Position | null): void,
 *   saveOutbox(outbox: Request[]): void,
 * }} Store
 */

/** Remembers as long as the object lives. @returns {Store} */
export function memoryStore() {
  let position = null;
  let outbox = [];
  return {
    load: () => ({ position, outbox }),
    savePosition: (value) => void (position = value),
    saveOutbox: (value) => void (outbox = value),
  };
}

/**
 * Remembers in a Web Storage (`sessionStorage`, `localStorage`). Where that is full or
 * forbidden it remembers nothing, and the client works as with an empty store.
 *
 * `position: false` keeps the messages only. That is right for a page that draws the
 * conversation from the events: after a reload it has nothing on the screen, and must be told
 * everything again, while a message typed just before the reload must still be sent, once.
 *
 * @param {Storage} storage
 * @param {string} key
 * @param {{position?: boolean}} [keep]
 * @returns {Store}
 */
export function webStore(storage, key, { position: keepPosition = true } = {}) {
  const read = (name) => {
    try {
      return JSON.parse(storage.getItem(`${key}:${name}`) ?? "null");
    } catch {
      return null;
    }
  };
  const write = (name, value) => {
    try {
      if (value === null) storage.removeItem(`${key}:${name}`);
      else storage.setItem(`${key}:${name}`, JSON.stringify(value));
    } catch {
      // Full or forbidden: what is lost is a resend after a reload, not the conversation.
    }
  };
  return {
    load: () => ({
      position: keepPosition ? read("position") : null,
      outbox: read("outbox") ?? [],
    }),
    savePosition: (value) => void (keepPosition && write("position", value)),
    saveOutbox: (value) => write("outbox", value.length ? value : null),
  };
}
