import assert from "node:assert/strict";
import { test } from "node:test";

import { Conversation } from "../conversation.js";

let offset = 0;
const event = (type, task_id, data, more = {}) => ({ type, task_id, data, offset: ++offset, ...more });
const said = (task, message = "hi", more = {}) =>
  event("user_message", task, { message, agent_id: "echo" }, more);
const delta = (task, text) => event("agent_delta", task, { text });
const update = (task, status, more = {}) => event("task_update", task, { status, ...more });

/** What a list of events comes to. */
function after(...events) {
  const conversation = new Conversation();
  const changes = events.flatMap((frame) => conversation.apply(frame));
  return { conversation, changes, answer: conversation.messages.find(({ kind }) => kind === "agent") };
}

test("a message and its answer stand side by side, in the log's order", () => {
  const { conversation } = after(
    said("t1", "one"), said("t2", "two"), delta("t2", "B"), delta("t1", "A"),
  );
  const texts = conversation.messages.map(({ kind, text }) => `${kind} ${text}`);
  assert.deepEqual(texts, ["user one", "agent A", "user two", "agent B"]);
});

test("an answer grows with its deltas, and ends with the text of its response", () => {
  const { answer, changes } = after(
    said("t"), update("t", "running"), delta("t", "He"), delta("t", "llo"),
    event("agent_response", "t", { response: "Hello.", usage: { output_tokens: 2 } }),
  );
  assert.equal(answer.text, "Hello.");
  assert.equal(answer.status, "completed");
  assert.equal(answer.result.usage.output_tokens, 2);
  assert.deepEqual(changes.map(({ what, text }) => text ?? what), [
    "added", "added", "changed", "He", "llo", "changed",
  ]);
});

test("a response without a text of its own leaves what was streamed", () => {
  for (const response of [undefined, null, ""]) {
    const { answer } = after(said("t"), delta("t", "all"), event("agent_response", "t", { response }));
    assert.equal(answer.text, "all");
  }
});

test("a response that is no text is shown as JSON", () => {
  const { answer } = after(said("t"), event("agent_response", "t", { response: { a: [1] } }));
  assert.deepEqual(JSON.parse(answer.text), { a: [1] });
});

test("a new attempt forgets what the earlier one had streamed", () => {
  const { answer } = after(
    said("t"), update("t", "running"), delta("t", "wrong"),
    event("agent_event", "t", { name: "tool" }), update("t", "running", { progress: 80, message: "m" }),
    update("t", "queued", { attempt: 1 }),
    update("t", "running", { attempt: 2, reset: true }), delta("t", "right"),
  );
  assert.equal(answer.text, "right");
  assert.equal(answer.attempt, 2);
  assert.deepEqual(answer.events, []);
  assert.equal(answer.progress, null);
  assert.equal(answer.note, "");
});

for (const [name, end, status] of [
  ["cancelled", update("t", "cancelled"), "cancelled"],
  ["failed", event("error", "t", { code: "task_failed", status: "failed", message: "no" }), "failed"],
  ["timed out", event("error", "t", { code: "task_timeout", status: "timeout", message: "late" }), "timeout"],
]) {
  test(`an answer that was ${name} keeps what it had said`, () => {
    const { answer } = after(said("t"), delta("t", "half an ans"), end, delta("t", "too late"));
    assert.equal(answer.text, "half an ans");
    assert.equal(answer.status, status);
  });
}

test("a failure says what went wrong", () => {
  const data = { code: "task_failed", error_type: "ValueError", message: "bad", status: "failed" };
  const { answer } = after(said("t"), event("error", "t", data));
  assert.deepEqual(answer.error, { code: "task_failed", type: "ValueError", message: "bad" });
});

test("progress and tool calls belong to their answer", () => {
  const { answer } = after(
    said("t"), update("t", "running", { progress: 40, message: "reading" }),
    event("agent_event", "t", { name: "tool_call", tool: "search" }),
  );
  assert.equal(answer.progress, 40);
  assert.equal(answer.note, "reading");
  assert.deepEqual(answer.events, [{ name: "tool_call", data: { name: "tool_call", tool: "search" } }]);
});

test("what runs is what can be stopped", () => {
  const { conversation } = after(
    said("t1"), said("t2"), said("t3"), update("t2", "cancelling"),
    event("agent_response", "t1", { response: "done" }),
  );
  assert.deepEqual(conversation.running.map(({ taskId }) => taskId), ["t2", "t3"]);
});

test("a task whose beginning is not kept is shown from where it is", () => {
  const { conversation } = after(delta("t", "…and so on"));
  assert.deepEqual(conversation.messages.map(({ kind, text }) => [kind, text]), [["agent", "…and so on"]]);
});

test("a message sent here waits below the log until its event comes", () => {
  const conversation = new Conversation();
  const data = { message: "mine", agent_id: "echo" };
  conversation.outbox({ id: "m-1", status: "sending", data });
  conversation.apply(said("t1", "another's"));
  assert.deepEqual(conversation.unconfirmed.map(({ text }) => text), ["mine"]);
  conversation.outbox({ id: "m-1", status: "accepted", data, answer: { task_id: "t2" } });
  assert.equal(conversation.unconfirmed.length, 1);
  conversation.apply(said("t2", "mine", { metadata: { client_message_id: "m-1" } }));
  assert.deepEqual(conversation.unconfirmed, []);
  assert.deepEqual(
    conversation.messages.filter(({ kind }) => kind === "user").map(({ text }) => text),
    ["another's", "mine"],
  );
});

test("an event that comes before its ack is not shown twice", () => {
  const conversation = new Conversation();
  const data = { message: "mine", agent_id: "echo" };
  conversation.outbox({ id: "m-1", status: "sending", data });
  conversation.apply(said("t1", "mine"));
  conversation.outbox({ id: "m-1", status: "accepted", data, answer: { task_id: "t1" } });
  assert.deepEqual(conversation.unconfirmed, []);
});

test("a refused message stays, with its reason, until it is forgotten", () => {
  const conversation = new Conversation();
  const error = new Error("no");
  const data = { message: "mine", agent_id: "echo" };
  conversation.outbox({ id: "m-1", status: "sending", data });
  conversation.outbox({ id: "m-1", status: "refused", data, error });
  assert.equal(conversation.unconfirmed[0].error, error);
  conversation.forget("m-1");
  assert.deepEqual(conversation.unconfirmed, []);
});

test("pushes, broadcasts and gaps stand where they came", () => {
  const conversation = new Conversation();
  conversation.gap({ from: 1, to: 4 });
  conversation.apply(event("agent_response", undefined, { text: "pushed" }));
  conversation.notice({ type: "broadcast", data: { message: "to all" } });
  conversation.notice({ type: "maintenance", data: { until: 5 } });
  conversation.notice({ type: "typing_indicator", data: {} });
  assert.deepEqual(conversation.messages.map(({ kind }) => kind), ["gap", "push", "push", "push"]);
  assert.deepEqual(conversation.messages.slice(1, 3).map(({ text }) => text), ["pushed", "to all"]);
  assert.equal(new Set(conversation.messages.map(({ key }) => key)).size, 4);
});

test("a log that began anew leaves only what is still to be sent", () => {
  const { conversation } = after(said("t"), delta("t", "gone"));
  conversation.outbox({ id: "m", status: "sending", data: { message: "mine", agent_id: "echo" } });
  conversation.reset();
  assert.deepEqual(conversation.messages, []);
  assert.deepEqual(conversation.running, []);
  assert.equal(conversation.unconfirmed.length, 1);
});

test("two readers of the same events hold the same conversation", () => {
  const events = [said("a"), delta("a", "x"), said("b"), update("a", "cancelled"), delta("b", "y")];
  assert.deepEqual(after(...events).conversation.messages, after(...events).conversation.messages);
});
