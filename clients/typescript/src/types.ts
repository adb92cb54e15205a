/** One leased job. Times are as the service says them; durations are seconds. */
export interface Job {
  readonly id: string;
  readonly queue: string;
  readonly kind: string;
  readonly payload: any;
  /** This attempt's number, from 1. */
  readonly attempts: number;
  readonly maxAttempts: number;
  /** Leases given so far, those that were handed back too. */
  readonly deliveries: number;
  readonly leaseId: string;
  readonly timeoutSecs: number | null;
  readonly deadline: string | null;
  /** The W3C trace context of whoever enqueued it. */
  readonly traceparent: string | null;
  readonly tenantId: string | null;
}

/** What a handler may tell whoever watches; `percent` is usually from 0 to 1. */
export interface Progress {
  percent?: number;
  message?: string;
  data?: unknown;
}

/** What a handler is given. */
export interface Context {
  readonly job: Job;
  /** Aborted when the lease is lost, the job's time is up, or the worker hands it back. */
  readonly signal: AbortSignal;
  /** Tell watchers, and extend the lease. One that cannot be delivered is dropped. Throws LeaseLost. */
  progress(update: Progress): Promise<void>;
  /** Extend the lease now. The worker does so by itself. Throws LeaseLost. */
  heartbeat(): Promise<void>;
}

/** What it returns, any JSON value, is the job's result; what it throws fails the attempt. */
export type Handler = (ctx: Context) => unknown;

export interface Logger {
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}
