import {
  keepPreviousData,
  useInfiniteQuery,
  useMutation,
  useQuery,
  useQueryClient,
} from '@tanstack/react-query';
import { api } from './client';
import type { components } from './schema';

type Schemas = components['schemas'];

export type GitHubStatus = Schemas['craftastic__github__endpoints__StatusView'];
export type GitHubRepository = Schemas['craftastic__github__endpoints__RepositoryView'];
export type RepositoriesPage = Schemas['RepositoriesData'];
export type DeviceFlow = Schemas['FlowView'];
/** `pending`: the code was not typed yet; ask again after `interval` seconds. */
export type FlowAnswer =
  { success: true; message: string } | { success: false; pending: true; message: string; interval: number };

export const githubKeys = {
  all: ['github'] as const,
  status: ['github', 'status'] as const,
  repositories: (search: string) => ['github', 'repositories', search] as const,
};

const PER_PAGE = 30;
const DISCONNECT_DEADLINE_MS = 60_000;

export function useGitHubStatus() {
  return useQuery({
    queryKey: githubKeys.status,
    queryFn: async ({ signal }) =>
      (await api.get<{ data: GitHubStatus }>('/api/auth/github/status', { signal })).data,
  });
}

/** The repositories that the connected account reaches, page by page; `search` looks for words. */
export function useGitHubRepositories(search: string, enabled: boolean) {
  return useInfiniteQuery({
    queryKey: githubKeys.repositories(search),
    enabled,
    placeholderData: keepPreviousData,
    initialPageParam: 1,
    queryFn: async ({ signal, pageParam }) =>
      (
        await api.get<{ data: RepositoriesPage }>('/api/auth/github/repos', {
          query: { page: pageParam, per_page: PER_PAGE, q: search === '' ? undefined : search },
          signal,
        })
      ).data,
    getNextPageParam: (last) => (last.has_more ? last.next_page : undefined),
  });
}

export async function beginDeviceFlow(signal: AbortSignal): Promise<DeviceFlow> {
  return (await api.post<{ data: DeviceFlow }>('/api/auth/github/initiate', { signal })).data;
}

export async function askDeviceFlow(deviceCode: string, signal: AbortSignal): Promise<FlowAnswer> {
  return await api.post<FlowAnswer>('/api/auth/github/poll', { body: { deviceCode }, signal });
}

export function useDisconnectGitHub() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: () =>
      api.delete<unknown>('/api/auth/github/disconnect', { deadlineMs: DISCONNECT_DEADLINE_MS }),
    onSuccess: () => queries.removeQueries({ queryKey: ['github', 'repositories'] }),
    onSettled: () => queries.invalidateQueries({ queryKey: githubKeys.all }),
  });
}
