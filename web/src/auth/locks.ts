/** Runs one thing at a time among all tabs of this browser. */
export type Exclusive = <T>(run: () => Promise<T>) => Promise<T>;

const LEASE_KEY = 'craftastic.refreshing';
const LEASE_MS = 15_000;
const LOOK_MS = 60;

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * A lease in the storage, for pages without Web Locks (they need https or localhost). Written, then
 * read again a moment later: of two tabs that write at once, the later one has it. Never waits
 * longer than a lease lasts.
 */
export function leaseLock(
  storage: Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>,
  me: string,
): Exclusive {
  const holder = () => {
    const [id = '', until = '0'] = (storage.getItem(LEASE_KEY) ?? '').split('|');
    return Number(until) > Date.now() ? id : '';
  };
  const take = async (deadline: number): Promise<void> => {
    while (Date.now() < deadline) {
      const other = holder();
      if (other === '' || other === me) {
        storage.setItem(LEASE_KEY, `${me}|${Date.now() + LEASE_MS}`);
        await wait(LOOK_MS);
        if (holder() === me) return;
      } else {
        await wait(LOOK_MS);
      }
    }
  };
  return async (run) => {
    await take(Date.now() + LEASE_MS);
    try {
      return await run();
    } finally {
      if (holder() === me) storage.removeItem(LEASE_KEY);
    }
  };
}

/** Picks what this browser offers. */
export function exclusiveAcrossTabs(): Exclusive {
  // Missing outside secure contexts, whatever the type says.
  const locks = navigator.locks as LockManager | undefined;
  if (locks) {
    return async (run) => await locks.request('craftastic-refresh', run);
  }
  try {
    return leaseLock(window.localStorage, Math.random().toString(36).slice(2));
  } catch {
    return (run) => run();
  }
}
