import assert from "node:assert/strict";
import { test } from "node:test";

import { afterClose, DEFAULT_PACE, delay } from "../backoff.js";
import { Cursor } from "../cursor.js";
import { newId } from "../ids.js";
import { webStore } from "../storage.js";

test("a delay is drawn from nothing up to a bound that doubles until the cap", () => {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const bound = Math.min(DEFAULT_PACE.cap, DEFAULT_PACE.base * 2 ** attempt);
    assert.equal(delay("soon", attempt, DEFAULT_PACE, () => 0), 0);
    assert.equal(delay("soon", attempt, DEFAULT_PACE, () => 1), bound);
    const drawn = delay("soon", attempt);
    assert.ok(drawn >= 0 && drawn <= bound);
  }
});

test("a slow delay never falls below half its bound", () => {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const bound = Math.min(DEFAULT_PACE.slowCap, DEFAULT_PACE.slowBase * 2 ** attempt);
    assert.equal(delay("slow", attempt, DEFAULT_PACE, () => 0), bound / 2);
    assert.equal(delay("slow", attempt, DEFAULT_PACE, () => 1), bound);
  }
});

test("only what cannot get better by itself is final", () => {
  const final = [4400, 4401, 4403];
  for (let code = 1000; code < 5000; code += 1) {
    assert.equal(afterClose(code) === "stop", final.includes(code), `${code}`);
  }
  assert.deepEqual([1013, 4413, 4429].map(afterClose), ["slow", "slow", "slow"]);
});

test("a cursor knows what is next, what was seen and what leaves a hole", () => {
  const cursor = new Cursor({ epoch: "e", offset: 5 });
  const places = [
    [{ offset: 5 }, "seen"],
    [{ offset: 6 }, "next"],
    [{ offset: 7 }, "hole"],
    [{ from_offset: 6, offset: 9 }, "next"],
    [{ from_offset: 7, offset: 9 }, "hole"],
    [{ from_offset: 4, offset: 9 }, "hole"],
    [{ from_offset: 2, offset: 5 }, "seen"],
  ];
  for (const [frame, place] of places) assert.equal(cursor.place(frame), place);
});

test("ids are UUIDs, and differ", () => {
  const ids = Array.from({ length: 1000 }, newId);
  assert.equal(new Set(ids).size, 1000);
  const shape = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
  assert.ok(ids.every((id) => shape.test(id)));
});

const storage = (items = new Map()) => ({
  items,
  getItem: (key) => items.get(key) ?? null,
  setItem: (key, value) => void items.set(key, value),
  removeItem: (key) => void items.delete(key),
});

test("a web store gives back what it was given", () => {
  const kept = storage();
  const request = { id: "i", type: "chat.send_message", data: { message: "é" } };
  const store = webStore(kept, "k");
  store.savePosition({ epoch: "e", offset: 3 });
  store.saveOutbox([request]);
  assert.deepEqual(webStore(kept, "k").load(), {
    position: { epoch: "e", offset: 3 },
    outbox: [request],
  });
  assert.deepEqual(webStore(kept, "other").load(), { position: null, outbox: [] });
  store.saveOutbox([]);
  assert.deepEqual([...kept.items.keys()], ["k:position"]);
});

test("a web store may keep the messages only", () => {
  const kept = storage();
  const store = webStore(kept, "k", { position: false });
  store.savePosition({ epoch: "e", offset: 3 });
  assert.equal(kept.items.size, 0);
  assert.equal(store.load().position, null);
});

test("a storage that is forbidden, full or damaged is as good as an empty one", () => {
  const forbidden = { getItem: fail, setItem: fail, removeItem: fail };
  const store = webStore(forbidden, "k");
  store.saveOutbox([{ id: "i" }]);
  store.savePosition(null);
  assert.deepEqual(store.load(), { position: null, outbox: [] });
  const damaged = webStore(storage(new Map([["k:outbox", "{"]])), "k");
  assert.deepEqual(damaged.load().outbox, []);
});

function fail() {
  throw new Error("forbidden");
}
