import { useSyncExternalStore } from 'react';
import { contentHash, type ReviewFile } from './diff/files';

const KEY = 'craftastic.viewed';
const MOST = 2_000;

type Entry = readonly [sessionId: string, fileId: string, hash: string];

/** Reads what was stored, whatever it is. Pure. */
export function parseViewed(stored: string | null): Entry[] {
  try {
    const value: unknown = JSON.parse(stored ?? '[]');
    if (!Array.isArray(value)) return [];
    return value.filter(
      (one): one is Entry =>
        Array.isArray(one) && one.length === 3 && one.every((part) => typeof part === 'string'),
    );
  } catch {
    return [];
  }
}

/**
 * Which files a person has looked at, kept in this browser by what was in them: a file that has
 * changed since is one that nobody has looked at.
 */
export class Viewed {
  readonly #storage: Pick<Storage, 'getItem' | 'setItem'> | undefined;
  readonly #listeners = new Set<() => void>();
  readonly #hashes = new WeakMap<ReviewFile, string>();
  #entries: ReadonlyMap<string, string>;

  constructor(storage: Pick<Storage, 'getItem' | 'setItem'> | undefined) {
    this.#storage = storage;
    this.#entries = this.#load();
  }

  get = (): ReadonlyMap<string, string> => this.#entries;

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  has(sessionId: string, file: ReviewFile): boolean {
    const hash = this.#entries.get(key(sessionId, file.id));
    // The hash is worked out only of files that were looked at once.
    return hash !== undefined && hash === this.#hash(file);
  }

  set(sessionId: string, files: readonly ReviewFile[], viewed: boolean): void {
    const entries = new Map(this.#entries);
    for (const file of files) {
      entries.delete(key(sessionId, file.id));
      if (viewed) entries.set(key(sessionId, file.id), this.#hash(file));
    }
    this.#entries = new Map([...entries].slice(-MOST));
    try {
      const list = [...this.#entries].map(([name, hash]) => {
        const end = name.indexOf('\n');
        return [name.slice(0, end), name.slice(end + 1), hash];
      });
      this.#storage?.setItem(KEY, JSON.stringify(list));
    } catch {
      // Storage is closed or full: it lives as long as the page.
    }
    this.#tell();
  }

  reload(): void {
    this.#entries = this.#load();
    this.#tell();
  }

  #hash(file: ReviewFile): string {
    let hash = this.#hashes.get(file);
    if (hash === undefined) {
      hash = contentHash(file);
      this.#hashes.set(file, hash);
    }
    return hash;
  }

  #load(): ReadonlyMap<string, string> {
    try {
      const entries = parseViewed(this.#storage?.getItem(KEY) ?? null);
      return new Map(entries.map(([sessionId, fileId, hash]) => [key(sessionId, fileId), hash]));
    } catch {
      return new Map();
    }
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}

// A session's id has no line end; a file's name may, and stands last.
function key(sessionId: string, fileId: string): string {
  return `${sessionId}\n${fileId}`;
}

function openStorage(): Storage | undefined {
  try {
    return window.localStorage;
  } catch {
    return undefined;
  }
}

export const viewed = new Viewed(openStorage());
window.addEventListener('storage', (event) => {
  if (event.key === KEY) viewed.reload();
});

/** Renders again when a mark is set or taken away. */
export function useViewed(): Viewed {
  useSyncExternalStore(viewed.subscribe, viewed.get);
  return viewed;
}
