/** A part of a line, from one column to another, that differs from the line's other form. */
export type Span = { from: number; to: number };
export type WordDiff = { removed: Span[]; added: Span[] };

/** Longer lines are not compared word by word: nobody would read it, and it takes its time. */
const MAX_LINE = 2_000;
const MAX_TOKENS = 600;
const MAX_EDITS = 240;
/** With less than this in common, two lines are not two forms of one. */
const LEAST_COMMON = 0.3;
const TOKEN = /[\p{L}\p{N}_]+|\s+|[^]/gu;

/**
 * Where two forms of a line differ, by words. Undefined where they have too little in common, or
 * comparing would take too long: the work is bounded by the constants above. Pure.
 */
export function wordDiff(before: string, after: string): WordDiff | undefined {
  if (before.length > MAX_LINE || after.length > MAX_LINE) return undefined;
  const a = before.match(TOKEN) ?? [];
  const b = after.match(TOKEN) ?? [];
  if (a.length === 0 || b.length === 0) return undefined;
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let [endA, endB] = [a.length, b.length];
  while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) {
    endA -= 1;
    endB -= 1;
  }
  const middle = common(a.slice(start, endA), b.slice(start, endB));
  if (!middle) return undefined;
  const keptA = a.map((_, index) => index < start || index >= endA || middle.a.has(index - start));
  const keptB = b.map((_, index) => index < start || index >= endB || middle.b.has(index - start));
  if (shareOf(a, keptA) < LEAST_COMMON || shareOf(b, keptB) < LEAST_COMMON) return undefined;
  return { removed: spans(a, keptA), added: spans(b, keptB) };
}

/** How much of a line is common, of what is not space. */
function shareOf(tokens: readonly string[], kept: readonly boolean[]): number {
  let [all, common] = [0, 0];
  tokens.forEach((token, index) => {
    if (/^\s/u.test(token)) return;
    all += token.length;
    if (kept[index]) common += token.length;
  });
  return all === 0 ? 1 : common / all;
}

function spans(tokens: readonly string[], kept: readonly boolean[]): Span[] {
  const found: Span[] = [];
  let column = 0;
  tokens.forEach((token, index) => {
    const next = column + token.length;
    const last = found.at(-1);
    if (!kept[index]) {
      if (last?.to === column) last.to = next;
      else found.push({ from: column, to: next });
    }
    column = next;
  });
  return found;
}

type Matched = { a: Set<number>; b: Set<number> };

/** The tokens of a longest common sequence, by Myers' algorithm; undefined beyond the bounds. */
function common(a: readonly string[], b: readonly string[]): Matched | undefined {
  const [n, m] = [a.length, b.length];
  const matched: Matched = { a: new Set(), b: new Set() };
  if (n === 0 || m === 0) return matched;
  if (n + m > MAX_TOKENS) return undefined;
  const most = Math.min(n + m, MAX_EDITS);
  const width = 2 * most + 1;
  const furthest = new Int32Array(width + 2);
  const trace: Int32Array[] = [];
  for (let edits = 0; edits <= most; edits += 1) {
    trace.push(furthest.slice());
    for (let k = -edits; k <= edits; k += 2) {
      let x = reach(furthest, most, edits, k);
      let y = x - k;
      while (x < n && y < m && a[x] === b[y]) {
        x += 1;
        y += 1;
      }
      furthest[most + 1 + k] = x;
      if (x >= n && y >= m) return walkBack(trace, most, n, m, matched);
    }
  }
  return undefined;
}

function reach(furthest: Int32Array, most: number, edits: number, k: number): number {
  const [below, above] = [furthest[most + k] ?? 0, furthest[most + 2 + k] ?? 0];
  return k === -edits || (k !== edits && below < above) ? above : below + 1;
}

function walkBack(
  trace: readonly Int32Array[],
  most: number,
  n: number,
  m: number,
  matched: Matched,
): Matched {
  let [x, y] = [n, m];
  for (let edits = trace.length - 1; edits >= 0; edits -= 1) {
    const furthest = trace[edits];
    if (!furthest) break;
    const k = x - y;
    const [below, above] = [furthest[most + k] ?? 0, furthest[most + 2 + k] ?? 0];
    const down = k === -edits || (k !== edits && below < above);
    const previousK = down ? k + 1 : k - 1;
    const previousX = edits === 0 ? 0 : (furthest[most + 1 + previousK] ?? 0);
    const previousY = edits === 0 ? 0 : previousX - previousK;
    while (x > previousX && y > previousY) {
      x -= 1;
      y -= 1;
      matched.a.add(x);
      matched.b.add(y);
    }
    [x, y] = [previousX, previousY];
  }
  return matched;
}
