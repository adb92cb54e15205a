// A real Chromium: node browser.mjs PAGE SERVER TOKEN FOLDER. Prints what it saw, a JSON line each; screenshots go to FOLDER.
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const [, , page, server, token, folder] = process.argv;
const say = (value) => console.log(JSON.stringify(value));
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
});
const tab = await browser.newPage();
await tab.setViewport({ width: 1280, height: 800 });
const elsewhere = new Set();
const broken = [];
tab.on("request", (request) => {
  const url = new URL(request.url());
  if (!["data:", "blob:", "file:"].includes(url.protocol) && url.origin !== server) elsewhere.add(url.origin);
});
tab.on("pageerror", (error) => broken.push(String(error)));
tab.on("console", (message) => message.type() === "error" && broken.push(message.text()));
const picture = (name) => tab.screenshot({ path: join(folder, `${name}.png`) });
const text = (selector) => tab.$eval(selector, (element) => element.textContent);
const until = (condition) =>
  tab.waitForFunction(condition, { timeout: 20_000 }).catch(async (error) => {
    await picture("failed");
    throw error;
  });

if (page === "graphiql") {
  await tab.goto(`${server}/graphql`, { waitUntil: "networkidle0" });
  say({ without: await text("header [role=status]") });
  await picture("graphiql-without-a-token");
  await tab.goto("about:blank");
  await tab.goto(`${server}/graphql#token=${token}`, { waitUntil: "networkidle0" });
  say({ address: tab.url(), who: await text("header [role=status]") });
  await tab.click("button.graphiql-execute-button");
  await until(() => document.querySelector(".result-window")?.textContent.includes("enqueueJob"));
  const id = (await text(".result-window")).match(/[0-9a-f]{8}-[0-9a-f-]{27}/)[0];
  await picture("graphiql-mutation");
  say({ id });
  await tab.evaluate(() => [...document.querySelectorAll(".graphiql-tab button")].find((b) => b.textContent.includes("Watch")).click());
  await until(() => document.querySelector(".query-editor, .graphiql-query-editor")?.textContent.includes("jobProgress"));
  await tab.evaluate((id) => {
    const editors = [...document.querySelectorAll(".CodeMirror")].map((element) => element.CodeMirror);
    editors.find((editor) => /^{\s*"id"/.test(editor.getValue())).setValue(JSON.stringify({ id }));
  }, id);
  // GraphiQL learns the name of the tab's operation a moment after it shows it; press again if it was too early.
  await until(() => {
    const result = document.querySelector(".result-window")?.textContent ?? "";
    if (result.includes("QUEUED")) return true;
    if ((window.pressedAt ?? 0) < Date.now() - 1_000) {
      window.pressedAt = Date.now();
      document.querySelector("button.graphiql-execute-button").click();
    }
    return false;
  });
  say({ watching: true });
  await until(() => document.querySelector(".result-window")?.textContent.includes("SUCCEEDED"));
  await picture("graphiql-subscription");
  say({ end: await text(".result-window") });
} else {
  const file = pathToFileURL(page).href;
  await tab.goto(`${file}#server=${encodeURIComponent(server)}&token=${token}`);
  await tab.click("button");
  await until(() => document.querySelector("article b")?.textContent === "queued");
  say({ id: await text("article code") });
  await until(() => document.querySelector("article .track")?.ariaValueNow === "50");
  await picture("example-half");
  say({ half: await text("article .word") });
  await until(() => document.querySelector("article.succeeded, article.dead"));
  await picture("example-end");
  await tab.setViewport({ width: 380, height: 700 });
  await picture("example-narrow");
  say({ end: await text("article pre") });
}
await browser.close();
say({ elsewhere: [...elsewhere], broken });
