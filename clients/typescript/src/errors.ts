/** Throw it from a handler when another attempt cannot help: the job is dead at once. */
export class NonRetryableError extends Error {
  override name = "NonRetryableError";
}

/** Throw it from a handler when a provider has said when to come back: the next attempt is in so many seconds. */
export class RetryAfterError extends Error {
  override name = "RetryAfterError";

  readonly seconds: number;

  /** Seconds, as a number or as the text of a Retry-After header. */
  constructor(seconds: number | string, message = `to be tried again in ${seconds} s`) {
    super(message);
    this.seconds = typeof seconds === "number" ? seconds : Number(seconds.trim() || NaN);
    if (!Number.isFinite(this.seconds)) {
      throw new TypeError(`RetryAfterError takes a number of seconds, not ${JSON.stringify(seconds)}`);
    }
  }
}

/** This attempt is over: another worker may have the job, or this one hands it back. */
export class LeaseLost extends Error {
  override name = "LeaseLost";
}

/** The service refuses this worker for good: its token (401) or its queues (403). */
export class WorkerRejected extends Error {
  override name = "WorkerRejected";

  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

/** No answer, or one that says "later". Seconds, where the service said when. */
export class Unavailable extends Error {
  constructor(
    message: string,
    readonly retryAfter?: number,
  ) {
    super(message);
  }
}

/** A 4xx: the same call again would be refused again. */
export class Refused extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}
