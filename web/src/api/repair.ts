import { useMutation } from '@tanstack/react-query';
import { api, at } from './client';

/** What a repair did; `kept` are folders in the sandbox with what was set aside. */
export type Repaired = { done: readonly string[]; kept?: readonly string[]; pending?: boolean };
export type RepairOf = 'session' | 'environment';

/** Every object of a repository is read, and a damaged one cloned anew. */
const REPAIR_DEADLINE_MS = 20 * 60_000;

export function useRepair(what: RepairOf, id: string) {
  const path =
    what === 'session' ? at('/api/sessions/{id}/repair', id) : at('/api/environments/{id}/repair', id);
  return useMutation({ mutationFn: () => api.post<Repaired>(path, { deadlineMs: REPAIR_DEADLINE_MS }) });
}
