import { describe, expect, it } from 'vitest';
import { CONTRAST, THEMES, contrast, type ThemeName } from './themes';

const NOT_TEXT = [
  'background',
  'cursorAccent',
  'selectionBackground',
  'selectionInactiveBackground',
  'selectionForeground',
];

describe.each(Object.keys(THEMES) as ThemeName[])('the theme %s', (name) => {
  const theme = THEMES[name];
  const background = theme.background ?? '';
  const colours = Object.entries(theme).filter(
    ([what]) => !NOT_TEXT.includes(what) && !what.startsWith('scrollbar'),
  ) as [string, string][];

  it.each(colours)('can be read in %s', (_what, colour) => {
    expect(contrast(colour, background)).toBeGreaterThanOrEqual(CONTRAST[name]);
  });

  it('can be read where it is selected', () => {
    const text = theme.selectionForeground ?? theme.foreground ?? '';
    expect(contrast(text, theme.selectionBackground ?? '')).toBeGreaterThanOrEqual(CONTRAST[name]);
  });
});

it('counts contrast as WCAG does', () => {
  expect(contrast('#000000', '#ffffff')).toBeCloseTo(21);
  expect(contrast('#777777', '#ffffff')).toBeCloseTo(4.48, 1);
});
