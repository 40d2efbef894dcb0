// What the first screen costs: the entry, all that it imports at once, and the style, as gzip. Over
// the limit the build fails.
import { readFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';

const LIMIT = 300_000;
const root = new URL('../dist/', import.meta.url);
const manifest = JSON.parse(await readFile(new URL('.vite/manifest.json', root), 'utf8'));

async function weigh(file) {
  return gzipSync(await readFile(new URL(file, root)), { level: 9 }).length;
}

function closure(key, seen = new Set()) {
  if (seen.has(key)) return seen;
  seen.add(key);
  for (const next of manifest[key].imports ?? []) closure(next, seen);
  return seen;
}

const entry = Object.keys(manifest).find((key) => manifest[key].isEntry);
const initial = closure(entry);
let total = 0;
for (const key of initial) {
  const size = await weigh(manifest[key].file);
  total += size;
  console.log(`${String(size).padStart(8)}  ${manifest[key].file}`);
}
for (const css of new Set([...initial].flatMap((key) => manifest[key].css ?? []))) {
  console.log(`${String(await weigh(css)).padStart(8)}  ${css} (style, not counted)`);
}
console.log(`${String(total).padStart(8)}  initial JavaScript, of ${LIMIT}`);
console.log('Later, on demand:');
for (const [key, part] of Object.entries(manifest)) {
  if (initial.has(key) || !part.file.endsWith('.js')) continue;
  console.log(`${String(await weigh(part.file)).padStart(8)}  ${part.file}`);
}
if (total > LIMIT) {
  console.error(`The initial JavaScript is ${total} bytes as gzip; the limit is ${LIMIT}.`);
  process.exit(1);
}
