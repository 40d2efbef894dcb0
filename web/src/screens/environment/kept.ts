import { useSyncExternalStore } from 'react';
import type { DeletedSession } from '@/api/types';

/** What a deleted session left behind; told on its environment's page until somebody has read it. */
export type KeptNotice = Pick<DeletedSession, 'kept' | 'teardown'> & {
  id: string;
  environmentId: string;
  name: string;
};

let notices: readonly KeptNotice[] = [];
const listeners = new Set<() => void>();

function set(next: readonly KeptNotice[]): void {
  notices = next;
  for (const listener of listeners) listener();
}

export const keptNotices = {
  add: (notice: KeptNotice) => set([notice, ...notices.filter(({ id }) => id !== notice.id)]),
  dismiss: (id: string) => set(notices.filter((one) => one.id !== id)),
};

export function useKeptNotices(environmentId: string): readonly KeptNotice[] {
  const all = useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => notices,
  );
  return all.filter((one) => one.environmentId === environmentId);
}
