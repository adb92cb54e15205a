// GraphiQL with a bar for the token, without which nothing here answers.
import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { GraphiQL } from "graphiql";
import { createClient } from "graphql-ws";
import { useEffect, useMemo, useState } from "react";
import { createRoot } from "react-dom/client";
import "graphiql/graphiql.css";
import "./bar.css";

const KEY = "atomo-token";
const ENQUEUE = `# Enqueue a job: its id comes back.
# Watch it in the next tab.
mutation Enqueue {
  enqueueJob(
    queue: "media-gen"
    kind: "video.generate"
  )
}
`;
const WATCH = `# The present state, each update, the end.
# Put the id into the variables below.
subscription Watch($id: ID!) {
  jobProgress(id: $id) {
    status
    attempts
    percent
    message
    result
    error
  }
}
`;
const LOOK = `query Look {
  jobs(first: 10) {
    nodes {
      id queue kind status attempts error
      waitingFor { message }
    }
  }
  queues {
    nodes {
      name isPaused
      depth { queued scheduled leased dead }
    }
  }
}
`;

/** A token from the address (#token=…, which is removed from it at once), or the one this tab had. */
function firstToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(KEY) ?? "";
}

/** What a token says of itself, or null when it is none. The server checks it; this is for the eyes. */
function claimsOf(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(part), (c) => c.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    return claims && typeof claims === "object" ? claims : null;
  } catch {
    return null;
  }
}

function timeLeft(seconds) {
  if (seconds < 120) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 7_200) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3_600)} h` : `${Math.floor(seconds / 86_400)} days`;
}

function describe(token, now) {
  if (!token) return { tone: "wrong", text: "Paste a token: every request needs one. Try: atomo-gql token --role admin" };
  const claims = claimsOf(token);
  if (!claims) return { tone: "wrong", text: "That is no JWT." };
  const left = Number(claims.exp) - now / 1000;
  if (!(left > 0)) return { tone: "wrong", text: `The token of ${claims.sub ?? "nobody"} has expired.` };
  const who = [claims.sub, claims.role && `role ${claims.role}`, claims.tenant_id && `tenant ${claims.tenant_id}`];
  return { tone: left < 60 ? "soon" : "good", text: `${who.filter(Boolean).join(" · ")} · ${timeLeft(left)} left` };
}

function Bar({ token, onToken }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1_000);
    return () => clearInterval(timer);
  }, []);
  const { tone, text } = describe(token, now);
  return (
    <header className="atomo-bar">
      <strong>atomo_gql</strong>
      <input
        aria-label="Token (JWT)"
        type="password"
        autoComplete="off"
        spellCheck={false}
        placeholder="eyJ…"
        value={token}
        onChange={(event) => onToken(event.target.value.trim().replace(/^bearer\s+/i, ""))}
      />
      <span role="status" className={`atomo-${tone}`}>{text}</span>
    </header>
  );
}

function App() {
  const [token, setToken] = useState(firstToken);
  useEffect(() => {
    token ? sessionStorage.setItem(KEY, token) : sessionStorage.removeItem(KEY);
  }, [token]);
  const isUsable = describe(token, Date.now()).tone !== "wrong";
  const fetcher = useMemo(() => {
    const url = location.pathname;
    const authorization = `Bearer ${token}`;
    const wsClient = createClient({
      url: `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${url}`,
      connectionParams: { authorization },
      lazy: true,
    });
    return createGraphiQLFetcher({ url, wsClient, headers: { authorization }, enableIncrementalDelivery: false });
  }, [token]);
  return (
    <>
      <Bar token={token} onToken={setToken} />
      <GraphiQL
        key={isUsable ? token : ""}
        fetcher={fetcher}
        schema={isUsable ? undefined : null}
        isHeadersEditorEnabled={false}
        shouldPersistHeaders={false}
        defaultTabs={[
          { query: ENQUEUE },
          { query: WATCH, variables: '{\n  "id": ""\n}' },
          { query: LOOK },
        ]}
      >
        <GraphiQL.Logo>{" "}</GraphiQL.Logo>
      </GraphiQL>
    </>
  );
}

createRoot(document.getElementById("root")).render(<App />);
