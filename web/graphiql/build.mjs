// Bundles src/ into the Python package: one script, one style sheet, the page that names them, and everybody's licence.
import { build } from "esbuild";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";

const TO = join(import.meta.dirname, "../../atomo_gql/api/graphql/vendor");
for (const name of (await readdir(TO)).filter((name) => !name.endsWith(".py") && !name.startsWith("__"))) {
  await rm(join(TO, name));
}
await mkdir(TO, { recursive: true });

const built = await build({
  entryPoints: [join(import.meta.dirname, "src/main.jsx")],
  outdir: TO,
  entryNames: "graphiql-[hash]",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  splitting: false,
  legalComments: "none",
  loader: { ".woff": "dataurl", ".woff2": "dataurl", ".ttf": "dataurl" },
  define: { "process.env.NODE_ENV": '"production"' },
  metafile: true,
});

const outputs = Object.keys(built.metafile.outputs).map((path) => basename(path));
const page = (await readFile(join(import.meta.dirname, "src/index.html"), "utf8"))
  .replace("{{css}}", outputs.find((name) => name.endsWith(".css")))
  .replace("{{js}}", outputs.find((name) => name.endsWith(".js")));
await writeFile(join(TO, "index.html"), page);

const used = new Set(
  Object.keys(built.metafile.inputs)
    .map((path) => path.match(/.*node_modules\/((?:@[^/]+\/)?[^/]+)/))
    .filter(Boolean)
    .map(([path]) => path),
);
const texts = [];
for (const folder of [...used].sort()) {
  const { name, version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
  const text = file ? (await readFile(join(folder, file), "utf8")).trim() : "(the package has no text of its own)";
  texts.push(`${name} ${version} (${license})\n\n${text}\n`);
}
await writeFile(join(TO, "LICENSES.txt"), texts.join(`\n${"-".repeat(80)}\n\n`));
