// Enqueues and watches through graphql-sse, a connection for each. Prints each update as a line of JSON.
import { createClient } from 'graphql-sse';

const [url, token] = process.argv.slice(2);
const client = createClient({ url: `${url}/graphql`, headers: { authorization: `Bearer ${token}` } });

const say = (value) => console.log(JSON.stringify(value));
let id;
for await (const { data } of client.iterate({
  query: 'mutation { enqueueJob(queue: "media-gen", kind: "video.generate") }',
})) id = data.enqueueJob;
say({ id });
for await (const { data, errors } of client.iterate({
  query: 'subscription ($id: ID!) { jobProgress(id: $id) { status percent message result } }',
  variables: { id },
})) say(errors ? { errors } : data.jobProgress);
client.dispose();
