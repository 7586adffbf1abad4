/** What can go wrong, as types. Every error has the `code` of the contract, or one of ours. */

export class OrchestratorError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {Object<string, string[]>} [errors] field → what is wrong with it
   */
  constructor(code, message, errors = {}) {
    super(message || code);
    this.name = new.target.name;
    this.code = code;
    this.errors = errors;
  }
}

/** The service refused a request; asking again unchanged would be refused again. */
export class RequestRefused extends OrchestratorError {}

/** The service could not take a request for now, and went on saying so until we gave up. */
export class ServiceUnavailable extends OrchestratorError {}

/** The connection was refused for good: bad address, no valid token, or not allowed. */
export class ConnectionRefused extends OrchestratorError {}

/** Too many requests wait for their answer already; this one was not taken. */
export class OutboxFull extends OrchestratorError {
  constructor(limit) {
    super("outbox_full", `${limit} requests wait for an answer already`);
  }
}

/** `close()` was called before the answer came; a message may or may not have been taken. */
export class ClientClosed extends OrchestratorError {
  constructor() {
    super("client_closed", "the client was closed before the answer came");
  }
}

// Answers that say "not now": the same request, with the same id, is worth another try.
const TEMPORARY = new Set(["redis_unavailable", "draining", "overloaded", "internal_error"]);

/** @param {string} code */
export const isTemporary = (code) => TEMPORARY.has(code);
