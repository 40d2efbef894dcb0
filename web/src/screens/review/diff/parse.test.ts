import { describe, expect, it } from 'vitest';
import { headerNames, unquoted } from './names';
import { parseDiff } from './parse';

const lines = (...all: string[]) => `${all.join('\n')}\n`;

describe('parseDiff', () => {
  it('reads hunks with the numbers of both sides and the place they are in', () => {
    const [file] = parseDiff(
      lines(
        'diff --git a/src/app.ts b/src/app.ts',
        'index 83db48f..bf12ab3 100644',
        '--- a/src/app.ts',
        '+++ b/src/app.ts',
        '@@ -10,3 +10,4 @@ export function start() {',
        ' one',
        '-two',
        '+two!',
        '+three',
        ' four',
        '@@ -40 +41 @@',
        '-old',
        '+new',
      ),
    );
    expect(file).toMatchObject({ kind: 'modified', name: 'src/app.ts', added: 3, removed: 2 });
    expect(file?.hunks.map((hunk) => [hunk.oldStart, hunk.newStart, hunk.section, hunk.cut])).toEqual([
      [10, 10, 'export function start() {', false],
      [40, 41, '', false],
    ]);
    expect(
      file?.hunks[0]?.lines.map((line) => [line.kind, line.oldNumber, line.newNumber, line.text]),
    ).toEqual([
      ['same', 10, 10, 'one'],
      ['removed', 11, undefined, 'two'],
      ['added', undefined, 11, 'two!'],
      ['added', undefined, 12, 'three'],
      ['same', 12, 13, 'four'],
    ]);
  });

  it('takes lines that look like headers for what they are inside a hunk', () => {
    const files = parseDiff(
      lines(
        'diff --git a/notes.sql b/notes.sql',
        '--- a/notes.sql',
        '+++ b/notes.sql',
        '@@ -1,2 +1,3 @@',
        '--- a comment',
        '+++ b/other',
        '+diff --git a/x b/x',
        '+@@ -1 +1 @@',
        ' end',
      ),
    );
    expect(files).toHaveLength(1);
    expect(files[0]?.hunks).toHaveLength(1);
    expect(files[0]?.hunks[0]?.lines.map((line) => line.text)).toEqual([
      '-- a comment',
      '++ b/other',
      'diff --git a/x b/x',
      '@@ -1 +1 @@',
      'end',
    ]);
  });

  it('reads renames and copies with their likeness, also without any change of content', () => {
    const files = parseDiff(
      lines(
        'diff --git a/old name.txt b/new name.txt',
        'similarity index 100%',
        'rename from old name.txt',
        'rename to new name.txt',
        'diff --git a/a b/b',
        'similarity index 87%',
        'copy from a',
        'copy to b',
        'index 1..2 100644',
        '--- a/a',
        '+++ b/b',
        '@@ -1 +1 @@',
        '-x',
        '+y',
      ),
    );
    expect(
      files.map(({ kind, oldName, newName, similarity }) => [kind, oldName, newName, similarity]),
    ).toEqual([
      ['renamed', 'old name.txt', 'new name.txt', 100],
      ['copied', 'a', 'b', 87],
    ]);
  });

  it('reads changed modes, new and deleted files', () => {
    const files = parseDiff(
      lines(
        'diff --git a/run me.sh b/run me.sh',
        'old mode 100644',
        'new mode 100755',
        'diff --git a/empty b/empty',
        'new file mode 100644',
        'index 0000000..e69de29',
        'diff --git a/gone b/gone',
        'deleted file mode 120000',
        'index 1de5659..0000000',
        '--- a/gone',
        '+++ /dev/null',
        '@@ -1 +0,0 @@',
        '-target',
        '\\ No newline at end of file',
      ),
    );
    expect(files.map(({ kind, name, oldMode, newMode }) => [kind, name, oldMode, newMode])).toEqual([
      ['modified', 'run me.sh', '100644', '100755'],
      ['added', 'empty', undefined, '100644'],
      ['deleted', 'gone', '120000', undefined],
    ]);
    expect(files[2]?.hunks[0]?.lines[0]).toMatchObject({ text: 'target', noNewline: true });
  });

  it('tells binary files', () => {
    const files = parseDiff(
      lines(
        'diff --git a/logo.png b/logo.png',
        'index 1..2 100644',
        'Binary files a/logo.png and b/logo.png differ',
        'diff --git a/new.bin b/new.bin',
        'new file mode 100644',
        'index 000..222',
        'Binary files /dev/null and b/new.bin differ',
      ),
    );
    expect(files.map(({ name, kind, binary }) => [name, kind, binary])).toEqual([
      ['logo.png', 'modified', true],
      ['new.bin', 'added', true],
    ]);
  });

  it('marks the line that has no newline after it, on either side', () => {
    const [file] = parseDiff(
      lines(
        'diff --git a/f b/f',
        '--- a/f',
        '+++ b/f',
        '@@ -1,2 +1,2 @@',
        ' one',
        '-two',
        '\\ No newline at end of file',
        '+two',
      ),
    );
    expect(file?.hunks[0]?.lines.map((line) => line.noNewline === true)).toEqual([false, true, false]);
    expect(file?.hunks[0]?.cut).toBe(false);
  });

  it('reads names in quotes, with octal bytes, and names that end with a tab', () => {
    const files = parseDiff(
      lines(
        'diff --git "a/\\303\\244\\tb.txt" "b/\\303\\244\\tb.txt"',
        'index 1..2 100644',
        '--- "a/\\303\\244\\tb.txt"',
        '+++ "b/\\303\\244\\tb.txt"',
        '@@ -1 +1 @@',
        '-a',
        '+b',
        'diff --git a/with space b/with space',
        '--- a/with space\t',
        '+++ b/with space\t',
        '@@ -1 +1 @@',
        '-a',
        '+b',
      ),
    );
    expect(files.map(({ name }) => name)).toEqual(['ä\tb.txt', 'with space']);
  });

  it('says that a hunk was cut, and keeps what came of it', () => {
    const [file] = parseDiff(
      lines('diff --git a/f b/f', '--- a/f', '+++ b/f', '@@ -1,3 +1,5 @@', ' one', '+two'),
    );
    expect(file?.hunks[0]).toMatchObject({ cut: true });
    expect(file?.hunks[0]?.lines).toHaveLength(2);
    expect(parseDiff('diff --git a/f b/f\nindex 1..2 1006')[0]).toMatchObject({ name: 'f', hunks: [] });
  });

  it('reads conflicts, told against both sides, and paths that are not merged', () => {
    const files = parseDiff(
      lines(
        '* Unmerged path gone.txt',
        'diff --cc both.txt',
        'index 9c59e24,d6459e0..0000000',
        '--- a/both.txt',
        '+++ b/both.txt',
        '@@@ -1,2 -1,2 +1,6 @@@ fn',
        '++<<<<<<< HEAD',
        ' +ours',
        '++=======',
        '+ theirs',
        '++>>>>>>> other',
        '  end',
        'diff --git a/z b/z',
        'old mode 100644',
        'new mode 100755',
      ),
    );
    expect(files.map(({ name, kind, combined }) => [name, kind, combined])).toEqual([
      ['gone.txt', 'unmerged', false],
      ['both.txt', 'unmerged', true],
      ['z', 'modified', false],
    ]);
    expect(files[1]?.hunks[0]?.lines.map((line) => [line.kind, line.newNumber, line.text])).toEqual([
      ['added', 1, '<<<<<<< HEAD'],
      ['added', 2, 'ours'],
      ['added', 3, '======='],
      ['added', 4, 'theirs'],
      ['added', 5, '>>>>>>> other'],
      ['same', 6, 'end'],
    ]);
    expect(files[1]?.hunks[0]?.cut).toBe(false);
  });

  it('makes something of anything, and forgets nothing that follows it', () => {
    const noise = [
      '',
      'diff --git',
      'diff --git ',
      '@@',
      '@@ -x +y @@',
      '--- ',
      '+++',
      '\\',
      '"',
      'diff --git "a/',
    ];
    for (const one of noise) expect(() => parseDiff(lines(one, one))).not.toThrow();
    const files = parseDiff(lines(...noise, 'diff --git a/f b/f', 'new file mode 100644'));
    expect(files.at(-1)).toMatchObject({ name: 'f', kind: 'added' });
  });

  it('reads a large diff in good time', () => {
    const body = Array.from({ length: 100_000 }, (_, index) => `+line ${index}`);
    const text = lines('diff --git a/f b/f', '--- /dev/null', '+++ b/f', '@@ -0,0 +1,100000 @@', ...body);
    const before = performance.now();
    expect(parseDiff(text)[0]?.added).toBe(100_000);
    expect(performance.now() - before).toBeLessThan(2_000);
  });
});

describe('names', () => {
  it('finds the middle of two bare names with spaces', () => {
    expect(headerNames('a/x b/y b/x b/y')).toEqual({ oldName: 'x b/y', newName: 'x b/y' });
    expect(headerNames('a/x "b/\\303\\244"')).toEqual({ oldName: 'x', newName: 'ä' });
  });

  it('gives up on quotes that do not end', () => {
    expect(unquoted('"abc')).toBeUndefined();
    expect(unquoted('"a\\q"')).toBeUndefined();
    expect(unquoted('"a\\"b" rest')).toEqual({ name: 'a"b', end: 6 });
    expect(unquoted('"\\377x"')?.name).toBe('\ufffdx');
  });
});
