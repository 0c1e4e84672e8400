// Rebuilds build/{canvas,curves}.{js,css} and build/LICENSES.txt: `npm ci && npm run build` in this folder.
import { build } from "esbuild";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";

const common = {
  bundle: true,
  format: "esm",
  minify: true,
  target: "es2022",
  metafile: true,
  legalComments: "none",
};
const result = await build({
  ...common,
  entryPoints: ["src/index.js"],
  banner: { js: "// gfviz graph canvas. Bundles sigma, graphology and their dependencies (MIT): see LICENSES.txt beside this file.\n" },
  outfile: "build/canvas.js",
});

// Nothing of others is in the curves: a page that shows a run does without sigma, and without Plotly.
const curves = await build({
  ...common,
  entryPoints: ["src/curves/index.js"],
  // Streamlit takes a script of a single line for the name of a file.
  banner: { js: "// gfviz curves.\n" },
  outfile: "build/curves.js",
});
if (Object.keys(curves.metafile.inputs).some((input) => input.includes("node_modules"))) throw new Error("the curves bundle a package");

for (const [from, to] of [["src/style.css", "build/canvas.css"], ["src/curves/style.css", "build/curves.css"]]) {
  const style = await build({ entryPoints: [from], minify: false, write: false });
  writeFileSync(to, style.outputFiles[0].text);
}

const packages = new Set();
for (const input of Object.keys(result.metafile.inputs)) {
  const found = input.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/);
  if (found) packages.add(found[1]);
}
const notices = [...packages].sort().map((name) => {
  const folder = `node_modules/${name}`;
  const { version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  return `${name} ${version} (${license})\n\n${readFileSync(`${folder}/${file}`, "utf8").trim()}\n`;
});
writeFileSync("build/LICENSES.txt", notices.join(`\n${"-".repeat(80)}\n\n`));
console.log([...packages].sort().join(" "));
