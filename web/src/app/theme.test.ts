import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

const css = readFileSync(`${process.cwd()}/src/app/theme.css`, 'utf8');
const COLOUR = String.raw`oklch\(([\d.]+) ([\d.]+) ([\d.]+)(?: \/ [\d.]+)?\)`;

type Tokens = Record<string, { light: number; dark: number }>;

/** The relative luminance of an oklch colour, by the CSS Color 4 matrices. */
function luminance(l: number, c: number, h: number): number {
  const [a, b] = [c * Math.cos((h * Math.PI) / 180), c * Math.sin((h * Math.PI) / 180)];
  const [x, y, z] = [
    (l + 0.3963377774 * a + 0.2158037573 * b) ** 3,
    (l - 0.1055613458 * a - 0.0638541728 * b) ** 3,
    (l - 0.0894841775 * a - 1.291485548 * b) ** 3,
  ];
  const clip = (value: number) => Math.min(1, Math.max(0, value));
  const red = clip(4.0767416621 * x - 3.3077115913 * y + 0.2309699292 * z);
  const green = clip(-1.2684380046 * x + 2.6097574011 * y - 0.3413193965 * z);
  const blue = clip(-0.0041960863 * x - 0.7034186147 * y + 1.707614701 * z);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function tokensIn(block: string): Tokens {
  const found: Tokens = {};
  const both = new RegExp(String.raw`--([\w-]+): light-dark\(${COLOUR}, ${COLOUR}\)`, 'gu');
  for (const [, name = '', ...parts] of block.matchAll(both)) {
    const [l = 0, c = 0, h = 0, dl = 0, dc = 0, dh = 0] = parts.map(Number);
    found[name] = { light: luminance(l, c, h), dark: luminance(dl, dc, dh) };
  }
  for (const [, name = '', ...parts] of block.matchAll(new RegExp(String.raw`--([\w-]+): ${COLOUR}`, 'gu'))) {
    const [l = 0, c = 0, h = 0] = parts.map(Number);
    found[name] = { light: luminance(l, c, h), dark: luminance(l, c, h) };
  }
  return found;
}

const normal = tokensIn(/:root \{([^}]+)\}/u.exec(css)?.[1] ?? '');
const more = { ...normal, ...tokensIn(/:root\[data-contrast='more'\] \{([^}]+)\}/u.exec(css)?.[1] ?? '') };

function contrast(tokens: Tokens, front: string, back: string, theme: 'light' | 'dark'): number {
  const [a, b] = [tokens[front]?.[theme] ?? NaN, tokens[back]?.[theme] ?? NaN];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}

const GROUNDS = ['canvas', 'surface', 'raised', 'sunken'];
const TEXTS = ['fg', 'fg-2', 'fg-3', 'accent-fg', 'ok', 'warn', 'bad', 'note'];
const PAIRS: [string, string][] = [
  ...GROUNDS.flatMap((ground) => TEXTS.map((text): [string, string] => [text, ground])),
  ...['accent', 'accent-hover', 'bad-solid'].map((ground): [string, string] => ['on-accent', ground]),
  ...['ok', 'warn', 'bad', 'note'].flatMap((tone): [string, string][] => [
    [tone, `${tone}-soft`],
    ['fg', `${tone}-soft`],
    ['fg-2', `${tone}-soft`],
  ]),
  ['accent-fg', 'accent-soft'],
];

describe.each(['light', 'dark'] as const)('the colours of the %s theme', (theme) => {
  it.each(PAIRS)('let %s be read on %s', (front, back) => {
    expect(contrast(normal, front, back, theme)).toBeGreaterThanOrEqual(4.5);
  });

  it.each(GROUNDS)('show borders of fields and the focus ring on %s', (ground) => {
    expect(contrast(normal, 'line-strong', ground, theme)).toBeGreaterThanOrEqual(3);
    expect(contrast(normal, 'ring', ground, theme)).toBeGreaterThanOrEqual(3);
  });

  it.each(GROUNDS)('are stronger on %s where a person wants more contrast', (ground) => {
    for (const text of ['fg', 'fg-2', 'fg-3']) {
      expect(contrast(more, text, ground, theme)).toBeGreaterThanOrEqual(7);
    }
  });
});
