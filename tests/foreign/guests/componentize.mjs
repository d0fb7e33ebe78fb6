// Makes a component of a JavaScript file: SOURCE WIT WORLD OUTPUT.
import { componentize } from "@bytecodealliance/componentize-js";
import { readFile, writeFile } from "node:fs/promises";
const [source, wit, world, out] = process.argv.slice(2);
const { component } = await componentize(await readFile(source, "utf8"), { witPath: wit, worldName: world });
await writeFile(out, component);
