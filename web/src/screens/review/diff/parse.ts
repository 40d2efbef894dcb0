import { headerNames, lineName, sideName } from './names.ts';

export type LineKind = 'same' | 'added' | 'removed';

/** One line of a hunk; a number is missing on the side that does not have the line. */
export type Line = {
  kind: LineKind;
  text: string;
  oldNumber: number | undefined;
  newNumber: number | undefined;
  /** It is the file's last line and no line end follows it. */
  noNewline?: boolean;
};

export type Hunk = {
  oldStart: number;
  oldCount: number;
  newStart: number;
  newCount: number;
  /** What git says of the place: the function, the heading. */
  section: string;
  lines: Line[];
  /** The text ended before the hunk did. */
  cut: boolean;
};

export type ChangeKind = 'added' | 'deleted' | 'modified' | 'renamed' | 'copied' | 'unmerged';

export type PatchFile = {
  kind: ChangeKind;
  /** Null on the side that has no file. */
  oldName: string | null;
  newName: string | null;
  /** The name by which it is known: the new one, else the old one. */
  name: string;
  oldMode: string | undefined;
  newMode: string | undefined;
  /** Percent, of renames and copies. */
  similarity: number | undefined;
  binary: boolean;
  /** A merge's conflict, told against both of its sides. */
  combined: boolean;
  hunks: Hunk[];
  added: number;
  removed: number;
  /** Where its text begins and ends in the whole. */
  from: number;
  to: number;
};

const HUNK = /^@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@ ?(.*)$/su;
const COMBINED_HUNK = /^(@{3,}) ((?:-\d{1,9}(?:,\d{1,9})? )+)\+(\d{1,9})(?:,(\d{1,9}))? @{3,} ?(.*)$/su;
const BINARY = /^(?:Binary files .* differ|GIT binary patch)$/su;
const NO_NEWLINE = '\\';

/** Reads what `git diff` prints. Whatever the text is, it makes some files. Pure. */
export function parseDiff(text: string): PatchFile[] {
  return new Parser(text).files();
}

class Parser {
  readonly #text: string;
  #at = 0;
  #next = 0;
  #line = '';

  constructor(text: string) {
    this.#text = text;
    this.#read();
  }

  files(): PatchFile[] {
    const files: PatchFile[] = [];
    while (!this.#ended()) {
      const unmerged = this.#line.startsWith('* Unmerged path ');
      if (unmerged) {
        files.push(this.#unmerged());
      } else if (/^diff --(?:git|cc|combined) /u.test(this.#line)) {
        files.push(this.#file());
      } else {
        this.#advance();
      }
    }
    return files;
  }

  #ended(): boolean {
    return this.#at >= this.#text.length;
  }

  #read(): void {
    const end = this.#text.indexOf('\n', this.#at);
    this.#next = end === -1 ? this.#text.length : end + 1;
    this.#line = this.#text.slice(this.#at, end === -1 ? undefined : end);
  }

  #advance(): void {
    this.#at = this.#next;
    this.#read();
  }

  #unmerged(): PatchFile {
    const name = lineName(this.#line.slice('* Unmerged path '.length));
    const file = newFile(name, name, this.#at);
    file.kind = 'unmerged';
    this.#advance();
    file.to = this.#at;
    return file;
  }

  #file(): PatchFile {
    const from = this.#at;
    const combined = !this.#line.startsWith('diff --git ');
    const rest = this.#line.slice(this.#line.indexOf(' ', 5) + 1);
    const { oldName, newName } = combined
      ? { oldName: lineName(rest), newName: lineName(rest) }
      : headerNames(rest);
    const file = newFile(oldName, newName, from);
    file.combined = combined;
    if (combined) file.kind = 'unmerged';
    this.#advance();
    while (!this.#ended() && !this.#begins()) {
      if (this.#hunk(file)) continue;
      header(file, this.#line);
      this.#advance();
    }
    file.name = file.newName ?? file.oldName ?? '';
    file.to = this.#at;
    return file;
  }

  #begins(): boolean {
    return this.#line.startsWith('diff --') || this.#line.startsWith('* Unmerged path ');
  }

  #hunk(file: PatchFile): boolean {
    if (!this.#line.startsWith('@@')) return false;
    const plain = HUNK.exec(this.#line);
    if (plain) {
      const [, oldStart, oldCount, newStart, newCount, section = ''] = plain;
      const hunk = newHunk([oldStart, oldCount, newStart, newCount], section);
      file.hunks.push(hunk);
      this.#advance();
      this.#lines(file, hunk);
      return true;
    }
    const combined = COMBINED_HUNK.exec(this.#line);
    if (!combined) return false;
    const [, ats = '', olds = '', newStart, newCount, section = ''] = combined;
    const parents = olds
      .trim()
      .split(' ')
      .map((one) => count(one.split(',')[1]));
    if (parents.length !== ats.length - 1) return false;
    const oldStart = /\d+/u.exec(olds)?.[0];
    const hunk = newHunk([oldStart, String(parents[0]), newStart, newCount], section);
    file.hunks.push(hunk);
    this.#advance();
    this.#combinedLines(file, hunk, parents);
    return true;
  }

  #lines(file: PatchFile, hunk: Hunk): void {
    let [oldLeft, newLeft] = [hunk.oldCount, hunk.newCount];
    let [oldNumber, newNumber] = [hunk.oldStart, hunk.newStart];
    while (oldLeft > 0 || newLeft > 0) {
      const sign = this.#line.charAt(0);
      if (this.#ended() || !' +-\\'.includes(sign)) break;
      if (sign === NO_NEWLINE) {
        markNoNewline(hunk);
      } else {
        const kind: LineKind = sign === '+' ? 'added' : sign === '-' ? 'removed' : 'same';
        hunk.lines.push({
          kind,
          text: this.#line.slice(1),
          oldNumber: kind === 'added' ? undefined : oldNumber++,
          newNumber: kind === 'removed' ? undefined : newNumber++,
        });
        if (kind !== 'added') oldLeft -= 1;
        if (kind !== 'removed') newLeft -= 1;
        tally(file, kind);
      }
      this.#advance();
    }
    if (!this.#ended() && this.#line.startsWith(NO_NEWLINE)) {
      markNoNewline(hunk);
      this.#advance();
    }
    hunk.cut = oldLeft > 0 || newLeft > 0;
  }

  #combinedLines(file: PatchFile, hunk: Hunk, parents: number[]): void {
    const left = [...parents];
    let newLeft = hunk.newCount;
    let newNumber = hunk.newStart;
    while (newLeft > 0 || left.some((one) => one > 0)) {
      if (this.#ended() || !/^[ +\\-]/u.test(this.#line)) break;
      const signs = this.#line.slice(0, parents.length);
      if (signs.startsWith(NO_NEWLINE)) {
        markNoNewline(hunk);
        this.#advance();
        continue;
      }
      const gone = signs.includes('-');
      const kind: LineKind = gone ? 'removed' : signs.includes('+') ? 'added' : 'same';
      hunk.lines.push({
        kind,
        text: this.#line.slice(parents.length),
        oldNumber: undefined,
        newNumber: gone ? undefined : newNumber++,
      });
      if (!gone) newLeft -= 1;
      const used = gone ? '-' : ' ';
      for (let index = 0; index < left.length; index += 1) {
        if (signs.charAt(index) === used) left[index] = (left[index] ?? 0) - 1;
      }
      tally(file, kind);
      this.#advance();
    }
    hunk.cut = newLeft > 0;
  }
}

function header(file: PatchFile, line: string): void {
  const space = line.indexOf(' ');
  const word = space === -1 ? line : line.slice(0, space);
  const rest = line.slice(space + 1);
  switch (word) {
    case 'old':
      file.oldMode = mode(rest);
      return;
    case 'new':
      if (rest.startsWith('file ')) created(file, rest);
      else file.newMode = mode(rest);
      return;
    case 'deleted':
      file.kind = 'deleted';
      file.oldMode = mode(rest);
      file.newName = null;
      return;
    case 'similarity':
      file.similarity = Number(/(\d{1,3})%/u.exec(rest)?.[1] ?? 0);
      return;
    case 'rename':
    case 'copy':
      moved(file, word, rest);
      return;
    case '---':
      file.oldName = sideName(rest, 'a/');
      return;
    case '+++':
      file.newName = sideName(rest, 'b/');
      return;
    case 'index':
      file.oldMode ??= /^[0-9a-f]+\.\.[0-9a-f]+ (\d{6})$/u.exec(rest)?.[1];
      file.newMode ??= file.kind === 'modified' ? file.oldMode : undefined;
      return;
    default:
      if (BINARY.test(line)) file.binary = true;
  }
}

function created(file: PatchFile, rest: string): void {
  if (file.kind !== 'unmerged') file.kind = 'added';
  file.newMode = mode(rest);
  file.oldName = null;
}

function moved(file: PatchFile, word: 'rename' | 'copy', rest: string): void {
  file.kind = word === 'rename' ? 'renamed' : 'copied';
  if (rest.startsWith('from ')) file.oldName = lineName(rest.slice(5));
  if (rest.startsWith('to ')) file.newName = lineName(rest.slice(3));
}

function mode(rest: string): string | undefined {
  return /(\d{6})$/u.exec(rest)?.[1];
}

function count(text: string | undefined): number {
  return text === undefined ? 1 : Number(text);
}

function newFile(oldName: string, newName: string, from: number): PatchFile {
  return {
    kind: 'modified',
    oldName,
    newName,
    name: newName,
    oldMode: undefined,
    newMode: undefined,
    similarity: undefined,
    binary: false,
    combined: false,
    hunks: [],
    added: 0,
    removed: 0,
    from,
    to: from,
  };
}

function newHunk(
  [oldStart, oldCount, newStart, newCount]: readonly (string | undefined)[],
  section: string,
): Hunk {
  return {
    oldStart: Number(oldStart),
    oldCount: count(oldCount),
    newStart: Number(newStart),
    newCount: count(newCount),
    section,
    lines: [],
    cut: false,
  };
}

function markNoNewline(hunk: Hunk): void {
  const last = hunk.lines.at(-1);
  if (last) last.noNewline = true;
}

function tally(file: PatchFile, kind: LineKind): void {
  if (kind === 'added') file.added += 1;
  if (kind === 'removed') file.removed += 1;
}
