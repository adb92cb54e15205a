import { parseRetryAfter } from "./backoff.js";
import { Refused, Unavailable } from "./errors.js";
import type { Job } from "./types.js";

const LATER = new Set([408, 425, 429]);
const PASSING = new Set([404, 405]); // another server may stand there for a while, as in a deployment

/** What became of one report: the status its own call would have had, and the fields of that answer. */
export interface Outcome {
  status: number;
  code?: string;
  detail?: string;
  ended?: string;
  outcome?: "retry" | "dead";
  delaySecs?: number;
}

export interface Answer {
  jobs: Job[];
  outcomes: Outcome[];
}

/** The protocol's calls, each tried once. They throw Unavailable and Refused. */
export class Client {
  constructor(
    private readonly url: string,
    private readonly token: string,
  ) {}

  async lease(body: object, reports: readonly string[], timeoutSecs: number, signal: AbortSignal): Promise<Answer> {
    const riding = reports.length ? `,"reports":[${reports.join(",")}]` : "";
    const text = JSON.stringify(body).slice(0, -1) + riding + "}";
    const answer = await this.#post("/jobs/lease", text, timeoutSecs, signal);
    if (!Array.isArray(answer?.jobs)) throw new Unavailable("the answer to a lease is not the protocol's");
    return { jobs: answer.jobs, outcomes: checked(reports.length ? answer.outcomes : [], reports.length) };
  }

  async report(reports: readonly string[], timeoutSecs: number): Promise<Outcome[]> {
    const answer = await this.#post("/jobs/reports", `{"reports":[${reports.join(",")}]}`, timeoutSecs);
    return checked(answer?.outcomes, reports.length);
  }

  async #post(path: string, body: string, timeoutSecs: number, signal?: AbortSignal): Promise<any> {
    const timeout = AbortSignal.timeout(timeoutSecs * 1000);
    let response: Response;
    let text: string;
    try {
      response = await fetch(this.url + path, {
        method: "POST",
        headers: { "X-Worker-Token": this.token, "Content-Type": "application/json", "User-Agent": "atomo-gql-worker-ts" },
        body,
        redirect: "manual", // it could carry the token to another host
        signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      });
      text = await response.text();
    } catch (error) {
      throw new Unavailable(timeout.aborted ? "the server did not answer in time" : reason(error));
    }
    const answer = parsed(text);
    if (response.ok) return answer;
    const { status } = response;
    const message = `${status} ${answer?.detail ?? response.statusText}`.trim();
    if (status < 400 || status >= 500 || LATER.has(status) || PASSING.has(status)) {
      throw new Unavailable(message, parseRetryAfter(response.headers.get("retry-after")));
    }
    throw new Refused(message, status);
  }
}

function checked(outcomes: unknown, count: number): Outcome[] {
  if (!Array.isArray(outcomes) || outcomes.length !== count) {
    throw new Unavailable("the outcomes of the reports are not the protocol's");
  }
  return outcomes;
}

function parsed(text: string): any {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function reason(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return cause instanceof Error ? cause.message || cause.name : String(cause);
}
