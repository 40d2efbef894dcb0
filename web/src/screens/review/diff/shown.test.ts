import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { Viewed, parseViewed } from '../viewed';
import { contentHash, foldReason, isWhole, reviewFiles, withText, type ReviewFile } from './files';
import { countHidden, hasHidden, pieces, visibleText } from './hidden';
import { changedWords, diffRows, nextRow, pairsOf } from './rows';
import { sha256 } from './sha256';
import { inTreeOrder, matching, treeRows } from './tree';
import { wordDiff } from './words';

const patch = (name: string, ...body: string[]) =>
  [
    `diff --git a/${name} b/${name}`,
    'index 1..2 100644',
    `--- a/${name}`,
    `+++ b/${name}`,
    `@@ -1,${body.filter((line) => !line.startsWith('+')).length} +1,${body.filter((line) => !line.startsWith('-')).length} @@`,
    ...body,
    '',
  ].join('\n');
const listed = (filename: string, status = 'M') => ({ filename, status, added: 1, deleted: 1 });
const cutAt = (text: string, spans: readonly { from: number; to: number }[]) =>
  spans.map(({ from, to }) => text.slice(from, to));
function first(files: readonly ReviewFile[]): ReviewFile {
  const [file] = files;
  if (!file) throw new Error('no file');
  return file;
}
const NO_FOLDS = { closed: new Set<string>(), unfolded: new Set<string>() };

describe('hidden characters', () => {
  it('names what turns the direction of text, joins, or is not seen', () => {
    expect(pieces('if (a\u202e\u2066) {')).toEqual([
      { text: 'if (a' },
      { hidden: '\u202e', mark: 'RLO', name: 'U+202E RIGHT-TO-LEFT OVERRIDE' },
      { hidden: '\u2066', mark: 'LRI', name: 'U+2066 LEFT-TO-RIGHT ISOLATE' },
      { text: ') {' },
    ]);
    expect(visibleText('a\u200bb\u{e0041}')).toBe('a⟨ZWSP⟩b⟨U+E0041⟩');
    for (const sign of [
      '\0',
      '\u001b',
      '\u0085',
      '\u00ad',
      '\ufeff',
      '\u3164',
      '\ufe01',
      '\ue000',
      '\ud800',
    ]) {
      expect(hasHidden(`x${sign}y`), sign.codePointAt(0)?.toString(16)).toBe(true);
    }
  });

  it('leaves alone what is seen: tabs, letters of all scripts, emoji and their joiners', () => {
    for (const text of ['\tindented', 'שלום עולם', 'naïve 漢字', '👩‍💻 👍🏽 ❤️', '🏳️‍🌈', '']) {
      expect(hasHidden(text), text).toBe(false);
      expect(pieces(text)).toEqual([{ text }]);
    }
    expect(countHidden('a\u200db')).toBe(1);
  });
});

describe('wordDiff', () => {
  it('finds the words that differ', () => {
    const [before, after] = ['const total = sum(items);', 'const total = sumOf(items, tax);'];
    const found = wordDiff(before, after);
    expect(cutAt(before, found?.removed ?? [])).toEqual(['sum']);
    expect(cutAt(after, found?.added ?? [])).toEqual(['sumOf', ', tax']);
  });

  it('does not compare lines that have little in common', () => {
    expect(wordDiff('return undefined;', 'await everything.settled(now)')).toBeUndefined();
  });

  it('agrees with the lengths of a longest common sequence', () => {
    for (let seed = 1; seed < 60; seed += 1) {
      const text = (salt: number) =>
        Array.from({ length: 8 + (seed % 7) }, (_, i) =>
          'abc '.charAt((seed * salt + i * i * salt) % 4),
        ).join('.');
      const [a, b] = [text(3), text(5)];
      const found = wordDiff(a, b);
      if (!found) continue;
      const rest = (whole: string, spans: readonly { from: number; to: number }[]) =>
        Array.from(whole)
          .filter((_, at) => !spans.some(({ from, to }) => at >= from && at < to))
          .join('');
      expect(rest(a, found.removed)).toBe(rest(b, found.added));
    }
  });

  it('ends soon whatever it is given', () => {
    const noise = (salt: number) =>
      Array.from({ length: 290 }, (_, i) => 'xyzuvw+-*/'.charAt((i * i * salt + i) % 10)).join('');
    const before = performance.now();
    for (let round = 1; round < 50; round += 1) wordDiff(`same ${noise(round)}`, `same ${noise(round + 3)}`);
    wordDiff('a '.repeat(50_000), 'b '.repeat(50_000));
    expect(performance.now() - before).toBeLessThan(3_000);
  });
});

describe('reviewFiles', () => {
  it('joins the list with the text, and keeps what was only listed', () => {
    const diff = patch('a.ts', '-x', '+y');
    const files = reviewFiles({ diff, files: [listed('a.ts'), { ...listed('b.ts', 'A'), added: 9 }] });
    expect(files.map(({ id, status, patches }) => [id, status, patches?.length])).toEqual([
      ['a.ts', 'modified', 1],
      ['b.ts', 'added', undefined],
    ]);
    const [, missing] = files;
    const loaded = missing && withText(missing, { diff: patch('b.ts', '+z'), files: [listed('b.ts', 'A')] });
    expect(loaded?.patches?.[0]?.added).toBe(1);
  });

  it('knows a name that is no UTF-8 by its bytes, and takes a conflict as one file', () => {
    const files = reviewFiles({
      diff: '* Unmerged path c.txt\n',
      files: [
        { filename: 'x\ufffd', filenameBase64: 'eP8=', status: 'M' },
        listed('c.txt', 'U'),
        listed('c.txt', 'M'),
      ],
    });
    expect(files.map(({ id, status }) => [id, status])).toEqual([
      ['eP8=', 'modified'],
      ['c.txt', 'conflict'],
    ]);
  });

  it('counts hidden characters of added lines and names, and not the ends of lines', () => {
    const diff = patch('a.ts', '-x\u202ex', '+y\u200by\r', '+z\r');
    expect(reviewFiles({ diff, files: [listed('a.ts')] })[0]?.hidden).toBe(1);
    expect(reviewFiles({ diff: '', files: [listed('evil\u202etxt.exe')] })[0]?.hidden).toBe(1);
  });

  it('folds what is large or generated', () => {
    const many = Array.from({ length: 1_600 }, (_, i) => `+line ${i}`);
    const of = (name: string, ...body: string[]) =>
      first(reviewFiles({ diff: patch(name, ...body), files: [listed(name)] }));
    expect(foldReason(of('a.ts', ...many))).toBe('large');
    expect(foldReason(of('web/package-lock.json', ...many.slice(0, 40)))).toBe('generated');
    expect(foldReason(of('a.ts', '+x'))).toBeUndefined();
  });

  it('knows a file whose text was cut', () => {
    const diff = 'diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1,9 +1,9 @@\n one\n';
    const [file] = reviewFiles({ diff, files: [listed('f')] });
    expect(file && isWhole(file)).toBe(false);
  });
});

describe('rows', () => {
  const diff =
    patch('a.ts', ' one', '-two', '-three', '+TWO', '+three!', '+four', ' five') + patch('b.ts', '+x');
  const files = reviewFiles({ diff, files: [listed('a.ts'), listed('b.ts')] });

  it('lays lines out one below the other, or side by side', () => {
    expect(diffRows(files, { view: 'unified', ...NO_FOLDS }).map((row) => row.type)).toEqual([
      ...['file', 'hunk', ...Array.from({ length: 7 }, () => 'line')],
      ...['file', 'hunk', 'line'],
    ]);
    const hunk = files[0]?.patches?.[0]?.hunks[0];
    expect(hunk && pairsOf(hunk).map(({ left, right }) => [left?.text, right?.text])).toEqual([
      ['one', 'one'],
      ['two', 'TWO'],
      ['three', 'three!'],
      [undefined, 'four'],
      ['five', 'five'],
    ]);
  });

  it('leaves out what is closed, and says what is folded', () => {
    const closed = new Set(['a.ts']);
    const rows = diffRows(files, { view: 'unified', closed, unfolded: new Set() });
    expect(rows.map((row) => row.type)).toEqual(['file', 'file', 'hunk', 'line']);
    const [only] = diffRows(reviewFiles({ diff: '', files: [listed('c')] }), {
      view: 'unified',
      ...NO_FOLDS,
    }).slice(1);
    expect(only).toMatchObject({ type: 'note', note: 'missing' });
  });

  it('marks the words that changed in lines that belong together', () => {
    const hunk = files[0]?.patches?.[0]?.hunks[0];
    const line = hunk?.lines[4];
    expect(line?.text).toBe('three!');
    expect(hunk && line && cutAt(line.text, changedWords(hunk, line))).toEqual(['!']);
  });

  it('walks from file to file and from hunk to hunk', () => {
    const rows = diffRows(files, { view: 'unified', ...NO_FOLDS });
    expect(nextRow(rows, 0, 1, 'file')).toBe(9);
    expect(nextRow(rows, 9, 1, 'file')).toBeUndefined();
    expect(nextRow(rows, 5, -1, 'hunk')).toBe(1);
  });
});

describe('tree', () => {
  const files = reviewFiles({
    diff: '',
    files: ['z.md', 'src/app/deep/one.ts', 'src/app/deep/file10.ts', 'src/app/deep/file9.ts', 'src/b.ts'].map(
      (name) => listed(name),
    ),
  });

  it('puts folders first, joins chains of folders, and counts as people do', () => {
    const rows = treeRows(files, new Set());
    expect(rows.map((row) => `${' '.repeat(row.depth)}${row.label}`)).toEqual([
      'src',
      ' app/deep',
      '  file9.ts',
      '  file10.ts',
      '  one.ts',
      ' b.ts',
      'z.md',
    ]);
    expect(inTreeOrder(files).map((file) => file.id)).toEqual(
      rows.flatMap((row) => (row.type === 'file' ? [row.file.id] : [])),
    );
    expect(treeRows(files, new Set(['src/app/deep'])).map((row) => row.label)).toEqual([
      'src',
      'app/deep',
      'b.ts',
      'z.md',
    ]);
  });

  it('finds by words of the path', () => {
    expect(matching(files, 'DEEP one').map((file) => file.id)).toEqual(['src/app/deep/one.ts']);
    expect(matching(files, ' ')).toHaveLength(5);
  });
});

describe('viewed', () => {
  it('hashes as SHA-256 does', () => {
    for (const text of [
      '',
      'abc',
      'ä'.repeat(31),
      'x'.repeat(55),
      'x'.repeat(56),
      'x'.repeat(64),
      'y'.repeat(9_999),
    ]) {
      expect(sha256(text)).toBe(createHash('sha256').update(text).digest('hex'));
    }
  });

  it('remembers a file until something of it changes', () => {
    const kept = new Map<string, string>();
    const storage = {
      getItem: (name: string) => kept.get(name) ?? null,
      setItem: (name: string, value: string) => void kept.set(name, value),
    };
    const of = (...body: string[]) =>
      first(reviewFiles({ diff: patch('a\nb.ts', ...body), files: [listed('a\nb.ts')] }));
    const before = new Viewed(storage);
    before.set('s1', [of('+x')], true);
    const later = new Viewed(storage);
    expect(later.has('s1', of('+x'))).toBe(true);
    expect(later.has('s2', of('+x'))).toBe(false);
    expect(contentHash(of('+x'))).toBe(contentHash(of('+x')));
    later.set('s1', [of('+x')], false);
    expect(new Viewed(storage).has('s1', of('+x'))).toBe(false);
  });

  it('reads whatever was stored', () => {
    expect(parseViewed('[["s","f","h"],["s"],3,null]')).toEqual([['s', 'f', 'h']]);
    for (const broken of ['', '{', 'null', '"x"', null]) expect(parseViewed(broken)).toEqual([]);
  });
});
