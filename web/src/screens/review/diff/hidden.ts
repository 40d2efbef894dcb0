/** A piece of a text: shown as it is, or a character that would not be seen and is named instead. */
export type Piece = { text: string } | { hidden: string; mark: string; name: string };

const NAMES: Readonly<Record<number, readonly [mark: string, name: string]>> = {
  0x00: ['NUL', 'NULL'],
  0x07: ['BEL', 'BELL'],
  0x08: ['BS', 'BACKSPACE'],
  0x0b: ['VT', 'LINE TABULATION'],
  0x0c: ['FF', 'FORM FEED'],
  0x0d: ['CR', 'CARRIAGE RETURN'],
  0x1b: ['ESC', 'ESCAPE'],
  0x7f: ['DEL', 'DELETE'],
  0x85: ['NEL', 'NEXT LINE'],
  0xad: ['SHY', 'SOFT HYPHEN'],
  0x34f: ['CGJ', 'COMBINING GRAPHEME JOINER'],
  0x61c: ['ALM', 'ARABIC LETTER MARK'],
  0x115f: ['HF', 'HANGUL CHOSEONG FILLER'],
  0x1160: ['HF', 'HANGUL JUNGSEONG FILLER'],
  0x180e: ['MVS', 'MONGOLIAN VOWEL SEPARATOR'],
  0x200b: ['ZWSP', 'ZERO WIDTH SPACE'],
  0x200c: ['ZWNJ', 'ZERO WIDTH NON-JOINER'],
  0x200d: ['ZWJ', 'ZERO WIDTH JOINER'],
  0x200e: ['LRM', 'LEFT-TO-RIGHT MARK'],
  0x200f: ['RLM', 'RIGHT-TO-LEFT MARK'],
  0x2028: ['LS', 'LINE SEPARATOR'],
  0x2029: ['PS', 'PARAGRAPH SEPARATOR'],
  0x202a: ['LRE', 'LEFT-TO-RIGHT EMBEDDING'],
  0x202b: ['RLE', 'RIGHT-TO-LEFT EMBEDDING'],
  0x202c: ['PDF', 'POP DIRECTIONAL FORMATTING'],
  0x202d: ['LRO', 'LEFT-TO-RIGHT OVERRIDE'],
  0x202e: ['RLO', 'RIGHT-TO-LEFT OVERRIDE'],
  0x2060: ['WJ', 'WORD JOINER'],
  0x2066: ['LRI', 'LEFT-TO-RIGHT ISOLATE'],
  0x2067: ['RLI', 'RIGHT-TO-LEFT ISOLATE'],
  0x2068: ['FSI', 'FIRST STRONG ISOLATE'],
  0x2069: ['PDI', 'POP DIRECTIONAL ISOLATE'],
  0x3164: ['HF', 'HANGUL FILLER'],
  0xfeff: ['BOM', 'ZERO WIDTH NO-BREAK SPACE'],
  0xffa0: ['HF', 'HALFWIDTH HANGUL FILLER'],
};

// Controls but the tab; what joins, splits, hides or turns the direction of text; tags; variation
// selectors beyond those that emoji use; private use and unpaired halves.
// Characters that combine or control are what this is about.
/* eslint-disable no-control-regex, no-misleading-character-class */
const HIDDEN =
  /[\0-\x08\x0a-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}\ue000-\uf8ff\ud800-\udfff]/gu;
const JOINED_EMOJI = /\p{Extended_Pictographic}[\ufe0f\u{1f3fb}-\u{1f3ff}]*$/u;
/* eslint-enable no-control-regex, no-misleading-character-class */
const EMOJI = /^\p{Extended_Pictographic}/u;
const CONTEXT = 8;

/** Whether there is anything in a text that would not be seen. */
export function hasHidden(text: string): boolean {
  return hiddenAt(text, 0) !== undefined;
}

/** How many characters of a text would not be seen; at most `most`, since that is said of large texts. */
export function countHidden(text: string, most = 1_000): number {
  let found = 0;
  for (let at = hiddenAt(text, 0); at !== undefined && found < most; at = hiddenAt(text, at.end)) found += 1;
  return found;
}

/** A text in pieces, so that nothing in it can hide or turn the rest round. Pure. */
export function pieces(text: string): Piece[] {
  const found: Piece[] = [];
  let done = 0;
  for (let at = hiddenAt(text, 0); at !== undefined; at = hiddenAt(text, at.end)) {
    if (at.start > done) found.push({ text: text.slice(done, at.start) });
    found.push({ hidden: text.slice(at.start, at.end), ...named(at.code) });
    done = at.end;
  }
  if (done < text.length || found.length === 0) found.push({ text: text.slice(done) });
  return found;
}

/** The same as one plain text, for places that take nothing else. */
export function visibleText(text: string): string {
  if (!hasHidden(text)) return text;
  return pieces(text)
    .map((piece) => ('text' in piece ? piece.text : `⟨${piece.mark}⟩`))
    .join('');
}

function hiddenAt(text: string, from: number): { start: number; end: number; code: number } | undefined {
  HIDDEN.lastIndex = from;
  for (let match = HIDDEN.exec(text); match !== null; match = HIDDEN.exec(text)) {
    const [sign] = match;
    const start = match.index;
    // Between two emoji it makes one of them: that is seen.
    const joins =
      sign === '\u200d' &&
      JOINED_EMOJI.test(text.slice(Math.max(0, start - CONTEXT), start)) &&
      EMOJI.test(text.slice(start + 1));
    if (!joins) return { start, end: start + sign.length, code: sign.codePointAt(0) ?? 0 };
  }
  return undefined;
}

function named(code: number): { mark: string; name: string } {
  const number = `U+${code.toString(16).toUpperCase().padStart(4, '0')}`;
  const known = NAMES[code];
  return known ? { mark: known[0], name: `${number} ${known[1]}` } : { mark: number, name: number };
}
