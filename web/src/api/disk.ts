import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { api, at } from './client';
import type { components } from './schema';

type Schemas = components['schemas'];

export type DiskUse = Schemas['DiskView'];
export type DiskTier = Schemas['TierView'];
export type DiskItem = Schemas['ItemView'];
export type SessionDisk = Schemas['SessionDiskView'];
export type Kept = Schemas['craftastic__disk__endpoints__KeptView'];
export type Reclaimed = Schemas['ReclaimAnswer'];
export type ServerDisk = Schemas['DiskOverview'];
export type EnvironmentDisk = Schemas['ListedDisk'];
/** What is freed along with those before it: caches, what can be built again, saved working trees. */
export type TierNumber = 1 | 2 | 3;

/** All files of a sandbox are walked; then some are removed, and they are walked again. */
const MEASURE_DEADLINE_MS = 5 * 60_000;
const RECLAIM_DEADLINE_MS = 30 * 60_000;

const diskKey = (environmentId: string) => ['disk', environmentId] as const;
const allDisksKey = ['disk', 'all'] as const;

/** How much an environment takes up, as it was last measured. */
export function useDisk(environmentId: string) {
  return useQuery({
    queryKey: diskKey(environmentId),
    queryFn: ({ signal }) => api.get<DiskUse>(at('/api/environments/{id}/disk', environmentId), { signal }),
  });
}

export function useMeasureDisk(environmentId: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: () =>
      api.post<DiskUse>(at('/api/environments/{id}/disk/measure', environmentId), {
        deadlineMs: MEASURE_DEADLINE_MS,
      }),
    onSuccess: (use) => queries.setQueryData(diskKey(environmentId), use),
    onError: () => queries.invalidateQueries({ queryKey: diskKey(environmentId) }),
    onSettled: () => queries.invalidateQueries({ queryKey: allDisksKey }),
  });
}

/** Removes what a tier and those before it name. */
export function useReclaimDisk(environmentId: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (tier: TierNumber) =>
      api.post<Reclaimed>(at('/api/environments/{id}/disk/reclaim', environmentId), {
        body: { tier },
        deadlineMs: RECLAIM_DEADLINE_MS,
      }),
    onSuccess: ({ use }) => queries.setQueryData(diskKey(environmentId), use),
    onError: () => queries.invalidateQueries({ queryKey: diskKey(environmentId) }),
    onSettled: () => queries.invalidateQueries({ queryKey: allDisksKey }),
  });
}

/** Everybody's environments, for administrators. */
export function useAllDisks() {
  return useQuery({
    queryKey: allDisksKey,
    queryFn: ({ signal }) => api.get<ServerDisk>('/api/disk', { signal }),
  });
}
