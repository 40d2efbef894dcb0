import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { api } from './client';
import type { components } from './schema';

type Schemas = components['schemas'];

/** What the server knows of the Coolify that this user's deployments go to. */
export type CoolifyConnection = Schemas['ConnectionView'];
export type CoolifyApplication = Schemas['ApplicationView'];

export const coolifyKeys = {
  all: ['coolify'] as const,
  connection: ['coolify', 'connection'] as const,
  applications: (environmentId: string) => ['coolify', 'applications', environmentId] as const,
};

// Coolify is another server: what it said a moment ago is not asked for again.
const FRESH_MS = 30_000;
/** The server asks Coolify several things, each with a deadline of its own. */
export const COOLIFY_DEADLINE_MS = 60_000;

export function useCoolifyConnection() {
  return useQuery({
    queryKey: coolifyKeys.connection,
    queryFn: ({ signal }) => api.get<CoolifyConnection>('/api/coolify/connection', { signal }),
  });
}

/** Coolify's applications, those of the environment's repository first. */
export function useCoolifyApplications(environmentId: string, enabled = true) {
  return useQuery({
    queryKey: coolifyKeys.applications(environmentId),
    enabled,
    staleTime: FRESH_MS,
    queryFn: async ({ signal }) =>
      (
        await api.get<{ applications: CoolifyApplication[] }>('/api/coolify/applications', {
          query: { environmentId: environmentId === '' ? undefined : environmentId },
          signal,
          deadlineMs: COOLIFY_DEADLINE_MS,
        })
      ).applications,
  });
}

/** What answers with the new state of the connection. */
function useConnectionChange<Wish>(change: (wish: Wish) => Promise<CoolifyConnection>) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: change,
    // What was typed is a secret: it is not kept when the form is gone.
    gcTime: 0,
    onSuccess: (connection) => queries.setQueryData(coolifyKeys.connection, connection),
    onSettled: () => queries.invalidateQueries({ queryKey: coolifyKeys.all }),
  });
}

/** Tries an address and a token, and stores them where Coolify takes them. */
export function useConnectCoolify() {
  return useConnectionChange((body: { url: string; token: string }) =>
    api.put<CoolifyConnection>('/api/coolify/connection', { body, deadlineMs: COOLIFY_DEADLINE_MS }),
  );
}

export function useCheckCoolify() {
  return useConnectionChange<undefined>(() =>
    api.post<CoolifyConnection>('/api/coolify/connection/check', { deadlineMs: COOLIFY_DEADLINE_MS }),
  );
}

export function useDisconnectCoolify() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: () => api.delete<unknown>('/api/coolify/connection'),
    onSettled: () => queries.invalidateQueries({ queryKey: coolifyKeys.all }),
  });
}

/** A webhook of the user's own connection, or of the server's. */
export type HookOf = 'hook' | 'server-hook';

/** Makes an address that Coolify can tell news to; it is shown this once, and one before it ends. */
export function useMakeHook(of: HookOf) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: () => api.post<{ url: string }>(`/api/coolify/${of}`),
    gcTime: 0,
    onSettled: () => queries.invalidateQueries({ queryKey: coolifyKeys.connection }),
  });
}

export function useRemoveHook(of: HookOf) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: () => api.delete<unknown>(`/api/coolify/${of}`),
    onSettled: () => queries.invalidateQueries({ queryKey: coolifyKeys.connection }),
  });
}
