import assert from "node:assert/strict";
import { test } from "node:test";
import { Backoff, parseRetryAfter } from "../dist/backoff.js";
import { createWorker, RetryAfterError } from "../dist/index.js";

test("back-off doubles its bound up to the longest, and never waits less than it was told", () => {
  const backoff = new Backoff(1, 4);
  for (const bound of [1, 2, 4, 4]) assert.ok(backoff.pause() <= bound);
  assert.ok(backoff.pause(7) >= 7);
});

test("Retry-After holds seconds, or a date", () => {
  assert.equal(parseRetryAfter("3"), 3);
  assert.equal(parseRetryAfter("Thu, 01 Jan 1970 00:00:10 GMT", 4_000), 6);
  assert.equal(parseRetryAfter("Thu, 01 Jan 1970 00:00:10 GMT", 40_000), 0);
  assert.equal(parseRetryAfter("99999"), 300);
  for (const value of [null, "", "soon"]) assert.equal(parseRetryAfter(value), undefined);
});

test("RetryAfterError takes a header's text, and nothing that is no number", () => {
  assert.equal(new RetryAfterError(" 30 ").seconds, 30);
  assert.equal(new RetryAfterError(1.5).seconds, 1.5);
  for (const wrong of ["", "soon", NaN]) assert.throws(() => new RetryAfterError(wrong), /takes a number of seconds/);
});

test("an argument that is wrong is named, with its rule", () => {
  const good = { url: "http://127.0.0.1:1", token: "wkr_x", queues: ["q"] };
  for (const [wrong, said] of [
    [{ url: "ftp://x" }, /url must be an http/],
    [{ token: "wkr x" }, /token must be/],
    [{ queues: [] }, /queues must be/],
    [{ queues: "q" }, /queues must be/],
    [{ kinds: [""] }, /kinds must be/],
    [{ concurrency: 0 }, /concurrency must be a whole number from 1 to 10000/],
    [{ visibilitySecs: 1.5 }, /visibilitySecs must be/],
    [{ waitSecs: 61 }, /waitSecs must be/],
  ]) {
    assert.throws(() => createWorker({ ...good, ...wrong }), said);
  }
  const worker = createWorker(good).on("k", () => 1);
  assert.throws(() => worker.on("k", () => 1), /has a handler already/);
  assert.throws(() => worker.on(" ", () => 1), /not blank/);
  assert.throws(() => worker.on("x"), /must be a function/);
});
