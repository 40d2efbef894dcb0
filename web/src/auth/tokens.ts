import type { User } from '@/api/types';

/** A sign-in as this browser keeps it. */
export type SignIn = { accessToken: string; refreshToken: string; user: User };

export const STORAGE_KEY = 'craftastic.auth';

function parse(stored: string | null): SignIn | null {
  if (stored === null) return null;
  try {
    const value = JSON.parse(stored) as Partial<SignIn> | null;
    const whole =
      typeof value?.accessToken === 'string' &&
      typeof value.refreshToken === 'string' &&
      typeof value.user?.id === 'string';
    return whole ? (value as SignIn) : null;
  } catch {
    return null;
  }
}

/**
 * Keeps the sign-in in the browser's storage, and tells all who listen when it changes, here or in
 * another tab. Where storage is closed it lives as long as the page.
 */
export class TokenStore {
  readonly #storage: Storage | undefined;
  readonly #listeners = new Set<() => void>();
  #stored: string | null = null;
  #signIn: SignIn | null = null;

  constructor(storage: Storage | undefined, target?: Pick<Window, 'addEventListener'>) {
    this.#storage = storage;
    target?.addEventListener('storage', (event) => {
      if (event.key === STORAGE_KEY || event.key === null) {
        this.read();
        this.#tell();
      }
    });
  }

  /** The sign-in as it is now, also when another tab has just changed it. Stable while nothing changes. */
  read = (): SignIn | null => {
    let stored: string | null;
    try {
      stored = this.#storage ? this.#storage.getItem(STORAGE_KEY) : this.#stored;
    } catch {
      stored = this.#stored;
    }
    if (stored !== this.#stored) {
      this.#stored = stored;
      this.#signIn = parse(stored);
    }
    return this.#signIn;
  };

  write(signIn: SignIn | null): void {
    this.#signIn = signIn;
    this.#stored = signIn === null ? null : JSON.stringify(signIn);
    try {
      if (this.#stored === null) this.#storage?.removeItem(STORAGE_KEY);
      else this.#storage?.setItem(STORAGE_KEY, this.#stored);
    } catch {
      // Storage is closed or full: the sign-in lives as long as the page.
    }
    this.#tell();
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

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

export const tokens = new TokenStore(openStorage(), window);

/** Seconds until an access token ends by its own claim; 0 where it cannot be read. */
export function secondsLeft(accessToken: string, nowMs: number): number {
  try {
    const claims = accessToken.split('.')[1] ?? '';
    const decoded = JSON.parse(atob(claims.replaceAll('-', '+').replaceAll('_', '/'))) as { exp?: unknown };
    return typeof decoded.exp === 'number' ? decoded.exp - nowMs / 1000 : 0;
  } catch {
    return 0;
  }
}
