import { randomUUID } from "node:crypto";
import { Attempt } from "./attempt.js";
import { Backoff } from "./backoff.js";
import { Client } from "./client.js";
import { Refused, Unavailable, WorkerRejected } from "./errors.js";
import { message, Outbox } from "./outbox.js";
import type { Handler, Job, Logger } from "./types.js";

const MOST_PER_LEASE = 100;
const MOST_UNREPORTED = 1000;
const HANG_UP_MS = 250; // an answer that is on its way is waited for
const RETURN_SECS = 4;

export interface WorkerOptions {
  /** The service's address, with a path prefix where it has one. Default: the variable ATOMO_URL. */
  url?: string;
  /** The worker token. Default: the variable ATOMO_WORKER_TOKEN. */
  token?: string;
  queues: string[];
  /** Jobs in hand at most. Default: 1. */
  concurrency?: number;
  /** Seconds that a lease lasts without a heartbeat. Default: 30. */
  visibilitySecs?: number;
  /** Seconds that an idle request waits on the service. Default: 25. */
  waitSecs?: number;
  /** Seconds that jobs in hand may take to finish after a stop; the rest is handed back. Default: 25. */
  drainSecs?: number;
  /** Lease only jobs of these kinds. Default: every kind; one without a handler is dead. */
  kinds?: string[];
  /** Stop on SIGTERM and SIGINT; the second one hands back at once. Default: false. */
  handleSignals?: boolean;
  logger?: Logger;
}

export function createWorker(options: WorkerOptions): Worker {
  return new Worker(options);
}

/** Leases jobs, runs their handlers, and reports how they ended. It runs once. */
export class Worker {
  readonly #options: Required<Omit<WorkerOptions, "kinds">> & { kinds?: string[] };
  readonly #handlers = new Map<string, Handler>();
  readonly #client: Client;
  readonly #outbox: Outbox;
  readonly #inHand = new Set<Attempt>();
  readonly #hangUp = new AbortController();
  #running = 0;
  #isInBetween = false;
  #stopping = false;
  #started: Promise<void> | undefined;
  #rejection: WorkerRejected | undefined;
  #changed = signal();
  #stopped = signal();
  #drained = signal();
  #back = signal();

  constructor(options: WorkerOptions) {
    this.#options = checked(options);
    this.#client = new Client(this.#options.url, this.#options.token);
    this.#outbox = new Outbox(
      this.#client,
      Math.max(1, Math.min(30, this.#options.visibilitySecs / 3)),
      this.#options.logger,
      () => this.#isInBetween && !this.#stopping && this.#room() > 0,
      () => this.#back.fire(),
    );
  }

  /** The function handles jobs of this kind. Throws for a kind that is blank or has a handler. */
  on(kind: string, handler: Handler): this {
    if (typeof kind !== "string" || !kind.trim()) throw new TypeError("kind must be a name that is not blank");
    if (typeof handler !== "function") throw new TypeError("handler must be a function");
    if (this.#handlers.has(kind)) throw new Error(`kind ${JSON.stringify(kind)} has a handler already`);
    this.#handlers.set(kind, handler);
    return this;
  }

  /** Run until stop(). Throws WorkerRejected when the service refuses the token or the queues. */
  start(): Promise<void> {
    if (this.#started) throw new Error("a worker runs once: make a new one");
    return (this.#started = this.#run());
  }

  /** Lease no more, finish what is in hand within drainSecs, hand back the rest; `now`: hand back at once. */
  async stop({ now = false } = {}): Promise<void> {
    this.#stopping = true;
    if (now) this.#drained.fire();
    this.#stopped.fire();
    await this.#started?.catch(() => undefined);
  }

  async #run(): Promise<void> {
    const { logger, queues, concurrency, handleSignals } = this.#options;
    const onSignal = () => void this.stop({ now: this.#stopping });
    if (handleSignals) for (const name of ["SIGTERM", "SIGINT"] as const) process.on(name, onSignal);
    logger.info(`started: queues ${queues.join(",")}, concurrency ${concurrency}`);
    const leasing = this.#lease();
    leasing.catch(() => this.#stopped.fire());
    try {
      await this.#stopped.wait();
      const hangUp = setTimeout(() => this.#hangUp.abort(), HANG_UP_MS);
      await leasing.catch((error) => this.#judge(error));
      clearTimeout(hangUp);
      await this.#drain();
    } finally {
      this.#outbox.close();
      if (handleSignals) for (const name of ["SIGTERM", "SIGINT"] as const) process.off(name, onSignal);
      logger.info("stopped");
    }
    if (this.#rejection) throw this.#rejection;
  }

  async #drain(): Promise<void> {
    if (this.#inHand.size && !this.#rejection) {
      await pause(this.#options.drainSecs, this.#allDone(), this.#drained.wait());
    }
    for (const attempt of this.#inHand) attempt.cut(this.#rejection?.status === 401 ? "rejected" : "stopping");
    await pause(this.#rejection ? 0 : RETURN_SECS, this.#allDone());
  }

  #allDone(): Promise<unknown> {
    return Promise.all([...this.#inHand].map((attempt) => attempt.done));
  }

  async #lease(): Promise<void> {
    const { queues, visibilitySecs, waitSecs, kinds } = this.#options;
    const idle = new Backoff(0.1, 1);
    while (!this.#stopping) {
      const room = await this.#waitForRoom();
      if (!room) return;
      const reports = this.#outbox.take();
      const body = { queues, capacity: room, visibilitySecs, waitSecs, requestId: randomUUID(), ...(kinds && { kinds }) };
      const askedAt = performance.now();
      const jobs = await this.#answer(body, reports);
      for (const job of jobs) this.#begin(job);
      if (jobs.length || reports.length) {
        idle.reset();
        await new Promise(setImmediate); // handlers that end at once have their reports ride on the next request
      } else if (performance.now() - askedAt < waitSecs * 500 || !waitSecs) {
        await pause(idle.pause(), this.#stopped.wait()); // it does not wait: not asked in a hot loop
      }
    }
  }

  /** Ask until there is an answer: by its id the service knows the request, and gives nothing twice. */
  async #answer(body: object, reports: ReturnType<Outbox["take"]>): Promise<Job[]> {
    const trouble = new Backoff();
    const timeoutSecs = this.#options.waitSecs + 10;
    for (let tries = 1; ; tries += 1) {
      try {
        const texts = reports.map((report) => report.text);
        const { jobs, outcomes } = await this.#client.lease(body, texts, timeoutSecs, this.#hangUp.signal);
        this.#outbox.answered();
        this.#outbox.settle(reports, outcomes);
        return jobs;
      } catch (error) {
        const mayBlameReports = reports.length > 0 && error instanceof Refused && [400, 413].includes(error.status);
        if (reports.length) this.#outbox.putBack(reports, error, { wereRiding: true });
        reports = []; // their outcomes shall not wait for a lease
        if (mayBlameReports) continue;
        if (!(error instanceof Unavailable)) throw error;
        if (this.#stopping) return [];
        if (tries === 1) this.#options.logger.warn(`no lease: ${error.message}; asking until it answers`);
        this.#back = signal();
        const others = error.retryAfter ? [this.#stopped.wait()] : [this.#stopped.wait(), this.#back.wait()];
        await pause(trouble.pause(error.retryAfter), ...others);
      }
    }
  }

  /** For how many jobs there is room, once there is some; 0 when the worker stops. */
  async #waitForRoom(): Promise<number> {
    this.#isInBetween = true;
    try {
      while (!this.#stopping && this.#room() <= 0) {
        this.#changed = signal();
        await Promise.race([this.#changed.wait(), this.#stopped.wait()]);
      }
    } finally {
      this.#isInBetween = false;
    }
    return this.#stopping ? 0 : Math.min(this.#room(), MOST_PER_LEASE);
  }

  #room(): number {
    const unreported = this.#inHand.size - this.#running;
    return unreported >= this.#options.concurrency + MOST_UNREPORTED ? 0 : this.#options.concurrency - this.#running;
  }

  #begin(job: Job): void {
    this.#running += 1;
    const attempt: Attempt = new Attempt(job, this.#handlers.get(job.kind), {
      outbox: this.#outbox,
      visibilitySecs: this.#options.visibilitySecs,
      logger: this.#options.logger,
      onRoom: () => {
        this.#running -= 1;
        this.#changed.fire();
      },
      onRefused: (error) => {
        if (error.status === 401) this.#judge(error);
      },
    });
    this.#inHand.add(attempt);
    void attempt.done.finally(() => {
      this.#inHand.delete(attempt);
      this.#changed.fire();
    });
    if (this.#stopping) attempt.cut("stopping"); // it came with the last answer
  }

  #judge(error: unknown): void {
    this.#rejection ??= new WorkerRejected(
      `the service refuses this worker: ${message(error)}`,
      error instanceof Refused ? error.status : 0,
    );
    this.#stopping = true;
    this.#drained.fire();
    this.#stopped.fire();
  }
}

interface Signal {
  fire(): void;
  wait(): Promise<void>;
}

function signal(): Signal {
  let fire!: () => void;
  const fired = new Promise<void>((resolve) => (fire = resolve));
  return { fire, wait: () => fired };
}

/** So many seconds, or until one of the others is done; no timer is left behind. */
async function pause(seconds: number, ...others: Promise<unknown>[]): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timed = new Promise<void>((resolve) => (timer = setTimeout(resolve, seconds * 1000)));
  await Promise.race([timed, ...others]);
  clearTimeout(timer);
}

function checked(options: WorkerOptions): Required<Omit<WorkerOptions, "kinds">> & { kinds?: string[] } {
  const url = (options.url ?? process.env["ATOMO_URL"] ?? "").replace(/\/+$/, "");
  const token = options.token ?? process.env["ATOMO_WORKER_TOKEN"] ?? "";
  if (!/^https?:\/\/[^/?#]+[^?#]*$/.test(url)) {
    throw new TypeError("url must be an http:// or https:// address, with a path prefix at most, or ATOMO_URL be set");
  }
  if (!/^[!-~]+$/.test(token)) throw new TypeError("token must be a worker token, or ATOMO_WORKER_TOKEN be set");
  for (const [name, list] of [["queues", options.queues], ["kinds", options.kinds ?? ["any"]]] as const) {
    if (!Array.isArray(list) || !list.length || !list.every((item) => typeof item === "string" && item.trim())) {
      throw new TypeError(`${name} must be a list of names that are not blank`);
    }
  }
  return {
    url,
    token,
    queues: [...new Set(options.queues)],
    concurrency: whole("concurrency", options.concurrency ?? 1, 1, 10_000),
    visibilitySecs: whole("visibilitySecs", options.visibilitySecs ?? 30, 1, 86_400),
    waitSecs: whole("waitSecs", options.waitSecs ?? 25, 0, 60),
    drainSecs: whole("drainSecs", options.drainSecs ?? 25, 0, 86_400),
    handleSignals: options.handleSignals ?? false,
    logger: options.logger ?? console,
    ...(options.kinds && { kinds: options.kinds }),
  };
}

function whole(name: string, value: number, least: number, most: number): number {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`${name} must be a whole number from ${least} to ${most}, not ${value}`);
  }
  return value;
}
