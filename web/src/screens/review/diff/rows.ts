import { foldReason, type ReviewFile } from './files';
import type { Hunk, Line } from './parse';
import { wordDiff, type Span } from './words';

export type DiffView = 'unified' | 'split';
export type Note = 'binary' | 'large' | 'generated' | 'missing' | 'cut' | 'mode' | 'empty' | 'unmerged';

/** One row of the long list that a diff is shown as. */
export type Row =
  | { type: 'file'; key: string; file: ReviewFile; open: boolean }
  | { type: 'note'; key: string; file: ReviewFile; note: Note }
  | { type: 'hunk'; key: string; file: ReviewFile; hunk: Hunk; first: boolean }
  | { type: 'line'; key: string; file: ReviewFile; hunk: Hunk; line: Line }
  | {
      type: 'pair';
      key: string;
      file: ReviewFile;
      hunk: Hunk;
      left: Line | undefined;
      right: Line | undefined;
    };

export type Layout = {
  view: DiffView;
  /** Ids of files whose text is not shown. */
  closed: ReadonlySet<string>;
  /** Ids of files that are shown although they are large or generated. */
  unfolded: ReadonlySet<string>;
};

/** All rows of all files. Pure. */
export function diffRows(files: readonly ReviewFile[], layout: Layout): Row[] {
  const rows: Row[] = [];
  files.forEach((file) => {
    const open = !layout.closed.has(file.id);
    rows.push({ type: 'file', key: `f ${file.id}`, file, open });
    if (open) fileRows(rows, file, layout);
  });
  return rows;
}

function fileRows(rows: Row[], file: ReviewFile, { view, unfolded }: Layout): void {
  const note = (kind: Note) => rows.push({ type: 'note', key: `n ${file.id} ${kind}`, file, note: kind });
  if (file.binary) {
    note('binary');
    return;
  }
  if (file.patches === undefined) {
    note('missing');
    return;
  }
  if (modeChange(file) !== undefined) note('mode');
  const folded = unfolded.has(file.id) ? undefined : foldReason(file);
  if (folded !== undefined) {
    note(folded);
    return;
  }
  const hunks = file.patches.flatMap((patch) => patch.hunks);
  if (hunks.length === 0 && modeChange(file) === undefined) {
    note(file.status === 'conflict' ? 'unmerged' : 'empty');
  }
  hunks.forEach((hunk, place) => {
    const key = `${file.id} ${place}`;
    rows.push({ type: 'hunk', key: `h ${key}`, file, hunk, first: place === 0 });
    if (view === 'split') {
      for (const [index, pair] of pairsOf(hunk).entries()) {
        rows.push({ type: 'pair', key: `p ${key} ${index}`, file, hunk, ...pair });
      }
    } else {
      hunk.lines.forEach((line, index) => {
        rows.push({ type: 'line', key: `l ${key} ${index}`, file, hunk, line });
      });
    }
  });
  if (hunks.some((hunk) => hunk.cut)) note('cut');
}

/** The modes before and after, where the change is of them. Pure. */
export function modeChange(file: ReviewFile): { before: string; after: string } | undefined {
  const [patch] = file.patches ?? [];
  const [before, after] = [patch?.oldMode, patch?.newMode];
  return before !== undefined && after !== undefined && before !== after ? { before, after } : undefined;
}

type Pair = { left: Line | undefined; right: Line | undefined };

/** A hunk's lines side by side: what was taken away beside what came instead. Pure. */
export function pairsOf(hunk: Hunk): Pair[] {
  const pairs: Pair[] = [];
  const { lines } = hunk;
  for (let at = 0; at < lines.length;) {
    const line = lines[at];
    if (line?.kind === 'same') {
      pairs.push({ left: line, right: line });
      at += 1;
      continue;
    }
    const { removed, added, next } = blockAt(lines, at);
    for (let index = 0; index < Math.max(removed.length, added.length); index += 1) {
      pairs.push({ left: removed[index], right: added[index] });
    }
    at = next;
  }
  return pairs;
}

/** The lines taken away from here on, and those added right after them. */
function blockAt(lines: readonly Line[], from: number): { removed: Line[]; added: Line[]; next: number } {
  let next = from;
  const take = (kind: Line['kind']) => {
    const taken: Line[] = [];
    for (let line = lines[next]; line?.kind === kind; line = lines[next]) {
      taken.push(line);
      next += 1;
    }
    return taken;
  };
  return { removed: take('removed'), added: take('added'), next };
}

const partners = new WeakMap<Hunk, Map<Line, Line>>();
const spansOf = new WeakMap<Line, readonly Span[]>();
const NONE: readonly Span[] = [];

function partnerOf(hunk: Hunk, line: Line): Line | undefined {
  let known = partners.get(hunk);
  if (!known) {
    known = new Map();
    for (const { left, right } of pairsOf(hunk)) {
      if (left === undefined || right === undefined || left === right) continue;
      known.set(left, right);
      known.set(right, left);
    }
    partners.set(hunk, known);
  }
  return known.get(line);
}

/** Where a line differs from what it was, by words; compared when it is first shown. */
export function changedWords(hunk: Hunk, line: Line): readonly Span[] {
  if (line.kind === 'same') return NONE;
  const known = spansOf.get(line);
  if (known) return known;
  const partner = partnerOf(hunk, line);
  if (!partner) {
    spansOf.set(line, NONE);
    return NONE;
  }
  const [before, after] = line.kind === 'removed' ? [line, partner] : [partner, line];
  const found = wordDiff(before.text, after.text);
  spansOf.set(before, found?.removed ?? NONE);
  spansOf.set(after, found?.added ?? NONE);
  return spansOf.get(line) ?? NONE;
}

/** Where a row of the wanted kind is, going from one place in one direction; undefined at the end. Pure. */
export function nextRow(
  rows: readonly Row[],
  from: number,
  by: 1 | -1,
  type: 'file' | 'hunk',
): number | undefined {
  for (let at = from + by; at >= 0 && at < rows.length; at += by) {
    if (rows[at]?.type === type) return at;
  }
  return undefined;
}
