import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { api, at } from './client';
import { keys, putEnvironment } from './queries';
import type { components } from './schema';
import type { Environment } from './types';

type Schemas = components['schemas'];

export type PushPolicy = Schemas['PushPolicy'];
export type EnvironmentChange = Schemas['EnvironmentChange'];
export type RecordedPush = Schemas['PushedRef'];

const PUSHES_SHOWN = 200;
/** The server answers after a minute at the latest. */
const STOP_DEADLINE_MS = 90_000;

export const pushesKey = (environmentId: string) => ['pushes', environmentId] as const;

/** A new name, or another rule for what may be pushed. */
export function useUpdateEnvironment(id: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (changes: EnvironmentChange) =>
      api.patch<Environment>(at('/api/environments/{id}', id), { body: changes }),
    onSuccess: (changed) => putEnvironment(queries, changed),
    onSettled: () => queries.invalidateQueries({ queryKey: keys.environments }),
  });
}

/** Ends all that runs in it; with `force` agents that are at work too. */
export function useStopEnvironment() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ id, force }: { id: string; force: boolean }) =>
      api.post<Environment>(at('/api/environments/{id}/stop', id), {
        body: { force },
        deadlineMs: STOP_DEADLINE_MS,
      }),
    onSuccess: (stopped) => putEnvironment(queries, stopped),
    onSettled: () => queries.invalidateQueries({ queryKey: keys.environments }),
  });
}

/** What was pushed, as the gateway saw it, newest first. */
export function usePushes(environmentId: string) {
  return useQuery({
    queryKey: pushesKey(environmentId),
    queryFn: async ({ signal }) =>
      (
        await api.get<{ data: { pushes: RecordedPush[] } }>(at('/api/git/pushes/{id}', environmentId), {
          query: { limit: PUSHES_SHOWN },
          signal,
        })
      ).data.pushes,
  });
}
