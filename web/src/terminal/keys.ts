/** Which keys belong to the page, and what the others are as bytes. Without any DOM. */

export type Platform = 'mac' | 'other';

/** The part of a keyboard event that is looked at. */
export type Key = {
  key: string;
  code: string;
  ctrlKey: boolean;
  shiftKey: boolean;
  altKey: boolean;
  metaKey: boolean;
};

export type TerminalCommand = 'copy' | 'find' | 'leave' | 'font-larger' | 'font-smaller' | 'font-reset';
export type PaneCommand =
  'split-right' | 'split-down' | 'focus-left' | 'focus-right' | 'focus-up' | 'focus-down' | 'zoom';

/**
 * What a key is for.
 *
 * `terminal`: the emulator encodes it. `page`: the page (or the browser) has it, the terminal does not.
 * `paste`: the browser fires its own paste event, which needs no permission.
 */
export type KeyUse =
  | { use: 'terminal' | 'page' | 'paste' }
  | { use: 'command'; command: TerminalCommand }
  | { use: 'panes'; command: PaneCommand };

const TERMINAL: KeyUse = { use: 'terminal' };
const PAGE: KeyUse = { use: 'page' };
const PASTE: KeyUse = { use: 'paste' };
const command = (name: TerminalCommand): KeyUse => ({ use: 'command', command: name });
const panes = (name: PaneCommand): KeyUse => ({ use: 'panes', command: name });

/** Ctrl+Shift (on a Mac ⌘+Shift too) and one of these, by the key's place on the keyboard. */
const CHORDS: Partial<Record<string, KeyUse>> = {
  KeyC: command('copy'),
  KeyV: PASTE,
  KeyF: command('find'),
  Escape: command('leave'),
  // Windows keeps Ctrl+Shift+Esc for itself.
  F6: command('leave'),
  Equal: command('font-larger'),
  NumpadAdd: command('font-larger'),
  Minus: command('font-smaller'),
  NumpadSubtract: command('font-smaller'),
  Digit0: command('font-reset'),
  Numpad0: command('font-reset'),
  KeyD: panes('split-right'),
  KeyE: panes('split-down'),
  KeyZ: panes('zoom'),
  ArrowLeft: panes('focus-left'),
  ArrowRight: panes('focus-right'),
  ArrowUp: panes('focus-up'),
  ArrowDown: panes('focus-down'),
};
/** Letters are looked up by what they write, so that they are where the keyboard's print says. */
const LETTERS: Partial<Record<string, string>> = {
  c: 'KeyC',
  v: 'KeyV',
  f: 'KeyF',
  d: 'KeyD',
  e: 'KeyE',
  z: 'KeyZ',
};

export function keyUse(key: Key, platform: Platform): KeyUse {
  if (key.shiftKey && !key.altKey && (key.ctrlKey || (platform === 'mac' && key.metaKey))) {
    const letter = key.key.length === 1 ? key.key.toLowerCase() : '';
    const isLetter = /^[a-z]$/.test(letter);
    const code = isLetter ? LETTERS[letter] : key.code;
    return (code === undefined ? undefined : CHORDS[code]) ?? PAGE;
  }
  if (platform === 'mac') return key.metaKey ? commandKeyUse(key) : TERMINAL;
  if (key.key === 'Insert' && !key.altKey && !key.metaKey) {
    if (key.ctrlKey && !key.shiftKey) return command('copy');
    if (key.shiftKey && !key.ctrlKey) return PASTE;
  }
  return key.metaKey ? PAGE : TERMINAL;
}

function commandKeyUse(key: Key): KeyUse {
  switch (key.key.toLowerCase()) {
    case 'c':
      return command('copy');
    case 'v':
      return PASTE;
    case 'f':
      return command('find');
    default:
      return PAGE;
  }
}

// The key bar of touch screens.

export type Sticky = 'off' | 'once' | 'locked';
export type Modifiers = { ctrl: boolean; alt: boolean; shift: boolean };
export const NO_MODIFIERS: Modifiers = { ctrl: false, alt: false, shift: false };

/** A tap arms a modifier for one key, a second one keeps it, a third lets it go. */
export function tapSticky(sticky: Sticky): Sticky {
  return sticky === 'off' ? 'once' : sticky === 'once' ? 'locked' : 'off';
}

/** What is left of a modifier after a key. */
export function spendSticky(sticky: Sticky): Sticky {
  return sticky === 'once' ? 'off' : sticky;
}

export type BarKey =
  | 'Escape'
  | 'Tab'
  | 'Enter'
  | 'Backspace'
  | 'ArrowUp'
  | 'ArrowDown'
  | 'ArrowRight'
  | 'ArrowLeft'
  | 'Home'
  | 'End'
  | 'PageUp'
  | 'PageDown';

const CURSOR: Partial<Record<BarKey, string>> = {
  ArrowUp: 'A',
  ArrowDown: 'B',
  ArrowRight: 'C',
  ArrowLeft: 'D',
  End: 'F',
  Home: 'H',
};

/** Return what a key sends; `applicationCursor` is the mode that programs set for arrow keys. */
export function encodeKey(key: BarKey, modifiers: Modifiers, applicationCursor: boolean): string {
  const { ctrl, alt, shift } = modifiers;
  const number = 1 + (shift ? 1 : 0) + (alt ? 2 : 0) + (ctrl ? 4 : 0);
  const cursor = CURSOR[key];
  if (cursor !== undefined) {
    if (number > 1) return `\x1b[1;${number}${cursor}`;
    return `\x1b${applicationCursor ? 'O' : '['}${cursor}`;
  }
  const before = alt ? '\x1b' : '';
  switch (key) {
    case 'PageUp':
      return number > 1 ? `\x1b[5;${number}~` : '\x1b[5~';
    case 'PageDown':
      return number > 1 ? `\x1b[6;${number}~` : '\x1b[6~';
    case 'Tab':
      return shift ? '\x1b[Z' : `${before}\t`;
    case 'Enter':
      return `${before}\r`;
    case 'Backspace':
      return `${before}${ctrl ? '\b' : '\x7f'}`;
    default:
      return `${before}\x1b`;
  }
}

const CURSOR_SEQUENCE = /^\x1b[[O]([A-DFH])$/; // eslint-disable-line no-control-regex -- what keys send

/** Return what was typed on a soft keyboard with the bar's modifiers held; text passes as it is. */
export function modify(typed: string, { ctrl, alt }: { ctrl: boolean; alt: boolean }): string {
  if (!ctrl && !alt) return typed;
  const cursor = CURSOR_SEQUENCE.exec(typed)?.[1];
  if (cursor !== undefined) return `\x1b[1;${1 + (alt ? 2 : 0) + (ctrl ? 4 : 0)}${cursor}`;
  // A word that a keyboard completed has no control character.
  if (Array.from(typed).length !== 1) return typed;
  return `${alt ? '\x1b' : ''}${ctrl ? control(typed) : typed}`;
}

function control(character: string): string {
  const code = character.toUpperCase().charCodeAt(0);
  if (character.length === 1 && code >= 0x40 && code <= 0x5f) return String.fromCharCode(code & 0x1f);
  const digits: Partial<Record<string, string>> = {
    ' ': '\0',
    '2': '\0',
    '/': '\x1f',
    '?': '\x7f',
    '8': '\x7f',
  };
  return digits[character] ?? character;
}

// What the emulator would say by itself.

const ANSWER =
  // eslint-disable-next-line no-control-regex -- answers are made of controls
  /^\x1b(?:\[[?>=][\d;]*c|\[\d+(?:;\d+)*c|\[0n|\[\??[\d;]+\$y|\[\?[\d;]+[Ru]|\[[468];\d+;\d+t|\][\d;]+;rgb:.*|P.*)$/s;

/**
 * Tell whether this is an emulator's answer to a program's question and no key. tmux in the sandbox
 * answers all of them; a second answer would be typed into the program.
 */
export function isAnswer(typed: string): boolean {
  return ANSWER.test(typed);
}
