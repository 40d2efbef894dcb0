const ESCAPES: Readonly<Record<string, number>> = {
  a: 7,
  b: 8,
  t: 9,
  n: 10,
  v: 11,
  f: 12,
  r: 13,
  '"': 34,
  '\\': 92,
};
const encoder = new TextEncoder();

/**
 * Reads a name that git put in quotes, from its opening quote on: bytes beyond ASCII stand there as
 * octal. What is not UTF-8 comes as replacement characters. Undefined where the quotes do not end.
 */
export function unquoted(text: string, start = 0): { name: string; end: number } | undefined {
  const bytes: number[] = [];
  let at = start + 1;
  while (at < text.length) {
    const sign = text.charAt(at);
    if (sign === '"') {
      return { name: new TextDecoder().decode(new Uint8Array(bytes)), end: at + 1 };
    }
    if (sign !== '\\') {
      const whole = String.fromCodePoint(text.codePointAt(at) ?? 0);
      bytes.push(...encoder.encode(whole));
      at += whole.length;
      continue;
    }
    const octal = /^[0-3][0-7]{2}/u.exec(text.slice(at + 1, at + 4));
    if (octal) {
      bytes.push(Number.parseInt(octal[0], 8));
      at += 4;
      continue;
    }
    const byte = ESCAPES[text.charAt(at + 1)];
    if (byte === undefined) return undefined;
    bytes.push(byte);
    at += 2;
  }
  return undefined;
}

/** The name on a line that has nothing else: in quotes or bare; a tab ends a bare one with spaces in it. */
export function lineName(text: string): string {
  if (text.startsWith('"')) return unquoted(text)?.name ?? text;
  const tab = text.indexOf('\t');
  return tab === -1 ? text : text.slice(0, tab);
}

/** The name after `--- ` or `+++ `, without its prefix; null for a side that has no file. */
export function sideName(text: string, prefix: 'a/' | 'b/'): string | null {
  const name = lineName(text);
  if (name === '/dev/null') return null;
  return name.startsWith(prefix) ? name.slice(2) : name;
}

/**
 * The names of `diff --git` or `diff --cc`. Bare names may have spaces in them, so that where one
 * ends cannot be seen: there both are the same, unless lines below say otherwise.
 */
export function headerNames(text: string): { oldName: string; newName: string } {
  const bare = (name: string, prefix: string) => (name.startsWith(prefix) ? name.slice(2) : name);
  if (text.startsWith('"')) {
    const first = unquoted(text);
    if (first) {
      const rest = lineName(text.slice(first.end + 1));
      return { oldName: bare(first.name, 'a/'), newName: bare(rest, 'b/') };
    }
  }
  const quote = text.indexOf(' "');
  if (quote !== -1 && text.endsWith('"')) {
    const second = unquoted(text, quote + 1);
    if (second) return { oldName: bare(text.slice(0, quote), 'a/'), newName: bare(second.name, 'b/') };
  }
  const half = (text.length - 1) / 2;
  const name = text.slice(2, half);
  if (Number.isInteger(half) && text === `a/${name} b/${name}`) return { oldName: name, newName: name };
  const split = text.indexOf(' b/');
  if (split === -1) return { oldName: bare(text, 'a/'), newName: bare(text, 'b/') };
  return { oldName: bare(text.slice(0, split), 'a/'), newName: text.slice(split + 3) };
}
