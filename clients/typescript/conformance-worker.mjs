// What `atomo-gql conformance-worker` starts.
import { setTimeout as sleep } from "node:timers/promises";
import { createWorker, NonRetryableError } from "./dist/index.js";

await createWorker({
  queues: process.env.ATOMO_QUEUES.split(","),
  concurrency: Number(process.env.ATOMO_CONCURRENCY),
  visibilitySecs: Number(process.env.ATOMO_VISIBILITY_SECS),
  drainSecs: Number(process.env.ATOMO_DRAIN_SECS),
  handleSignals: true,
})
  .on("conformance.echo", (ctx) => ctx.job.payload)
  .on("conformance.sleep", async (ctx) => {
    await sleep(ctx.job.payload.seconds * 1000, undefined, { signal: ctx.signal });
    return { slept: ctx.job.payload.seconds };
  })
  .on("conformance.fail", (ctx) => {
    throw new Error(ctx.job.payload.message);
  })
  .on("conformance.fatal", (ctx) => {
    throw new NonRetryableError(ctx.job.payload.message);
  })
  .start();
