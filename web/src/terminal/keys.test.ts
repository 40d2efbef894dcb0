import { describe, expect, it } from 'vitest';
import { NO_MODIFIERS, encodeKey, isAnswer, modify, spendSticky, tapSticky, keyUse, type Key } from './keys';

function key(chord: string, code = '', name = ''): Key {
  const parts = chord.split('+');
  return {
    key: name || (parts.at(-1) ?? ''),
    code,
    ctrlKey: parts.includes('Ctrl'),
    shiftKey: parts.includes('Shift'),
    altKey: parts.includes('Alt'),
    metaKey: parts.includes('Meta'),
  };
}

describe('who a key belongs to', () => {
  it.each([
    ['Ctrl+c', 'KeyC'],
    ['Ctrl+v', 'KeyV'],
    ['Ctrl+k', 'KeyK'],
    ['Ctrl+w', 'KeyW'],
    ['Alt+b', 'KeyB'],
    ['Escape', 'Escape'],
    ['Shift+Tab', 'Tab'],
    ['a', 'KeyA'],
  ])('%s is the terminal’s', (chord, code) => {
    expect(keyUse(key(chord, code), 'other').use).toBe('terminal');
  });

  it.each([
    ['Ctrl+Shift+C', 'KeyC', 'copy'],
    ['Ctrl+Shift+F', 'KeyF', 'find'],
    ['Ctrl+Shift+Escape', 'Escape', 'leave'],
    ['Ctrl+Shift+F6', 'F6', 'leave'],
    ['Ctrl+Shift+=', 'Equal', 'font-larger'],
    ['Ctrl+Shift+_', 'Minus', 'font-smaller'],
    ['Ctrl+Shift+)', 'Digit0', 'font-reset'],
    ['Ctrl+Insert', 'Insert', 'copy'],
  ])('%s is a command', (chord, code, command) => {
    expect(keyUse(key(chord, code), 'other')).toEqual({ use: 'command', command });
  });

  it.each([
    ['Ctrl+Shift+D', 'KeyD', 'split-right'],
    ['Ctrl+Shift+E', 'KeyE', 'split-down'],
    ['Ctrl+Shift+Z', 'KeyZ', 'zoom'],
    ['Ctrl+Shift+ArrowLeft', 'ArrowLeft', 'focus-left'],
    ['Ctrl+Shift+ArrowDown', 'ArrowDown', 'focus-down'],
  ])('%s is for the panes', (chord, code, command) => {
    expect(keyUse(key(chord, code), 'other')).toEqual({ use: 'panes', command });
  });

  it('pastes by the browser’s own keys', () => {
    expect(keyUse(key('Ctrl+Shift+V', 'KeyV'), 'other').use).toBe('paste');
    expect(keyUse(key('Shift+Insert', 'Insert'), 'other').use).toBe('paste');
    expect(keyUse(key('Meta+v', 'KeyV'), 'mac').use).toBe('paste');
  });

  it('leaves every other chord with Ctrl+Shift to the page', () => {
    expect(keyUse(key('Ctrl+Shift+P', 'KeyP'), 'other').use).toBe('page');
    expect(keyUse(key('Ctrl+Shift+A', 'KeyA'), 'other').use).toBe('page');
  });

  it('leaves ⌘ to the page on a Mac, and Ctrl to the terminal', () => {
    expect(keyUse(key('Meta+c', 'KeyC'), 'mac')).toEqual({ use: 'command', command: 'copy' });
    expect(keyUse(key('Meta+k', 'KeyK'), 'mac').use).toBe('page');
    expect(keyUse(key('Ctrl+c', 'KeyC'), 'mac').use).toBe('terminal');
    expect(keyUse(key('Meta+Shift+D', 'KeyD'), 'mac')).toEqual({ use: 'panes', command: 'split-right' });
  });

  it('finds letters by what the keyboard’s print says', () => {
    // On a Dvorak keyboard the letter E is where D is on others.
    expect(keyUse(key('Ctrl+Shift+E', 'KeyD'), 'other')).toEqual({ use: 'panes', command: 'split-down' });
    expect(keyUse(key('Ctrl+Shift+J', 'KeyC'), 'other').use).toBe('page');
    // Where letters are not Latin, the place counts.
    expect(keyUse(key('Ctrl+Shift+С', 'KeyC'), 'other')).toEqual({ use: 'command', command: 'copy' });
  });
});

describe('the key bar', () => {
  it('arms a modifier for one key, keeps it at the second tap, lets it go at the third', () => {
    expect(['off', 'once', 'locked'].map((one) => tapSticky(one as 'off'))).toEqual([
      'once',
      'locked',
      'off',
    ]);
    expect(['off', 'once', 'locked'].map((one) => spendSticky(one as 'off'))).toEqual([
      'off',
      'off',
      'locked',
    ]);
  });

  it.each([
    ['ArrowUp', {}, false, '\x1b[A'],
    ['ArrowUp', {}, true, '\x1bOA'],
    ['ArrowLeft', { ctrl: true }, true, '\x1b[1;5D'],
    ['ArrowRight', { ctrl: true, alt: true, shift: true }, false, '\x1b[1;8C'],
    ['Home', {}, false, '\x1b[H'],
    ['End', {}, true, '\x1bOF'],
    ['PageUp', { shift: true }, false, '\x1b[5;2~'],
    ['PageDown', {}, false, '\x1b[6~'],
    ['Tab', {}, false, '\t'],
    ['Tab', { shift: true }, false, '\x1b[Z'],
    ['Escape', {}, false, '\x1b'],
    ['Escape', { alt: true }, false, '\x1b\x1b'],
    ['Enter', { alt: true }, false, '\x1b\r'],
    ['Backspace', { ctrl: true }, false, '\b'],
  ] as const)('encodes %s with %o', (name, modifiers, application, expected) => {
    expect(encodeKey(name, { ...NO_MODIFIERS, ...modifiers }, application)).toBe(expected);
  });

  it.each([
    ['c', { ctrl: true, alt: false }, '\x03'],
    ['C', { ctrl: true, alt: false }, '\x03'],
    ['[', { ctrl: true, alt: false }, '\x1b'],
    [' ', { ctrl: true, alt: false }, '\0'],
    ['/', { ctrl: true, alt: false }, '\x1f'],
    ['é', { ctrl: true, alt: false }, 'é'],
    ['b', { ctrl: false, alt: true }, '\x1bb'],
    ['c', { ctrl: true, alt: true }, '\x1b\x03'],
    ['\x1b[A', { ctrl: true, alt: false }, '\x1b[1;5A'],
    ['\x1bOC', { ctrl: false, alt: true }, '\x1b[1;3C'],
    ['word', { ctrl: true, alt: false }, 'word'],
    ['x', { ctrl: false, alt: false }, 'x'],
  ])('changes %j with %o', (typed, modifiers, expected) => {
    expect(modify(typed, modifiers)).toBe(expected);
  });
});

describe('an emulator’s answers', () => {
  it.each([
    '\x1b[?1;2c',
    '\x1b[?6c',
    '\x1b[>0;276;0c',
    '\x1b[0n',
    '\x1b[?12;40R',
    '\x1b[?2004;1$y',
    '\x1b[4;2$y',
    '\x1b[8;24;80t',
    '\x1b]10;rgb:ffff/ffff/ffff\x1b\\',
    '\x1b]4;1;rgb:0000/0000/0000\x1b\\',
    '\x1bP1$r0m\x1b\\',
    '\x1bP>|xterm.js(6.0.0)\x1b\\',
  ])('%j is one', (answer) => {
    expect(isAnswer(answer)).toBe(true);
  });

  it.each([
    'c',
    '\x1b[A',
    '\x1bOP',
    '\x1b[1;2R',
    '\x1b[15~',
    '\x1b[I',
    '\x1b[<0;10;10M',
    '\x1b[Z',
    '\x1b',
    '\x1bc',
  ])('%j is a key', (typed) => {
    expect(isAnswer(typed)).toBe(false);
  });
});
