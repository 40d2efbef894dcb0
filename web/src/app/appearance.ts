import { useSyncExternalStore } from 'react';

export type Theme = 'system' | 'light' | 'dark';
export type Contrast = 'system' | 'more';
export type Motion = 'system' | 'less';
export type Appearance = { theme: Theme; contrast: Contrast; motion: Motion };

const KEY = 'craftastic.appearance';
const DEFAULT: Appearance = { theme: 'system', contrast: 'system', motion: 'system' };

/** Reads what was stored, whatever it is. Pure. */
export function parseAppearance(stored: string | null): Appearance {
  try {
    const value = JSON.parse(stored ?? '{}') as Partial<Appearance> | null;
    return {
      theme: value?.theme === 'light' || value?.theme === 'dark' ? value.theme : 'system',
      contrast: value?.contrast === 'more' ? 'more' : 'system',
      motion: value?.motion === 'less' ? 'less' : 'system',
    };
  } catch {
    return DEFAULT;
  }
}

function load(): Appearance {
  try {
    return parseAppearance(localStorage.getItem(KEY));
  } catch {
    return DEFAULT;
  }
}

const systemDark = window.matchMedia('(prefers-color-scheme: dark)');
const systemContrast = window.matchMedia('(prefers-contrast: more)');
const listeners = new Set<() => void>();
let current = load();

function tell(): void {
  const root = document.documentElement;
  if (current.theme === 'system') delete root.dataset.theme;
  else root.dataset.theme = current.theme;
  if (current.contrast === 'more' || systemContrast.matches) root.dataset.contrast = 'more';
  else delete root.dataset.contrast;
  if (current.motion === 'less') root.dataset.motion = 'less';
  else delete root.dataset.motion;
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

systemDark.addEventListener('change', tell);
systemContrast.addEventListener('change', tell);
window.addEventListener('storage', (event) => {
  if (event.key !== KEY) return;
  current = load();
  tell();
});
tell();

export function setAppearance(change: Partial<Appearance>): void {
  current = { ...current, ...change };
  try {
    localStorage.setItem(KEY, JSON.stringify(current));
  } catch {
    // Storage is closed: the choice lives as long as the page.
  }
  tell();
}

/** The theme that is shown now, the system's where none was chosen. */
export function shownTheme(): 'light' | 'dark' {
  if (current.theme !== 'system') return current.theme;
  return systemDark.matches ? 'dark' : 'light';
}

export function useAppearance(): Appearance {
  return useSyncExternalStore(subscribe, () => current);
}

export function useShownTheme(): 'light' | 'dark' {
  return useSyncExternalStore(subscribe, shownTheme);
}

/** Whether high contrast is shown, by choice or by the system. */
export function useHighContrast(): boolean {
  return useSyncExternalStore(subscribe, () => current.contrast === 'more' || systemContrast.matches);
}
