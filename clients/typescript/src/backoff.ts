const FIRST_SECONDS = 0.1;
const LONGEST_SECONDS = 15;
const LONGEST_RETRY_AFTER_SECONDS = 300;

/** Exponential back-off with full jitter: uniform between nothing and a bound that doubles. */
export class Backoff {
  #bound: number;

  constructor(
    private readonly first = FIRST_SECONDS,
    private readonly longest = LONGEST_SECONDS,
  ) {
    this.#bound = first;
  }

  /** Seconds to wait now, and never less than the service asked for. */
  pause(retryAfter = 0): number {
    const jittered = Math.random() * this.#bound;
    this.#bound = Math.min(this.#bound * 2, this.longest);
    return retryAfter + jittered;
  }

  reset(): void {
    this.#bound = this.first;
  }
}

/** Seconds from a Retry-After header, which holds seconds or an HTTP date; undefined where there is none to read. */
export function parseRetryAfter(value: string | null, now = Date.now()): number | undefined {
  if (!value) return undefined;
  const seconds = /^\d+$/.test(value.trim()) ? Number(value) : (Date.parse(value) - now) / 1000;
  return Number.isNaN(seconds) ? undefined : Math.min(Math.max(seconds, 0), LONGEST_RETRY_AFTER_SECONDS);
}
