// Enqueues over HTTP and watches over a WebSocket, both through @apollo/client. Prints each update as a line of JSON.
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from '@apollo/client';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { OperationTypeNode } from 'graphql';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';

const [url, token] = process.argv.slice(2);
const socket = createClient({
  url: `${url.replace('http', 'ws')}/graphql`,
  webSocketImpl: WebSocket,
  connectionParams: { authorization: `Bearer ${token}` },
});
const http = new HttpLink({ uri: `${url}/graphql`, headers: { authorization: `Bearer ${token}` } });
const client = new ApolloClient({
  cache: new InMemoryCache(),
  link: ApolloLink.split(
    ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION, new GraphQLWsLink(socket), http,
  ),
});

const say = (value) => console.log(JSON.stringify(value));
const { data } = await client.mutate({
  mutation: gql`mutation { enqueueJob(queue: "media-gen", kind: "video.generate") }`,
});
const id = data.enqueueJob;
say({ id });
const query = gql`subscription ($id: ID!) { jobProgress(id: $id) { status percent message result } }`;
await new Promise((resolve, reject) => {
  client.subscribe({ query, variables: { id } }).subscribe({
    next: ({ data: { jobProgress: { __typename, ...update } } }) => say(update),
    error: reject,
    complete: resolve,
  });
});
await socket.dispose();
