/**
 * The first page: one conversation with an agent.
 *
 * The address names the conversation (`#tenant=…&session=…`), so that a second tab can share
 * it. A reload begins with an empty screen, and so asks for the whole conversation
 * again; what this tab keeps over a reload is only the messages that nobody has confirmed yet,
 * which are then sent again under the same ids, and so run once.
 */

import { Conversation } from "/client/conversation.js";
import { newId, OrchestratorClient, webStore } from "/client/orchestrator-client.js";
import { ConversationView } from "/page/view.js";

const NAME = /^[A-Za-z0-9][A-Za-z0-9_.@-]{0,127}$/;
const $ = (id) => document.getElementById(id);

/** How far from its end a conversation may be scrolled and still follow what comes, px. */
const NEAR_END = 80;

let conversation = new Conversation();
/** @type {OrchestratorClient | null} */
let client = null;
let following = true;
const view = new ConversationView($("messages"), $("unconfirmed"), drawn);

// ── which conversation ─────────────────────────────────────────────────────────────────────

function whereFromAddress() {
  const hash = new URLSearchParams(location.hash.slice(1));
  const valid = (name, otherwise) => (NAME.test(hash.get(name) ?? "") ? hash.get(name) : otherwise);
  return {
    tenant: valid("tenant", "demo"),
    session: valid("session", newSession()),
    agent: valid("agent", "echo"),
  };
}

const newSession = () => `web-${newId().slice(0, 8)}`;

function goTo({ tenant, session, agent = $("agent").value }, remember = "pushState") {
  history[remember](null, "", `#${new URLSearchParams({ tenant, session, agent })}`);
  open({ tenant, session, agent });
}

function open({ tenant, session, agent }) {
  client?.close();
  conversation = new Conversation();
  view.clear();
  say(null);
  following = true;
  [$("tenant").value, $("session").value, $("agent").value] = [tenant, session, agent];
  $("where").textContent = `${tenant} / ${session}`;
  document.title = `${session} – Agent Orchestrator`;
  client = listenTo(
    new OrchestratorClient({
      tenant,
      session,
      token: heldToken || undefined,
      store: webStore(tabStorage(), `orchestrator:${tenant}/${session}`, { position: false }),
    }),
  );
  client.connect();
  refresh();
}

// ── the token ──────────────────────────────────────────────────────────────────────────────

/** Never part of the address: that is shown, shared, and kept in histories. */
const TOKEN = "orchestrator:token";
let heldToken = tabStorage()?.getItem(TOKEN) ?? "";

function holdToken(token) {
  heldToken = token.trim();
  try {
    if (heldToken) tabStorage()?.setItem(TOKEN, heldToken);
    else tabStorage()?.removeItem(TOKEN);
  } catch {
    // A storage that is full: then a reload asks for it again.
  }
}

/** Even to name `sessionStorage` is an error where a browser forbids it. */
function tabStorage() {
  try {
    return sessionStorage;
  } catch {
    return undefined;
  }
}

// ── what the client tells ──────────────────────────────────────────────────────────────────

function listenTo(one) {
  const show = (changes) => {
    view.show(changes);
    refresh();
  };
  one.on("event", (frame) => {
    const before = conversation.unconfirmed;
    show(conversation.apply(frame));
    if (conversation.unconfirmed !== before) showUnconfirmed();
  });
  one.on("notice", (frame) => show(conversation.notice(frame)));
  one.on("gap", (gap) => show(conversation.gap(gap)));
  one.on("reset", () => {
    conversation.reset();
    view.clear();
    refresh();
  });
  one.on("outbox", (change) => {
    conversation.outbox(change);
    showUnconfirmed();
    refresh();
  });
  one.on("problem", (error) => say(error.message));
  one.on("state", showState);
  return one;
}

const CODES = {
  4400: "The service does not take this address.",
  4401: "The service asks for a valid token: enter it above, beside the conversation's name.",
  4403: "This conversation is not open to you: the token is another tenant's or session's.",
};

function showState({ name, code, reason, attempt }) {
  const words = {
    closed: "Not connected",
    connecting: "Connecting…",
    catching_up: "Catching up…",
    open: "Connected",
    waiting: "Connection lost, coming back…",
    stopped: "Disconnected",
  };
  $("connection").dataset.state = name;
  // While it tries again the words stay as they are, or they would flicker, and be read aloud.
  if (name !== "connecting" || !attempt) $("connection-text").textContent = words[name];
  const refusal = CODES[code] ?? "The service refused the connection.";
  if (name === "stopped") say(`${refusal} (${reason || code})`);
  if (name === "open") say(null);
}

function showUnconfirmed() {
  view.showUnconfirmed(conversation.unconfirmed, { again: sendAgain, forget });
}

function say(text) {
  $("alert").hidden = !text;
  $("alert").textContent = text ?? "";
}

// ── what the user does ─────────────────────────────────────────────────────────────────────

function send(text, agentId) {
  following = true;
  // Its refusal is told by the `outbox` event, where that of a message from before a reload is.
  client.send(text, { agentId }).catch((error) => {
    if (error.code === "outbox_full") say(error.message);
  });
}

function submit() {
  const text = $("message").value;
  if (!text.trim() || !$("agent").reportValidity()) return;
  send(text, $("agent").value);
  $("message").value = "";
  refresh();
}

function sendAgain(id) {
  const { text, agentId } = conversation.unconfirmed.find((message) => message.id === id);
  forget(id);
  send(text, agentId); // a new id: under the old one this message has been refused
}

function forget(id) {
  conversation.forget(id);
  showUnconfirmed();
}

function stop() {
  for (const { taskId, status } of conversation.running) {
    if (status === "cancelling") continue;
    client.cancel(taskId, "stopped by the user").catch((error) => {
      if (!["task_already_finished", "client_closed"].includes(error.code)) say(error.message);
    });
  }
}

// ── the page ───────────────────────────────────────────────────────────────────────────────

function refresh() {
  const { running, messages, unconfirmed } = conversation;
  $("stop").hidden = running.length === 0;
  $("stop").disabled = running.every(({ status }) => status === "cancelling");
  $("empty").hidden = messages.length + unconfirmed.length > 0;
  $("send").disabled = !$("message").value.trim();
}

function drawn() {
  const scroller = $("scroller");
  if (following) scroller.scrollTop = scroller.scrollHeight;
  $("to-latest").hidden = following;
}

function isNearEnd({ scrollHeight, scrollTop, clientHeight }) {
  return scrollHeight - scrollTop - clientHeight < NEAR_END;
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
$("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
$("message").addEventListener("input", refresh);
document.addEventListener("keydown", ({ key }) => {
  if (key !== "Escape") return;
  if ($("settings").open) $("settings").open = false;
  else stop();
});
document.addEventListener("pointerdown", ({ target }) => {
  if (!$("settings").contains(target)) $("settings").open = false;
});
$("stop").addEventListener("click", () => {
  stop();
  $("message").focus();
});
$("scroller").addEventListener("scroll", ({ target }) => {
  following = isNearEnd(target);
  $("to-latest").hidden = following;
}, { passive: true });
$("to-latest").addEventListener("click", () => {
  following = true;
  drawn();
});
$("agent").addEventListener("change", () => {
  if (!$("agent").reportValidity()) return;
  const { tenant, session } = whereFromAddress();
  const hash = new URLSearchParams({ tenant, session, agent: $("agent").value });
  history.replaceState(null, "", `#${hash}`);
});
$("settings-form").addEventListener("submit", (event) => {
  event.preventDefault();
  $("settings").open = false;
  holdToken($("token").value);
  goTo({ tenant: $("tenant").value, session: $("session").value });
});
$("new-session").addEventListener("click", () => {
  $("settings").open = false;
  goTo({ tenant: $("tenant").value || "demo", session: newSession() });
  $("message").focus();
});
for (const suggestion of document.querySelectorAll(".suggestion")) {
  suggestion.addEventListener("click", () => {
    $("agent").value = suggestion.dataset.agent;
    $("agent").dispatchEvent(new Event("change"));
    send(suggestion.dataset.message, suggestion.dataset.agent);
    $("message").focus();
  });
}
$("token").value = heldToken;
addEventListener("popstate", () => open(whereFromAddress()));
goTo(whereFromAddress(), "replaceState");
