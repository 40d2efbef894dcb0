import { useGitHubRepositories, useGitHubStatus, type GitHubRepository } from '@/api/github';
import { useDebounced } from '@/app/debounced';

/** A repository that a connected account offers. */
export type Repository = {
  id: string;
  /** `owner/name`. */
  fullName: string;
  cloneUrl: string;
  defaultBranch: string;
  private: boolean;
  description?: string | undefined;
  updatedAt?: string | undefined;
};

/**
 * `unavailable`: this server has no such account service, and the choice is not shown.
 * `disconnected`: the person may connect one at `connectAt`.
 */
export type Repositories =
  | { state: 'unavailable' }
  | { state: 'disconnected'; connectAt: string }
  | { state: 'loading' }
  | { state: 'failed'; error: unknown; retry: () => void }
  | { state: 'ready'; repositories: readonly Repository[]; more: (() => void) | undefined };

const SEARCH_AFTER_MS = 300;

/** A repository of GitHub's as the page knows one. Pure. */
export function repositoryOf(one: GitHubRepository): Repository {
  return {
    id: String(one.id),
    fullName: one.full_name,
    cloneUrl: one.clone_url,
    defaultBranch: one.default_branch,
    private: one.private,
    description: one.description ?? undefined,
    updatedAt: one.updated_at,
  };
}

/** The repositories of the person's connected account that fit a search; asked for while enabled. */
export function useRepositories(search: string, enabled: boolean): Repositories {
  const settled = useDebounced(search.trim(), SEARCH_AFTER_MS);
  const status = useGitHubStatus();
  const connected = status.data?.connected === true;
  const found = useGitHubRepositories(settled, enabled && connected);
  if (status.data?.configured !== true) {
    return status.isPending && enabled ? { state: 'loading' } : { state: 'unavailable' };
  }
  if (!connected) return { state: 'disconnected', connectAt: '/settings/github' };
  if (found.data === undefined) {
    if (!found.isError) return { state: 'loading' };
    return { state: 'failed', error: found.error, retry: () => void found.refetch() };
  }
  return {
    state: 'ready',
    repositories: found.data.pages.flatMap((page) => page.repositories).map(repositoryOf),
    more: found.hasNextPage && !found.isFetchingNextPage ? () => void found.fetchNextPage() : undefined,
  };
}
