import {
  keepPreviousData,
  queryOptions,
  useInfiniteQuery,
  useMutation,
  useQuery,
  useQueryClient,
  type QueryClient,
} from '@tanstack/react-query';
import { api, at } from './client';
import type { components } from './schema';

type Schemas = components['schemas'];

export type GitStatus = Schemas['craftastic__git__endpoints__StatusView'];
export type StatusFile = Schemas['StatusFileView'];
export type Diff = Schemas['DiffView'];
export type DiffFile = Schemas['DiffFileView'];
export type Commit = Schemas['CommitView'];
export type CommitsPage = Schemas['LogView'];
export type Branch = Schemas['BranchView'];
export type Branches = Schemas['BranchesView'];
export type NewCommit = Partial<Schemas['CommitBody']> & Pick<Schemas['CommitBody'], 'message'>;
export type Committed = Schemas['CommittedView'];
export type NewPush = Partial<Schemas['PushBody']>;
export type Pushed = Schemas['PushedView'];
export type PushedRef = Schemas['PushedRefView'];
export type PullMode = Schemas['PullMode'];
export type Pulled = Schemas['PulledView'];
export type Fetched = Schemas['FetchedView'];

/** What a diff compares; `base` is a branch, a tag or a commit. */
export type DiffOf = { staged?: boolean; base?: string };
/** One file of a diff; names that are not UTF-8 have their bytes in `base64`. */
export type FileName = { name: string; base64?: string | null | undefined };

// Worktrees change without the page hearing of it: what is shown on coming back is read again.
const FRESH_MS = 2_000;
const LOOKING_DEADLINE_MS = 60_000;
/** The repository's hooks run in a commit; a push or a pull waits for the remote. */
const COMMIT_DEADLINE_MS = 4 * 60_000;
const TRANSFER_DEADLINE_MS = 15 * 60_000;
const COMMITS_PAGE = 50;

/** The names of the page's copies of what git says; the first three words are known to events. */
export const gitKeys = {
  status: (sessionId: string) => ['git', 'status', sessionId] as const,
  diffs: (sessionId: string) => ['git', 'diff', sessionId] as const,
  diff: (sessionId: string, { staged = false, base = '' }: DiffOf, file = '') =>
    ['git', 'diff', sessionId, staged, base, file] as const,
  log: (sessionId: string) => ['git', 'log', sessionId] as const,
  branches: (environmentId: string) => ['git', 'branches', environmentId] as const,
};

export function useGitStatus(sessionId: string, enabled = true) {
  return useQuery({
    queryKey: gitKeys.status(sessionId),
    enabled,
    staleTime: FRESH_MS,
    queryFn: async ({ signal }) =>
      (
        await api.get<{ data: GitStatus }>(at('/api/git/status/{session}', sessionId), {
          signal,
          deadlineMs: LOOKING_DEADLINE_MS,
        })
      ).data,
  });
}

async function readDiff(sessionId: string, of: DiffOf, file: FileName | undefined, signal: AbortSignal) {
  const named = file?.base64 ? { filenameBase64: file.base64 } : file ? { file: file.name } : {};
  const answer = await api.get<{ data: Diff }>(at('/api/git/diff/{session}', sessionId), {
    query: { ...(of.staged ? { staged: true } : {}), ...(of.base ? { base: of.base } : {}), ...named },
    signal,
    deadlineMs: LOOKING_DEADLINE_MS,
  });
  return answer.data;
}

/** A whole diff, up to what the server sends at once; `truncated` says that there is more. */
export function useGitDiff(sessionId: string, of: DiffOf, enabled = true) {
  return useQuery({
    queryKey: gitKeys.diff(sessionId, of),
    enabled,
    staleTime: FRESH_MS,
    // The same diff with a change in it replaces itself; there is nothing to share inside a text.
    structuralSharing: false,
    queryFn: ({ signal }) => readDiff(sessionId, of, undefined, signal),
  });
}

/** The diff of one file, for what did not come with the whole. */
export function fileDiffQuery(sessionId: string, of: DiffOf, file: FileName) {
  return queryOptions({
    queryKey: gitKeys.diff(sessionId, of, file.base64 ?? file.name),
    staleTime: FRESH_MS,
    structuralSharing: false,
    queryFn: ({ signal }) => readDiff(sessionId, of, file, signal),
  });
}

/** Commits of the session's branch, newest first, page by page. */
export function useGitLog(sessionId: string, enabled = true) {
  return useInfiniteQuery({
    queryKey: gitKeys.log(sessionId),
    enabled,
    staleTime: FRESH_MS,
    initialPageParam: 0,
    queryFn: async ({ signal, pageParam }) =>
      (
        await api.get<{ data: CommitsPage }>(at('/api/git/log/{session}', sessionId), {
          query: { limit: COMMITS_PAGE, offset: pageParam },
          signal,
          deadlineMs: LOOKING_DEADLINE_MS,
        })
      ).data,
    getNextPageParam: (last) =>
      last.commits.length < last.limit || last.truncated ? undefined : last.offset + last.limit,
  });
}

/** The branches of an environment's repository, local and remote, newest commits first. */
export function useBranches(environmentId: string, enabled = true) {
  return useQuery({
    queryKey: gitKeys.branches(environmentId),
    enabled: enabled && environmentId !== '',
    staleTime: FRESH_MS,
    placeholderData: keepPreviousData,
    queryFn: async ({ signal }) =>
      (
        await api.get<{ data: Branches }>(at('/api/git/branches/{environment}', environmentId), {
          signal,
          deadlineMs: LOOKING_DEADLINE_MS,
        })
      ).data,
  });
}

export function useCommit(sessionId: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: async (wish: NewCommit) =>
      (
        await api.post<{ data: Committed }>(at('/api/git/commit/{session}', sessionId), {
          body: wish,
          deadlineMs: COMMIT_DEADLINE_MS,
        })
      ).data,
    onSettled: () => lookAgain(queries, sessionId),
  });
}

export function usePush(sessionId: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: async (wish: NewPush) =>
      (
        await api.post<{ data: Pushed }>(at('/api/git/push/{session}', sessionId), {
          body: wish,
          deadlineMs: TRANSFER_DEADLINE_MS,
        })
      ).data,
    onSettled: () => {
      void queries.invalidateQueries({ queryKey: ['pushes'] });
      return lookAgain(queries, sessionId);
    },
  });
}

export function usePull(sessionId: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: async (mode: PullMode) =>
      (
        await api.post<{ data: Pulled }>(at('/api/git/pull/{session}', sessionId), {
          body: { mode },
          deadlineMs: TRANSFER_DEADLINE_MS,
        })
      ).data,
    onSettled: () => lookAgain(queries, sessionId),
  });
}

/** Asks the remote for news; no branch of the person's moves. */
export function useFetch(sessionId: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: async () =>
      (
        await api.post<{ data: Fetched }>(at('/api/git/fetch/{session}', sessionId), {
          deadlineMs: TRANSFER_DEADLINE_MS,
        })
      ).data,
    onSettled: () => lookAgain(queries, sessionId),
  });
}

/** Reads anew what git says of a session: status first, since the rest is drawn from it. */
export async function lookAgain(queries: QueryClient, sessionId: string): Promise<void> {
  void queries.invalidateQueries({ queryKey: ['git', 'branches'] });
  await Promise.all([
    queries.invalidateQueries({ queryKey: gitKeys.status(sessionId) }),
    queries.invalidateQueries({ queryKey: gitKeys.diffs(sessionId) }),
    queries.invalidateQueries({ queryKey: gitKeys.log(sessionId) }),
  ]);
}
