/**
 * A session's events as a conversation to be shown. Pure: events in, what changed out.
 *
 * Each accepted message makes a pair, what the user said and what the agent answers to it, and
 * every later event of that task changes the answer. Two readers that were told the same
 * events hold the same conversation, whatever each of them sent.
 */

const TERMINAL = new Set(["completed", "failed", "cancelled", "timeout"]);

/**
 * @typedef {"queued" | "running" | "cancelling" | "completed" | "failed" | "cancelled"
 *   | "timeout"} Status
 *
 * @typedef {object} Said
 * @property {"user"} kind
 * @property {string} key
 * @property {string} text
 * @property {string} [taskId]
 * @property {string} [agentId]
 * @property {string} [userId]
 * @property {string} [at]
 *
 * @typedef {object} Answer
 * @property {"agent"} kind
 * @property {string} key
 * @property {string} taskId
 * @property {string} [agentId]
 * @property {string} text so far; complete once `completed`, partial after any other end
 * @property {Status} status
 * @property {number} attempt
 * @property {number | null} progress 0 to 100
 * @property {string} note what the agent last said about its progress
 * @property {{name: string, data: object}[]} events tool calls, reasoning, citations …
 * @property {{code: string, type?: string, message: string} | null} error
 * @property {object | null} result the data of the `agent_response`
 *
 * @typedef {{kind: "push", key: string, type: string, text: string}} Push
 * @typedef {{kind: "gap", key: string, from: number, to: number}} Gap
 * @typedef {Said | Answer | Push | Gap} Message
 *
 * @typedef {object} Change
 * @property {"added" | "appended" | "changed"} what `appended`: only text at the end
 * @property {Message} message
 * @property {string} [text] what was appended
 *
 * @typedef {{id: string, text: string, agentId: string, error: Error | null}} Unconfirmed
 */

export class Conversation {
  /** @type {Message[]} in the log's order */
  messages = [];

  /** @type {Unconfirmed[]} sent from here, and not in the log yet; to be shown last */
  unconfirmed = [];

  /** @type {Map<string, Answer>} */
  #answers = new Map();

  /** Answers whose task has not ended, oldest first. @returns {Answer[]} */
  get running() {
    return [...this.#answers.values()].filter(({ status }) => !TERMINAL.has(status));
  }

  /** The session's log began anew. What was sent from here and not confirmed remains. */
  reset() {
    this.messages = [];
    this.#answers.clear();
  }

  /**
   * @param {import("./link.js").Frame} frame an event; each once, in order
   * @returns {Change[]}
   */
  apply(frame) {
    if (frame.type === "user_message") return this.#said(frame);
    if (frame.task_id === undefined) return [this.#pushed(frame)];
    const { answer, added } = this.#answerOf(frame.task_id);
    // The server tells one end of a task and nothing after it; so do we.
    const change = TERMINAL.has(answer.status) ? null : happen(answer, frame);
    return [...added, ...(change && !added.length ? [change] : [])];
  }

  /** What is not in the log: broadcasts. @returns {Change[]} */
  notice(frame) {
    return frame.type === "typing_indicator" ? [] : [this.#pushed(frame)];
  }

  /** Events `from` to `to` are not kept any more. @returns {Change[]} */
  gap({ from, to }) {
    return [this.#add({ kind: "gap", key: `gap-${from}`, from, to })];
  }

  /** @param {import("./orchestrator-client.js").OutboxChange} change of a message sent here */
  outbox({ id, data, status, answer, error = null }) {
    const known = this.unconfirmed.find((message) => message.id === id);
    // Its event may have come before its ack; then it is in `messages` and all is said.
    if (status === "sending" && !known) {
      this.unconfirmed.push({ id, text: data.message, agentId: data.agent_id, error: null });
    } else if (status === "refused" && known) {
      known.error = error;
    } else if (status === "accepted" && this.#answers.has(answer.task_id)) {
      this.forget(id);
    }
  }

  /** Takes an unconfirmed message off the screen. */
  forget(id) {
    this.unconfirmed = this.unconfirmed.filter((message) => message.id !== id);
  }

  #said({ task_id: taskId, data, metadata, timestamp }) {
    this.forget(metadata?.client_message_id);
    const said = this.#add({
      kind: "user",
      key: `user-${taskId}`,
      taskId,
      text: data.message,
      agentId: data.agent_id,
      userId: data.user_id ?? undefined,
      at: timestamp,
    });
    const { answer, added } = this.#answerOf(taskId);
    answer.agentId = data.agent_id;
    return [said, ...added];
  }

  #answerOf(taskId) {
    const known = this.#answers.get(taskId);
    if (known) return { answer: known, added: [] };
    const answer = newAnswer(taskId);
    this.#answers.set(taskId, answer);
    return { answer, added: [this.#add(answer)] };
  }

  #pushed({ type, data, offset }) {
    const key = `push-${offset ?? `live-${this.messages.length}`}`;
    return this.#add({ kind: "push", key, type, text: textOf(data) });
  }

  /** @returns {Change} */
  #add(message) {
    this.messages.push(message);
    return { what: "added", message };
  }
}

/** @returns {Answer} */
const newAnswer = (taskId) => ({
  kind: "agent",
  key: `agent-${taskId}`,
  taskId,
  agentId: undefined,
  text: "",
  status: "queued",
  attempt: 1,
  progress: null,
  note: "",
  events: [],
  error: null,
  result: null,
});

/** Lets one event of its task happen to an answer. @returns {Change} */
function happen(answer, { type, data }) {
  switch (type) {
    case "agent_delta":
      return append(answer, typeof data.text === "string" ? data.text : "");
    case "agent_event":
      answer.events = [...answer.events, { name: String(data.name ?? "event"), data }];
      break;
    case "agent_response":
      complete(answer, data);
      break;
    case "error":
      answer.status = TERMINAL.has(data.status) ? data.status : "failed";
      answer.error = { code: data.code, type: data.error_type, message: data.message };
      break;
    case "task_update":
      update(answer, data);
      break;
    default: // a type of a later version: nothing that we could show
  }
  return { what: "changed", message: answer };
}

/** @returns {Change} */
function append(answer, text) {
  answer.text += text;
  return { what: "appended", message: answer, text };
}

function complete(answer, data) {
  answer.status = "completed";
  answer.progress = null;
  answer.result = data;
  // An agent may stream all it has to say and give no text at its end.
  const response = data.response ?? "";
  if (response !== "") answer.text = textOf(response);
}

function update(answer, { status, progress, message, attempt, reset }) {
  if (status) answer.status = status;
  if (attempt) answer.attempt = attempt;
  if (reset) Object.assign(answer, { text: "", events: [], progress: null, note: "" });
  if (typeof progress === "number") answer.progress = progress;
  if (typeof message === "string") answer.note = message;
}

/** What a person may read of a value that can be any JSON. */
function textOf(value) {
  if (typeof value === "string") return value;
  const text = value?.text ?? value?.message ?? value?.response;
  return typeof text === "string" ? text : JSON.stringify(value ?? "", null, 2);
}
