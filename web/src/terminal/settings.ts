/** How terminals look in this browser. Kept in its storage, the same in every tab. */

export type TerminalSettings = {
  /** Pixels. */
  fontSize: number;
  /** Keep what is shown readable by a screen reader, at the price of speed. */
  screenReader: boolean;
  /** What is selected goes to the clipboard at once. */
  copyOnSelect: boolean;
  /** On a Mac, Option is Meta. */
  optionIsMeta: boolean;
};

export const DEFAULT_SETTINGS: TerminalSettings = {
  fontSize: 13,
  screenReader: false,
  copyOnSelect: false,
  optionIsMeta: false,
};
const KEY = 'craftastic.terminal';
const SMALLEST_FONT = 8;
const LARGEST_FONT = 32;

/** Read what was stored, whatever it is. */
export function parseSettings(stored: string | null): TerminalSettings {
  let value: Partial<Record<keyof TerminalSettings, unknown>> = {};
  try {
    const read: unknown = JSON.parse(stored ?? '{}');
    if (typeof read === 'object' && read !== null) value = read;
  } catch {
    return DEFAULT_SETTINGS;
  }
  const flag = (name: 'screenReader' | 'copyOnSelect' | 'optionIsMeta') =>
    typeof value[name] === 'boolean' ? value[name] : DEFAULT_SETTINGS[name];
  return {
    fontSize: typeof value.fontSize === 'number' ? fontSize(value.fontSize) : DEFAULT_SETTINGS.fontSize,
    screenReader: flag('screenReader'),
    copyOnSelect: flag('copyOnSelect'),
    optionIsMeta: flag('optionIsMeta'),
  };
}

function fontSize(size: number): number {
  if (!Number.isFinite(size)) return DEFAULT_SETTINGS.fontSize;
  return Math.min(Math.max(Math.round(size), SMALLEST_FONT), LARGEST_FONT);
}

function load(): TerminalSettings {
  try {
    return parseSettings(localStorage.getItem(KEY));
  } catch {
    return DEFAULT_SETTINGS;
  }
}

const listeners = new Set<() => void>();
let current = load();

window.addEventListener('storage', (event) => {
  if (event.key !== KEY) return;
  current = load();
  for (const listener of listeners) listener();
});

export function terminalSettings(): TerminalSettings {
  return current;
}

export function onTerminalSettings(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function changeTerminalSettings(change: Partial<TerminalSettings>): void {
  current = { ...current, ...change };
  current.fontSize = fontSize(current.fontSize);
  try {
    localStorage.setItem(KEY, JSON.stringify(current));
  } catch {
    // Storage is closed: the choice lives as long as the page.
  }
  for (const listener of listeners) listener();
}

/** Make the text larger or smaller by one step; 0 gives it its own size back. */
export function stepFont(step: -1 | 0 | 1): void {
  changeTerminalSettings({ fontSize: step === 0 ? DEFAULT_SETTINGS.fontSize : current.fontSize + step });
}
