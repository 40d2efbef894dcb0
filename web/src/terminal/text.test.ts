import { describe, expect, it } from 'vitest';
import {
  MAX_COPY_BYTES,
  MAX_PASTE_BYTES,
  cleanTitle,
  copyRequest,
  fileName,
  outputOf,
  preparePaste,
  preview,
  webAddress,
} from './text';

const osc52 = (text: string, where = 'c') =>
  `${where};${btoa(String.fromCharCode(...new TextEncoder().encode(text)))}`;

describe('a title', () => {
  it('loses controls and marks that turn text around', () => {
    expect(cleanTitle('a\x1b]0;b\x07c\u202egnp.exe\u2066\u0085\n')).toBe('a]0;bcgnp.exe');
  });

  it('is cut at 256 characters, none of them halved', () => {
    expect(Array.from(cleanTitle('😀'.repeat(300)))).toEqual(Array.from({ length: 256 }, () => '😀'));
    expect(cleanTitle('x'.repeat(1e6)).length).toBe(256);
    expect(cleanTitle('a\ud800b')).toBe('a\ufffdb');
  });
});

describe('a link', () => {
  it.each([
    'javascript:alert(1)',
    'data:text/html,x',
    'file:///etc/passwd',
    'ssh://host',
    ' vbscript:x',
    'nothing',
    '',
  ])('%j is not opened', (text) => {
    expect(webAddress(text)).toBe(null);
  });

  it('is opened without a name that hides where it leads', () => {
    expect(webAddress('https://bank.example@evil.example/a')).toBe('https://evil.example/a');
    expect(webAddress('http://a.example/?q=1#x')).toBe('http://a.example/?q=1#x');
    expect(webAddress(`https://a.example/${'x'.repeat(3000)}`)).toBe(null);
  });
});

describe('a program that wants the clipboard', () => {
  it('may write text', () => {
    expect(copyRequest(osc52('grüße\n😀'))).toBe('grüße\n😀');
    expect(copyRequest(osc52('x', ''))).toBe('x');
  });

  it.each([
    ['asks for it', 'c;?'],
    ['empties it', 'c;'],
    ['sends no base64', 'c;***'],
    ['sends no text', 'c;gICA'],
    ['names no place', 'eA=='],
    ['sends more than is allowed', osc52('x'.repeat(MAX_COPY_BYTES / 10), 'c').repeat(11)],
    ['sends a little more than is allowed', `c;${btoa('x'.repeat(MAX_COPY_BYTES + 1))}`],
  ])('gets nothing when it %s', (_what, command) => {
    expect(copyRequest(command)).toBe(null);
  });

  it('may write as much as is allowed', () => {
    expect(copyRequest(`c;${btoa('x'.repeat(MAX_COPY_BYTES))}`)?.length).toBe(MAX_COPY_BYTES);
  });
});

describe('a paste', () => {
  it('of one line is not asked about', () => {
    expect(preparePaste('ls -l', false)).toEqual({
      kind: 'paste',
      text: 'ls -l',
      lines: 1,
      bytes: 5,
      removed: 0,
      ask: [],
    });
  });

  it('of lines is asked about where each would be obeyed', () => {
    expect(preparePaste('a\r\nb\nc', false)).toMatchObject({ text: 'a\rb\rc', lines: 3, ask: ['lines'] });
    expect(preparePaste('rm -rf x\n', false)).toMatchObject({ lines: 1, ask: ['lines'] });
    expect(preparePaste('a\nb', true)).toMatchObject({ lines: 2, ask: [] });
  });

  it('cannot end its own brackets', () => {
    const paste = preparePaste('a\x1b[201~\nrm -rf x\n\u009b201~', true);
    expect(paste).toMatchObject({ text: 'a[201~\rrm -rf x\r201~', removed: 2, ask: ['controls'] });
  });

  it('keeps tabs', () => {
    expect(preparePaste('a\tb', false)).toMatchObject({ text: 'a\tb', removed: 0 });
  });

  it('that is long is asked about, and one that is too long refused', () => {
    expect(preparePaste('x'.repeat(20_000), true)).toMatchObject({ ask: ['large'] });
    expect(preparePaste('x'.repeat(MAX_PASTE_BYTES), true)).toMatchObject({ kind: 'paste' });
    expect(preparePaste('x'.repeat(MAX_PASTE_BYTES + 1), true)).toMatchObject({ kind: 'too-big' });
    expect(preparePaste('ü'.repeat(MAX_PASTE_BYTES / 2 + 1), true)).toMatchObject({ kind: 'too-big' });
  });

  it('of nothing is nothing', () => {
    expect(preparePaste('', false)).toEqual({ kind: 'nothing' });
    expect(preparePaste('\x1b\x07', false)).toEqual({ kind: 'nothing' });
  });

  it('is shown as one line', () => {
    expect(preview('a\nb\tc\x1b')).toBe('a⏎b c�');
    expect(preview('x'.repeat(500), 10)).toBe('xxxxxxxxxx…');
  });
});

describe('what is saved', () => {
  it('ends with the last line that says something', () => {
    expect(outputOf(['a  ', '', 'b', '   ', ''])).toBe('a\n\nb');
    expect(outputOf(['', ' '])).toBe('');
  });

  it('is a file in no other folder and of no other kind', () => {
    expect(fileName('fix the login')).toBe('fix-the-login.txt');
    expect(fileName('../../.bashrc\u202e')).toBe('bashrc.txt');
    expect(fileName('größer/2')).toBe('größer-2.txt');
    expect(fileName('<>')).toBe('terminal.txt');
    expect(fileName('x'.repeat(500)).length).toBe(84);
  });
});
