import { Backoff } from "./backoff.js";
import type { Client, Outcome } from "./client.js";
import { LeaseLost, Refused, Unavailable } from "./errors.js";
import type { Job, Logger } from "./types.js";

const MOST = 1000;
const MOST_CHARACTERS = 1_000_000;
const FLIGHTS = 4;

// What ended a lease, where a report of that type had arrived and only its answer was lost.
const ARRIVED: Record<string, readonly string[]> = {
  complete: ["succeeded"],
  fail: ["failed", "dead"],
  release: ["released", "dead"],
};

/** A report on its way. One that ends its lease is sent until it is answered; the others give up with their request. */
export interface Report {
  type: string;
  job: Job;
  text: string;
  tries: number;
  resolve(outcome: Outcome): void;
  reject(error: Error): void;
}

/** Half a character (a text cut within an emoji) is no JSON that others read: it is spelled out, as the text \\ud800. */
function wellFormed(text: string): string {
  return text.replace(/(?<!\\)((?:\\\\)*)\\(?=u[dD][89a-fA-F][0-9a-fA-F]{2})/g, "$1\\\\");
}

/**
 * Reports on their way: one goes out at once when nothing is in flight; while requests are in flight the next ones gather.
 * Where the lease loop is about to ask anyway (`isCarried`), it takes them along.
 */
export class Outbox {
  readonly #waiting: Report[] = [];
  readonly #backoff = new Backoff();
  #flights = 0;
  #scheduled = false;
  #resume: NodeJS.Timeout | undefined;

  constructor(
    private readonly client: Client,
    private readonly timeoutSecs: number,
    private readonly logger: Logger,
    private readonly isCarried: () => boolean,
    private readonly onAnswer: () => void,
  ) {}

  /** Its outcome, once the service has answered. Throws LeaseLost and Refused; Unavailable where it ends no lease. */
  send(type: string, job: Job, fields: object = {}): Promise<Outcome> {
    const text = wellFormed(JSON.stringify({ type, id: job.id, leaseId: job.leaseId, ...fields }));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ type, job, text, tries: 0, resolve, reject });
      this.#schedule();
    });
  }

  /** What is to be sent next, in one request. */
  take(): Report[] {
    let size = 0;
    let count = 0;
    for (const report of this.#waiting) {
      size += report.text.length;
      if (count && (size > MOST_CHARACTERS || count >= MOST)) break;
      report.tries += 1;
      count += 1;
    }
    return this.#waiting.splice(0, count);
  }

  settle(batch: readonly Report[], outcomes: readonly Outcome[]): void {
    batch.forEach((report, place) => {
      const outcome = outcomes[place]!;
      const hasArrived = report.tries > 1 && !!ARRIVED[report.type]?.includes(outcome.ended ?? "");
      if (outcome.status === 200 || outcome.status === 204 || (outcome.status === 409 && hasArrived)) {
        report.resolve(outcome);
      } else if (outcome.status === 409) {
        report.reject(new LeaseLost(`409 ${outcome.detail ?? ""}`));
      } else {
        report.reject(new Refused(`${outcome.status} ${outcome.detail ?? ""}`, outcome.status));
      }
    });
  }

  /** The request was not answered with success: what ends a lease is sent again, unless that is hopeless. */
  putBack(batch: readonly Report[], error: unknown, { wereRiding = false } = {}): void {
    const isOfMany = wereRiding || batch.length > 1;
    if (error instanceof Refused && isOfMany && (error.status === 400 || error.status === 413)) {
      for (const report of batch) void this.#fly([report]); // something in it is to blame: each for itself
      return;
    }
    const again: Report[] = [];
    for (const report of batch) {
      if (error instanceof Refused || !(report.type in ARRIVED)) {
        report.reject(error as Error);
        continue;
      }
      if (report.tries === 1) {
        this.logger.warn(`${report.job.kind} ${report.job.id}: ${report.type} not taken yet (${message(error)}), sending it again`);
      }
      again.push(report);
    }
    this.#waiting.unshift(...again);
    const pause = this.#backoff.pause(error instanceof Unavailable ? error.retryAfter : undefined);
    this.#resume ??= setTimeout(() => this.#goOn(), pause * 1000);
  }

  /** The service is there: what waits for it to come back goes out at once. */
  answered(): void {
    this.#backoff.reset();
    if (this.#resume) this.#goOn();
  }

  close(): void {
    clearTimeout(this.#resume);
    this.#waiting.length = 0;
  }

  #goOn(): void {
    clearTimeout(this.#resume);
    this.#resume = undefined;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled || this.#resume || this.#flights >= FLIGHTS) return;
    this.#scheduled = true;
    setImmediate(() => {
      // What ends in one turn of the event loop goes together.
      this.#scheduled = false;
      if (this.#waiting.length && !this.#resume && !this.isCarried()) void this.#fly(this.take());
    });
  }

  async #fly(batch: Report[]): Promise<void> {
    this.#flights += 1;
    try {
      const outcomes = await this.client.report(batch.map((report) => report.text), this.timeoutSecs);
      this.answered();
      this.onAnswer();
      this.settle(batch, outcomes);
    } catch (error) {
      this.putBack(batch, error);
    } finally {
      this.#flights -= 1;
      if (this.#waiting.length) this.#schedule();
    }
  }
}

export function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
