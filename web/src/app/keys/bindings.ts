import { useSyncExternalStore } from 'react';

const KEY = 'craftastic.keys';

/** What a person chose, by command id; an empty text takes the command's keys away. */
export type Overrides = Readonly<Record<string, string>>;

/** Reads what was stored, whatever it is. Pure. */
export function parseOverrides(stored: string | null): Overrides {
  try {
    const value: unknown = JSON.parse(stored ?? '{}');
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return {};
    return Object.fromEntries(
      Object.entries(value).filter((pair): pair is [string, string] => typeof pair[1] === 'string'),
    );
  } catch {
    return {};
  }
}

/** The keys that people gave to commands, kept in this browser. */
export class Bindings {
  readonly #storage: Pick<Storage, 'getItem' | 'setItem'> | undefined;
  readonly #listeners = new Set<() => void>();
  #overrides: Overrides;

  constructor(storage: Pick<Storage, 'getItem' | 'setItem'> | undefined) {
    this.#storage = storage;
    this.#overrides = this.#load();
  }

  get = (): Overrides => this.#overrides;

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Gives a command keys; null gives it back its own. */
  set(id: string, keys: string | null): void {
    const rest = Object.fromEntries(Object.entries(this.#overrides).filter(([key]) => key !== id));
    this.#save(keys === null ? rest : { ...rest, [id]: keys });
  }

  reset(): void {
    this.#save({});
  }

  reload(): void {
    this.#overrides = this.#load();
    this.#tell();
  }

  #load(): Overrides {
    try {
      return parseOverrides(this.#storage?.getItem(KEY) ?? null);
    } catch {
      return {};
    }
  }

  #save(overrides: Overrides): void {
    this.#overrides = overrides;
    try {
      this.#storage?.setItem(KEY, JSON.stringify(overrides));
    } catch {
      // Storage is closed or full: the choice lives as long as the page.
    }
    this.#tell();
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

export const bindings = new Bindings(openStorage());
window.addEventListener('storage', (event) => {
  if (event.key === KEY) bindings.reload();
});

export function useOverrides(): Overrides {
  return useSyncExternalStore(bindings.subscribe, bindings.get);
}
