/**
 * Draws a conversation. What people and agents say is only ever set as text.
 *
 * A long answer stays cheap: its deltas are gathered and appended once a frame, as text nodes
 * of their own, so that no text on the screen is ever written again.
 */

const LABELS = {
  queued: "Waiting",
  running: "Answering",
  cancelling: "Stopping",
  completed: "",
  failed: "Failed",
  cancelled: "Stopped",
  timeout: "Out of time",
};
const ENDED = new Set(["completed", "failed", "cancelled", "timeout"]);

export class ConversationView {
  #list;
  #unconfirmedList;
  #onDraw;
  /** @type {Map<string, AnswerView>} */
  #answers = new Map();
  #stale = new Set();
  #frame = null;

  /**
   * @param {HTMLElement} list for what is in the log
   * @param {HTMLElement} unconfirmedList for what is on its way there
   * @param {() => void} onDraw called after each drawing that may have changed the height
   */
  constructor(list, unconfirmedList, onDraw) {
    this.#list = list;
    this.#unconfirmedList = unconfirmedList;
    this.#onDraw = onDraw;
  }

  /** @param {import("/client/conversation.js").Change[]} changes */
  show(changes) {
    for (const { what, message } of changes) {
      if (what === "added") this.#list.append(this.#newItem(message));
      else this.#stale.add(this.#answers.get(message.key));
    }
    if (changes.length) this.#schedule();
  }

  clear() {
    this.#list.replaceChildren();
    this.#answers.clear();
    this.#stale.clear();
  }

  /**
   * @param {import("/client/conversation.js").Unconfirmed[]} messages
   * @param {{again: (id: string) => void, forget: (id: string) => void}} offer for refused ones
   */
  showUnconfirmed(messages, offer) {
    this.#unconfirmedList.replaceChildren(
      ...messages.map((message) => unconfirmedItem(message, offer)),
    );
    this.#schedule();
  }

  #newItem(message) {
    if (message.kind === "agent") {
      const view = new AnswerView(message);
      this.#answers.set(message.key, view);
      return view.item;
    }
    if (message.kind === "user") return userItem(message);
    if (message.kind === "push") {
      return element("li", "message push", element("div", "text", message.text));
    }
    return element("li", "gap", "Earlier parts of this conversation are not kept any more.");
  }

  #schedule() {
    // A hidden page draws no frames; it is drawn when it is looked at again.
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      for (const answer of this.#stale) answer.draw();
      this.#stale.clear();
      this.#onDraw();
    });
  }
}

class AnswerView {
  #answer;
  #badge = element("span", "badge");
  #who = element("span", "who");
  #meta = element("span", "meta");
  #events = element("ul", "events");
  #text = element("div", "text");
  #note = element("p", "note");
  #bar = element("progress", "progress");
  #error = element("p", "problem");
  #drawnText = "";
  #drawnEvents = [];

  constructor(answer) {
    this.#answer = answer;
    this.#events.setAttribute("aria-label", "What the agent did");
    this.#bar.max = 100;
    this.#bar.setAttribute("aria-label", "Progress");
    const head = element("p", "head", this.#who, this.#badge, this.#meta);
    const parts = [head, this.#events, this.#text, this.#note, this.#bar, this.#error];
    this.item = element("li", "message agent", ...parts);
    this.item.dataset.taskId = answer.taskId;
    this.draw();
  }

  draw() {
    const { agentId, status, text, events } = this.#answer;
    this.#who.textContent = agentId ?? "agent";
    this.item.dataset.status = status;
    // Assistive technology reads an answer once it stands, not each of its tokens.
    this.item.setAttribute("aria-busy", String(!ENDED.has(status)));
    this.#badge.textContent = LABELS[status] ?? status;
    this.#badge.hidden = !this.#badge.textContent;
    this.#meta.textContent = ENDED.has(status) ? usageOf(this.#answer) : attemptOf(this.#answer);
    this.#drawText(text);
    this.#drawEvents(events);
    this.#drawProgress();
    this.#drawError();
  }

  #drawText(text) {
    if (text === this.#drawnText) return;
    if (text.startsWith(this.#drawnText)) this.#text.append(text.slice(this.#drawnText.length));
    else this.#text.replaceChildren(text); // a new attempt, or a final text of its own
    this.#drawnText = text;
  }

  #drawEvents(events) {
    if (events === this.#drawnEvents) return;
    const grew = this.#drawnEvents.every((event, index) => event === events[index]);
    if (!grew) this.#events.replaceChildren();
    const from = grew ? this.#drawnEvents.length : 0;
    this.#events.append(...events.slice(from).map(eventItem));
    this.#drawnEvents = events;
  }

  #drawProgress() {
    const { status, progress, note } = this.#answer;
    const runs = !ENDED.has(status);
    this.#bar.hidden = !runs || progress === null;
    if (progress !== null) this.#bar.value = progress;
    this.#note.hidden = !runs || !note;
    this.#note.textContent = note;
  }

  #drawError() {
    const { error, status } = this.#answer;
    this.#error.hidden = !error;
    if (!error) return;
    const kind = error.type ? ` (${error.type})` : "";
    const what = status === "timeout" ? "The agent ran out of time" : "The agent failed";
    this.#error.textContent = `${what}${kind}: ${error.message ?? error.code}`;
  }
}

function userItem({ text, userId }) {
  return element("li", "message user",
    element("span", "unseen", `${userId ?? "You"}: `),
    element("div", "text", text));
}

function unconfirmedItem({ id, text, error }, { again, forget }) {
  const item = element("li", "message user unconfirmed", element("div", "text", text));
  if (!error) {
    item.append(element("p", "note", "Sending…"));
    return item;
  }
  item.classList.add("refused");
  const buttons = element("p", "row",
    button("Send again", () => again(id)),
    button("Discard", () => forget(id)));
  item.append(element("p", "problem", `Not sent: ${error.message}`), buttons);
  return item;
}

function eventItem({ name, data }) {
  const { name: _name, ...rest } = data;
  const said = [rest.tool, rest.title, rest.message, rest.text];
  const about = said.find((value) => typeof value === "string")?.slice(0, 80);
  const summary = element("summary", "", element("strong", "", name.replaceAll("_", " ")));
  if (about) summary.append(` ${about}`);
  const details = element("pre", "", JSON.stringify(rest, null, 2));
  return element("li", "event", element("details", "", summary, details));
}

function usageOf({ result }) {
  const parts = [];
  const seconds = result?.execution_time;
  if (typeof seconds === "number") parts.push(`${seconds.toFixed(1)} s`);
  const tokens = result?.tokens_used ?? result?.usage?.output_tokens;
  if (typeof tokens === "number") parts.push(`${tokens} tokens`);
  return parts.join(" · ");
}

const attemptOf = ({ attempt }) => (attempt > 1 ? `attempt ${attempt}` : "");

function button(label, onClick) {
  const made = element("button", "quiet", label);
  made.type = "button";
  made.addEventListener("click", onClick);
  return made;
}

/** An element with children; strings become text, never markup. */
function element(tag, className = "", ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}
