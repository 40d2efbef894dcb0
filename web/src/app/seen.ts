import { useSyncExternalStore } from 'react';
import type { AgentFields } from '@/api/agents';
import type { SessionLine } from '@/api/types';

const KEY = 'craftastic.seen';
const MOST_KEPT = 500;

/** When each session was last looked at; what ended before `from` is not news in this browser. */
export type Seen = { from: string; at: Readonly<Record<string, string>> };

type Finished = Pick<SessionLine, 'id' | 'status'> & AgentFields;

/** Whether an agent has finished its work and nobody has looked at it since. Pure. */
export function isUnseen({ id, status, agentState, agentStateSince }: Finished, seen: Seen): boolean {
  if (status === 'dead' || (agentState !== 'done' && agentState !== 'exited')) return false;
  const since = Date.parse(agentStateSince ?? '');
  if (Number.isNaN(since)) return false;
  const looked = Date.parse(seen.at[id] ?? '');
  return since > Date.parse(seen.from) && (Number.isNaN(looked) || since > looked);
}

/** Notes that what a session has been since then was looked at; the oldest are forgotten. Pure. */
export function withSeen(seen: Seen, id: string, since: string): Seen {
  const rest = Object.entries(seen.at).filter(([other]) => other !== id);
  const all: [string, string][] = [...rest, [id, since]];
  return { ...seen, at: Object.fromEntries(all.slice(-MOST_KEPT)) };
}

/** Reads what was stored, whatever it is. Pure. */
export function parseSeen(stored: string | null, now: string): Seen {
  const fresh = { from: now, at: {} };
  try {
    const value: unknown = JSON.parse(stored ?? 'null');
    if (typeof value !== 'object' || value === null) return fresh;
    const { from, at }: { from?: unknown; at?: unknown } = value;
    if (typeof from !== 'string' || Number.isNaN(Date.parse(from))) return fresh;
    const pairs: [string, unknown][] = typeof at === 'object' && at !== null ? Object.entries(at) : [];
    return {
      from,
      at: Object.fromEntries(
        pairs.filter((pair): pair is [string, string] => typeof pair[1] === 'string').slice(-MOST_KEPT),
      ),
    };
  } catch {
    return fresh;
  }
}

type Kept = Pick<Storage, 'getItem' | 'setItem'>;

/** What was looked at in this browser; tabs tell each other by its storage. */
export class SeenStore {
  readonly #storage: Kept | undefined;
  readonly #listeners = new Set<() => void>();
  #seen: Seen;

  constructor(storage: Kept | undefined, now: string) {
    this.#storage = storage;
    this.#seen = parseSeen(this.#read(), now);
    // The beginning is kept, so that a reload does not move it.
    if (this.#read() === null) this.#write();
  }

  get = (): Seen => this.#seen;

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  mark(session: Finished): void {
    if (!isUnseen(session, this.#seen)) return;
    this.#seen = withSeen(this.#seen, session.id, session.agentStateSince ?? '');
    this.#write();
    this.#tell();
  }

  /** Takes over what another tab has written. */
  reload(): void {
    this.#seen = parseSeen(this.#read(), this.#seen.from);
    this.#tell();
  }

  #read(): string | null {
    try {
      return this.#storage?.getItem(KEY) ?? null;
    } catch {
      return null;
    }
  }

  #write(): void {
    try {
      this.#storage?.setItem(KEY, JSON.stringify(this.#seen));
    } catch {
      // Storage is closed or full: it is known as long as the page lives.
    }
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}

function openStorage(): Storage | undefined {
  try {
    return window.localStorage;
  } catch {
    return undefined;
  }
}

export const seenSessions = new SeenStore(openStorage(), new Date().toISOString());
window.addEventListener('storage', (event) => {
  if (event.key === KEY || event.key === null) seenSessions.reload();
});

/** Tells of a session whether its agent has finished and nobody has looked since. */
export function useUnseen(): (session: Finished) => boolean {
  const seen = useSyncExternalStore(seenSessions.subscribe, seenSessions.get);
  return (session) => isUnseen(session, seen);
}
