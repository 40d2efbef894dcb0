/** The emulator's colours: dark, light and high contrast. They are tested for contrast. */

import type { ITheme } from '@xterm/xterm';

export type ThemeName = 'dark' | 'light' | 'contrast-dark' | 'contrast-light';

/** Of the text on its background; the emulator mends what programs choose. */
export const CONTRAST: Record<ThemeName, number> = {
  dark: 4.5,
  light: 4.5,
  'contrast-dark': 7,
  'contrast-light': 7,
};

export const THEMES: Record<ThemeName, ITheme> = {
  dark: {
    scrollbarSliderBackground: '#ffffff24',
    scrollbarSliderHoverBackground: '#ffffff40',
    scrollbarSliderActiveBackground: '#ffffff59',
    background: '#0f1115',
    foreground: '#e3e6eb',
    cursor: '#e3e6eb',
    cursorAccent: '#0f1115',
    selectionBackground: '#2f4a78',
    selectionInactiveBackground: '#2a3244',
    black: '#7b8393',
    red: '#f2777a',
    green: '#7cc98b',
    yellow: '#e2bd6c',
    blue: '#78aef5',
    magenta: '#cf9bf0',
    cyan: '#67c7d1',
    white: '#c9ced6',
    brightBlack: '#8b94a5',
    brightRed: '#ff9a9c',
    brightGreen: '#9fe0ab',
    brightYellow: '#f3d48f',
    brightBlue: '#9fc6ff',
    brightMagenta: '#e0bbfb',
    brightCyan: '#92e0e8',
    brightWhite: '#ffffff',
  },
  light: {
    scrollbarSliderBackground: '#00000021',
    scrollbarSliderHoverBackground: '#0000003d',
    scrollbarSliderActiveBackground: '#00000054',
    background: '#ffffff',
    foreground: '#1b1f27',
    cursor: '#1b1f27',
    cursorAccent: '#ffffff',
    selectionBackground: '#b9d3fb',
    selectionInactiveBackground: '#dde3ec',
    black: '#1b1f27',
    red: '#b3261e',
    green: '#1d6f3b',
    yellow: '#7a5600',
    blue: '#1a5fb4',
    magenta: '#8a2fa8',
    cyan: '#0b6b78',
    white: '#5b6370',
    brightBlack: '#596170',
    brightRed: '#a31515',
    brightGreen: '#166534',
    brightYellow: '#6b4a00',
    brightBlue: '#174ea6',
    brightMagenta: '#7b1fa2',
    brightCyan: '#085b66',
    brightWhite: '#3d444f',
  },
  'contrast-dark': {
    scrollbarSliderBackground: '#ffffff99',
    scrollbarSliderHoverBackground: '#ffffffcc',
    scrollbarSliderActiveBackground: '#ffffff',
    background: '#000000',
    foreground: '#ffffff',
    cursor: '#ffff00',
    cursorAccent: '#000000',
    selectionBackground: '#ffffff',
    selectionForeground: '#000000',
    black: '#a8a8a8',
    red: '#ff8a8a',
    green: '#6dff8a',
    yellow: '#ffe94d',
    blue: '#8cc4ff',
    magenta: '#f2a6ff',
    cyan: '#5ff4ff',
    white: '#ffffff',
    brightBlack: '#c4c4c4',
    brightRed: '#ffb3b3',
    brightGreen: '#a5ffb7',
    brightYellow: '#fff59d',
    brightBlue: '#b8dbff',
    brightMagenta: '#f8ccff',
    brightCyan: '#a8f9ff',
    brightWhite: '#ffffff',
  },
  'contrast-light': {
    scrollbarSliderBackground: '#00000099',
    scrollbarSliderHoverBackground: '#000000cc',
    scrollbarSliderActiveBackground: '#000000',
    background: '#ffffff',
    foreground: '#000000',
    cursor: '#000000',
    cursorAccent: '#ffffff',
    selectionBackground: '#000000',
    selectionForeground: '#ffffff',
    black: '#000000',
    red: '#8c0000',
    green: '#00501c',
    yellow: '#5a3d00',
    blue: '#00358f',
    magenta: '#6a0080',
    cyan: '#004a54',
    white: '#404040',
    brightBlack: '#404040',
    brightRed: '#8c0000',
    brightGreen: '#00501c',
    brightYellow: '#5a3d00',
    brightBlue: '#00358f',
    brightMagenta: '#6a0080',
    brightCyan: '#004a54',
    brightWhite: '#262626',
  },
};

/** Return the relation of two colours' brightness as WCAG counts it, 1 to 21. */
export function contrast(one: string, other: string): number {
  const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a) as [number, number];
  return (high + 0.05) / (low + 0.05);
}

function luminance(colour: string): number {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const value = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
