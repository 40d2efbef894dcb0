/** A way in for tests of the whole page: only where the page is being developed or built for tests. */

import type { Connection } from './connection';
import type { Emulator } from './emulator';

export type Exposed = {
  lines(): string[];
  /** The rows that are in view. */
  rows(): string[];
  state(): string;
  size(): string;
  renderer(): string;
  /** Give the emulator output that did not come from the server. */
  raw(output: string): void;
  /** Cut the connection as a broken line would. */
  cut(): void;
};

declare global {
  interface Window {
    __terminals?: Map<string, Exposed>;
  }
}

const ENABLED = import.meta.env.DEV || import.meta.env.VITE_TEST_HOOKS === '1';

export function expose(sessionId: string, emulator: Emulator, connection: Connection): () => void {
  if (!ENABLED) return () => undefined;
  const all = (window.__terminals ??= new Map());
  const exposed: Exposed = {
    lines: () => emulator.text(),
    rows: () => emulator.rows(),
    state: () => connection.state.kind,
    size: () => `${emulator.terminal.cols}x${emulator.terminal.rows}`,
    renderer: () => emulator.renderer,
    raw: (output) => emulator.terminal.write(output),
    cut: () => connection.suspect('cut by a test'),
  };
  all.set(sessionId, exposed);
  return () => {
    if (all.get(sessionId) === exposed) all.delete(sessionId);
  };
}
