// Rebuilds build/canvas.js, build/canvas.css and build/LICENSES.txt: `npm ci && npm run build` in this folder.
import { build } from "esbuild";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";

const result = await build({
  entryPoints: ["src/index.js"],
  bundle: true,
  format: "esm",
  minify: true,
  target: "es2022",
  metafile: true,
  legalComments: "none",
  banner: { js: "// gfviz graph canvas. Bundles sigma, graphology and their dependencies (MIT): see LICENSES.txt beside this file.\n" },
  outfile: "build/canvas.js",
});

const style = await build({ entryPoints: ["src/style.css"], minify: false, write: false });
writeFileSync("build/canvas.css", style.outputFiles[0].text);

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
