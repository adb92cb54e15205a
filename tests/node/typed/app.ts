// What a front end writes; `tsc` holds it to the schema.
import { graphql } from './generated';
import type { JobStatus } from './generated/graphql';
import type { ResultOf, VariablesOf } from '@graphql-typed-document-node/core';

export const Enqueue = graphql(`
  mutation Enqueue($queue: String!, $payload: JSON) {
    enqueueJob(queue: $queue, kind: "video.generate", payload: $payload)
  }
`);

export const Dead = graphql(`
  query Dead($after: String, $order: JobOrder!) {
    jobs(filter: { status: [DEAD] }, orderBy: $order, first: 50, after: $after) {
      nodes { id error status attemptHistory { number outcome worker { name } } waitingFor { reason } }
      pageInfo { hasNextPage endCursor }
    }
  }
`);

export const Watch = graphql(`
  subscription Watch($id: ID!) { jobProgress(id: $id) { status percent message } }
`);

export const variables: VariablesOf<typeof Dead> = { after: null, order: 'NEWEST_FIRST' };
export function summary(found: ResultOf<typeof Dead>): [string, JobStatus, string | null | undefined][] {
  return found.jobs.nodes.map((job) => [job.id, job.status, job.attemptHistory[0]?.worker?.name]);
}
// @ts-expect-error the schema knows no such variable
export const wrong: VariablesOf<typeof Watch> = { jobId: 'x' };
