import { LeaseLost, NonRetryableError, Refused, RetryAfterError, Unavailable } from "./errors.js";
import { message, type Outbox } from "./outbox.js";
import type { Context, Handler, Job, Logger, Progress } from "./types.js";

const MOST_CHARACTERS = 2_000; // of a progress message
const UNACCEPTABLE = new Set([400, 413, 422]); // the body is at fault: another body may be taken

/** What the attempts of one worker share. */
export interface Surroundings {
  outbox: Outbox;
  visibilitySecs: number;
  logger: Logger;
  onRoom(attempt: Attempt): void;
  onRefused(error: Refused): void;
}

type Cut = "lost" | "timed out" | "stopping" | "rejected";

/** One leased job in hand: its handler, its heartbeats, and the report of how that ended, or its return. */
export class Attempt {
  isRunning = true;
  readonly done: Promise<void>;
  readonly #abort = new AbortController();
  #cut: Cut | undefined;
  #heartbeat: NodeJS.Timeout | undefined;
  #timeout: NodeJS.Timeout | undefined;
  #lastExtended = performance.now();

  constructor(
    readonly job: Job,
    private readonly handler: Handler | undefined,
    private readonly around: Surroundings,
  ) {
    this.done = this.#run();
  }

  /** End it before its handler does: the handler is told by its signal, and is not waited for. */
  cut(cause: Cut): void {
    if (this.#cut || !this.isRunning) return;
    this.#cut = cause;
    this.#abort.abort(new LeaseLost(`this attempt is over: ${cause}`));
  }

  async #run(): Promise<void> {
    const { outbox } = this.around;
    this.#heartbeat = setInterval(() => void this.#beat(), (this.around.visibilitySecs / 6) * 1000);
    if (this.job.timeoutSecs) this.#timeout = setTimeout(() => this.cut("timed out"), this.job.timeoutSecs * 1000);
    try {
      const report = await this.#handle();
      this.isRunning = false;
      this.around.onRoom(this);
      if (report) await this.#deliver(report);
      else if (this.#cut === "stopping") await outbox.send("release", this.job);
    } catch (error) {
      this.around.logger.warn(`${this.job.kind} ${this.job.id}: its end was not taken: ${message(error)}`);
      if (error instanceof Refused) this.around.onRefused(error);
    } finally {
      clearInterval(this.#heartbeat);
      clearTimeout(this.#timeout);
    }
  }

  /** The type and the fields of the report that ends it; undefined where the attempt was cut. */
  async #handle(): Promise<[string, object] | undefined> {
    if (!this.handler) {
      return ["fail", { error: `this worker has no handler for the kind ${JSON.stringify(this.job.kind)}`, retryable: false }];
    }
    const cut = new Promise<never>((_, reject) => {
      this.#abort.signal.addEventListener("abort", () => reject(this.#abort.signal.reason));
    });
    cut.catch(() => undefined);
    try {
      const result = await Promise.race([Promise.resolve(this.#context()).then(this.handler), cut]);
      return ["complete", { result: jsonable(result) }];
    } catch (error) {
      if (this.#cut === "timed out") return ["fail", { error: `timed out after ${this.job.timeoutSecs} s` }];
      if (this.#cut) return undefined;
      const fields = { error: described(error), retryable: !(error instanceof NonRetryableError) };
      return ["fail", error instanceof RetryAfterError ? { ...fields, retryAfterSecs: error.seconds } : fields];
    }
  }

  async #deliver([type, fields]: [string, object]): Promise<void> {
    const { outbox } = this.around;
    try {
      await outbox.send(type, this.job, fields);
    } catch (error) {
      if (!(error instanceof Refused) || !UNACCEPTABLE.has(error.status)) throw error;
      await outbox.send("fail", this.job, { error: `the server refused the ${type}: ${error.message}`, retryable: false });
    }
  }

  #context(): Context {
    const { visibilitySecs } = this.around;
    return {
      job: this.job,
      signal: this.#abort.signal,
      progress: async (update: Progress) => this.#extend("progress", { visibilitySecs, ...update, ...cut(update) }),
      heartbeat: async () => this.#extend("heartbeat", { visibilitySecs }),
    };
  }

  async #extend(type: string, fields: object): Promise<void> {
    this.#abort.signal.throwIfAborted();
    const sentAt = performance.now();
    try {
      await this.around.outbox.send(type, this.job, fields);
      this.#lastExtended = sentAt;
    } catch (error) {
      if (error instanceof LeaseLost) {
        this.cut("lost");
        throw error;
      }
      if (error instanceof Refused) this.around.onRefused(error);
      else if (!(error instanceof Unavailable)) throw error;
    }
  }

  async #beat(): Promise<void> {
    const { visibilitySecs } = this.around;
    if (this.#cut || performance.now() - this.#lastExtended < (visibilitySecs / 3.5) * 1000) return;
    this.#lastExtended = performance.now();
    await this.#extend("heartbeat", { visibilitySecs }).catch(() => undefined);
  }
}

/** The value, where it is JSON. */
function jsonable(value: unknown): unknown {
  try {
    const text = JSON.stringify(value);
    return text === undefined ? null : value;
  } catch (error) {
    throw new NonRetryableError(`the handler's result is not JSON: ${message(error)}`);
  }
}

/** The message, as far as the service takes it. */
function cut({ message }: Progress): { message?: string } {
  const text = message && [...message];
  return text && text.length > MOST_CHARACTERS ? { message: `${text.slice(0, MOST_CHARACTERS - 1).join("")}…` } : {};
}

function described(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const stack = error.stack?.split("\n").slice(1, 15).join("\n") ?? "";
  return `${error.name}: ${error.message}\n\n${stack}`.trim();
}
