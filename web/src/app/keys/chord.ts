/**
 * Keys as text: `Mod+Shift+P`, `?`, `g h`. Mod is ⌘ on a Mac and Ctrl elsewhere. A sequence is
 * chords with spaces between. Shift is written with letters and named keys only: `?` is `?`
 * wherever a keyboard has it.
 */
export type Chord = string;
export type Sequence = readonly Chord[];

export type KeyPress = Pick<KeyboardEvent, 'key' | 'code' | 'ctrlKey' | 'metaKey' | 'altKey' | 'shiftKey'>;

const MODIFIERS = new Set([
  'Control',
  'Shift',
  'Alt',
  'Meta',
  'AltGraph',
  'CapsLock',
  'Fn',
  'Dead',
  'Process',
]);
const NAMES: Readonly<Record<string, string>> = {
  ' ': 'space',
  esc: 'escape',
  up: 'arrowup',
  down: 'arrowdown',
  left: 'arrowleft',
  right: 'arrowright',
  plus: '+',
};

export function isMac(platform: string): boolean {
  return /mac|iphone|ipad/iu.test(platform);
}

// Deprecated, and the only thing that all browsers still answer.
// eslint-disable-next-line @typescript-eslint/no-deprecated
export const onMac = typeof navigator !== 'undefined' && isMac(navigator.platform);

function join(mods: { ctrl: boolean; meta: boolean; alt: boolean; shift: boolean }, key: string): Chord {
  const letterOrNamed = key.length > 1 || /^\p{L}$/u.test(key);
  return [
    mods.ctrl ? 'ctrl+' : '',
    mods.meta ? 'meta+' : '',
    mods.alt ? 'alt+' : '',
    mods.shift && letterOrNamed ? 'shift+' : '',
    key,
  ].join('');
}

/** The chord of a key press, or undefined for a modifier alone. */
export function chordOf(press: KeyPress): Chord | undefined {
  if (MODIFIERS.has(press.key) || press.key === 'Unidentified') return undefined;
  let key = press.key.toLowerCase();
  const modified = press.ctrlKey || press.metaKey || press.altKey;
  // With a modifier, a keyboard of another script still means the key's place, and a Mac's Option writes signs.
  const place = /^Key([A-Z])$/u.exec(press.code)?.[1]?.toLowerCase();
  if (place !== undefined && modified && !/^[a-z]$/u.test(key)) key = place;
  // AltGr writes characters on many keyboards: it is no modifier there.
  const writes = press.ctrlKey && press.altKey && press.key.length === 1 && place === undefined;
  return join(
    {
      ctrl: press.ctrlKey && !writes,
      meta: press.metaKey,
      alt: press.altKey && !writes,
      shift: press.shiftKey,
    },
    NAMES[key] ?? key,
  );
}

/** Reads keys as a person or a program writes them; undefined where they are none. */
export function parseKeys(text: string, mac: boolean): Sequence | undefined {
  const chords: Chord[] = [];
  for (const part of text.trim().split(/\s+/u)) {
    const chord = parseChord(part, mac);
    if (chord === undefined) return undefined;
    chords.push(chord);
  }
  return chords.length > 0 ? chords : undefined;
}

function parseChord(text: string, mac: boolean): Chord | undefined {
  if (text === '') return undefined;
  // A plus after a plus, or alone, is the key itself.
  const parts = (text === '+' || text.endsWith('++') ? `${text.slice(0, -1)}plus` : text).split('+');
  const key = (parts.pop() ?? '').toLowerCase();
  if (key === '') return undefined;
  const mods = { ctrl: false, meta: false, alt: false, shift: false };
  for (const part of parts.map((one) => one.toLowerCase())) {
    if (part === 'mod') mods[mac ? 'meta' : 'ctrl'] = true;
    else if (part === 'ctrl' || part === 'meta' || part === 'alt' || part === 'shift') mods[part] = true;
    else return undefined;
  }
  return join(mods, NAMES[key] ?? key);
}

/** Whether it acts while an input or a terminal has the focus: Ctrl or ⌘ with Shift. */
export function actsEverywhere(chord: Chord): boolean {
  return /^(ctrl\+|meta\+)+(alt\+)?shift\+/u.test(chord);
}

const SIGNS: Readonly<Record<string, string>> = {
  arrowup: '↑',
  arrowdown: '↓',
  arrowleft: '←',
  arrowright: '→',
  escape: 'Esc',
  enter: '↵',
  space: 'Space',
  backspace: '⌫',
  delete: 'Del',
  tab: 'Tab',
};

/** A chord's keys as they are shown, one text for each key cap. */
export function keyCaps(chord: Chord, mac: boolean): string[] {
  const mods: Record<string, string> = mac
    ? { ctrl: '⌃', meta: '⌘', alt: '⌥', shift: '⇧' }
    : { ctrl: 'Ctrl', meta: 'Win', alt: 'Alt', shift: 'Shift' };
  const parts = chord === '+' ? ['+'] : chord.replace(/\+\+$/u, '+plus').split('+');
  return parts.map((part) => {
    const mod = mods[part];
    if (mod !== undefined) return mod;
    if (part === 'plus') return '+';
    return (
      SIGNS[part] ?? (part.length === 1 ? part.toUpperCase() : part.charAt(0).toUpperCase() + part.slice(1))
    );
  });
}
