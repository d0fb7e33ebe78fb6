// Makes a component of a JavaScript file: PACKAGE SOURCE WIT WORLD OUTPUT.
import { readFile, writeFile } from "node:fs/promises";
const [tool, source, wit, world, out] = process.argv.slice(2);
const { componentize } = await import(tool);
const { component } = await componentize(await readFile(source, "utf8"), { witPath: wit, worldName: world });
await writeFile(out, component);
