/**
 * A worker for atomo_gql: it leases jobs over HTTP, runs their handlers, and reports back.
 *
 *     const worker = createWorker({ url, token, queues: ["media"], concurrency: 4 }).on("video.generate", async (ctx) => {
 *       await ctx.progress({ percent: 0.1, message: "calling the provider" });
 *       return { assetId: 7 };
 *     });
 *     await worker.start();
 *
 * The protocol it speaks is docs/worker-protocol.md.
 */
export { createWorker, Worker, type WorkerOptions } from "./worker.js";
export type { Context, Handler, Job, Logger, Progress } from "./types.js";
export { LeaseLost, NonRetryableError, RetryAfterError, WorkerRejected } from "./errors.js";
