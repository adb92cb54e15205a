// Enqueues over HTTP and watches over a WebSocket, both through @urql/core. Prints each update as a line of JSON.
import { Client, fetchExchange, gql, subscriptionExchange } from '@urql/core';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';

const [url, token] = process.argv.slice(2);
const socket = createClient({
  url: `${url.replace('http', 'ws')}/graphql`,
  webSocketImpl: WebSocket,
  connectionParams: { authorization: `Bearer ${token}` },
});
const client = new Client({
  url: `${url}/graphql`,
  preferGetMethod: true,
  fetchOptions: { headers: { authorization: `Bearer ${token}` } },
  exchanges: [
    fetchExchange,
    subscriptionExchange({
      forwardSubscription: ({ query, variables }) => ({
        subscribe: (sink) => ({ unsubscribe: socket.subscribe({ query, variables }, sink) }),
      }),
    }),
  ],
});

const say = (value) => console.log(JSON.stringify(value));
const made = await client.mutation(gql`mutation { enqueueJob(queue: "media-gen", kind: "video.generate") }`, {});
if (made.error) throw made.error;
const id = made.data.enqueueJob;
const looked = await client.query(gql`query ($id: ID!) { job(id: $id) { id } }`, { id });
say({ id: looked.data.job.id });
const query = gql`subscription ($id: ID!) { jobProgress(id: $id) { status percent message result } }`;
await new Promise((resolve, reject) => {
  const watching = client.subscription(query, { id }).subscribe(({ data, error }) => {
    if (error) return reject(error);
    say(data.jobProgress);
    if (['SUCCEEDED', 'DEAD'].includes(data.jobProgress.status)) {
      watching.unsubscribe();
      resolve();
    }
  });
});
await socket.dispose();
