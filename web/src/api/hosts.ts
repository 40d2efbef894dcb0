import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { api, at } from './client';
import type { components } from './schema';

export type GitHost = components['schemas']['GitHostView'];
export type GitHostWish = { origin: string; username?: string; password: string };

const HOSTS = ['git-hosts'] as const;

/** The git hosts that a credential is stored for, without the credentials. */
export function useGitHosts() {
  return useQuery({
    queryKey: HOSTS,
    queryFn: async ({ signal }) =>
      (await api.get<{ data: { hosts: GitHost[] } }>('/api/git/hosts', { signal })).data.hosts,
  });
}

/** Stores a credential, in the place of one that is there for the same host. */
export function usePutGitHost() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: async (body: GitHostWish) =>
      (await api.put<{ data: { host: GitHost } }>('/api/git/hosts', { body })).data.host,
    onSettled: () => queries.invalidateQueries({ queryKey: HOSTS }),
  });
}

export function useRemoveGitHost() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (id: string) => api.delete<unknown>(at('/api/git/hosts/{host}', id)),
    onSuccess: (_, id) =>
      queries.setQueryData<GitHost[]>(HOSTS, (list) => list?.filter((one) => one.id !== id)),
    onSettled: () => queries.invalidateQueries({ queryKey: HOSTS }),
  });
}
