/** What comes from a terminal and leaves it: titles, links, the clipboard. All of it is hostile. */

export const MAX_TITLE_CHARACTERS = 256;
export const MAX_COPY_BYTES = 100_000;
export const MAX_PASTE_BYTES = 1 << 20;
/** A paste of more than this is asked about, whatever the program says it can take. */
export const LARGE_PASTE_BYTES = 16 << 10;
const MAX_URL_CHARACTERS = 2048;

/** Controls, and marks that change the order or the place of what is beside them. */
// eslint-disable-next-line no-control-regex -- controls are what is looked for
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** Replace halves of characters, which cannot be encoded. */
function wellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, '\ufffd');
}

/** Return a title that may be shown as text. */
export function cleanTitle(title: string): string {
  const cut = wellFormed(title.slice(0, MAX_TITLE_CHARACTERS * 8));
  return Array.from(cut.replace(UNSEEN, '')).slice(0, MAX_TITLE_CHARACTERS).join('').trim();
}

/** Return a link's address as it will be opened, or null when it is not one of the web. */
export function webAddress(text: string): string | null {
  if (text.length > MAX_URL_CHARACTERS) return null;
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return null;
  // `https://bank.example@evil.example/` reads like another place than the one it leads to.
  url.username = url.password = '';
  return url.href;
}

/** Open a link in a tab of its own that knows nothing of this page. */
export function openLink(text: string): void {
  const address = webAddress(text);
  if (address !== null) window.open(address, '_blank', 'noopener,noreferrer');
}

/** Return the text that a program wants in the clipboard (OSC 52), or null: it asks, or is too long. */
export function copyRequest(command: string): string | null {
  const at = command.indexOf(';');
  if (at < 0 || at > 16) return null;
  const encoded = command.slice(at + 1);
  if (encoded === '' || encoded.length > Math.ceil(MAX_COPY_BYTES / 3) * 4) return null;
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(encoded)) return null;
  try {
    const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
    if (bytes.length > MAX_COPY_BYTES) return null;
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** Return a piece of text for a question: one line, with its controls shown. */
export function preview(text: string, most = 120): string {
  const shown = wellFormed(text.slice(0, most * 2))
    .replace(/\r\n?|\n/g, '⏎')
    .replace(/\t/g, ' ')
    .replace(UNSEEN, '�');
  const characters = Array.from(shown);
  const cut = characters.length > most || text.length > most * 2;
  return cut ? `${characters.slice(0, most).join('')}…` : shown;
}

export type Paste =
  | { kind: 'nothing' }
  | { kind: 'too-big'; bytes: number }
  | {
      kind: 'paste';
      /** What to send, without the brackets. */
      text: string;
      lines: number;
      bytes: number;
      /** How many control characters were left out. */
      removed: number;
      /** Why to ask first; empty: no reason. */
      ask: readonly ('lines' | 'large' | 'controls')[];
    };

/**
 * Make a text ready to be pasted.
 *
 * Controls are left out: among them the end of a bracketed paste, with which a text could escape from
 * it. Without brackets every line is obeyed as if it had been typed, so more than one is asked about.
 */
export function preparePaste(pasted: string, bracketed: boolean): Paste {
  if (pasted === '') return { kind: 'nothing' };
  if (pasted.length > MAX_PASTE_BYTES) return { kind: 'too-big', bytes: pasted.length };
  // eslint-disable-next-line no-control-regex -- controls are what is looked for
  const controls = /[\u0000-\u0008\u000b-\u000c\u000e-\u001f\u007f-\u009f]/g;
  let removed = 0;
  const text = wellFormed(pasted)
    .replace(/\r\n?|\n/g, '\r')
    .replace(controls, () => {
      removed += 1;
      return '';
    });
  if (text === '') return { kind: 'nothing' };
  const bytes = new TextEncoder().encode(text).length;
  if (bytes > MAX_PASTE_BYTES) return { kind: 'too-big', bytes };
  const lines = text.replace(/\r$/, '').split('\r').length;
  const ask: ('lines' | 'large' | 'controls')[] = [];
  // A line with its end is obeyed at once too.
  if (!bracketed && text.includes('\r')) ask.push('lines');
  if (bytes > LARGE_PASTE_BYTES) ask.push('large');
  if (removed > 0) ask.push('controls');
  return { kind: 'paste', text, lines, bytes, removed, ask };
}

export function bracket(text: string): string {
  return `\x1b[200~${text}\x1b[201~`;
}

/** `12 bytes`, `3.4 KB`, `1.2 MB` */
export function amount(bytes: number): string {
  if (bytes < 1000) return `${bytes} byte${bytes === 1 ? '' : 's'}`;
  if (bytes < 1_000_000) return `${(bytes / 1000).toFixed(1)} KB`;
  return `${(bytes / 1_000_000).toFixed(1)} MB`;
}

/** Return lines as one text, without what is empty below the last of them. */
export function outputOf(lines: readonly string[]): string {
  const last = lines.findLastIndex((line) => line.trim() !== '');
  return lines
    .slice(0, last + 1)
    .map((line) => line.trimEnd())
    .join('\n');
}

/** Return the name of a file for what a terminal of this name printed. */
export function fileName(name: string): string {
  const plain = name.replace(/[^\p{L}\p{N}._-]+/gu, '-').replace(/^[-.]+|-+$/g, '');
  return `${Array.from(plain).slice(0, 80).join('') || 'terminal'}.txt`;
}
