/** Terminals for the page's screens: the emulator is a part of its own that is brought when it is needed. */

import { lazy } from 'react';

export type { ConnectionState } from './connection';
export type { PaneSession, TerminalPanesProps } from './panes';
export type { TerminalViewProps } from './view';

const loadPanes = () => import('./panes');

/** To be shown inside a `Suspense`. */
export const LazyTerminalView = lazy(async () => ({ default: (await import('./view')).TerminalView }));
export const LazyTerminalPanes = lazy(async () => ({ default: (await loadPanes()).TerminalPanes }));

/** Fetch the terminals beside the screen that is going to show them, and not only when it does. */
export function fetchTerminals(): void {
  loadPanes().catch(() => undefined);
}
