import {
  keepPreviousData,
  useMutation,
  useQuery,
  useQueryClient,
  type QueryClient,
} from '@tanstack/react-query';
import { api, at } from './client';
import { COOLIFY_DEADLINE_MS } from './coolify';
import type { components } from './schema';

type Schemas = components['schemas'];

export type Deployment = Schemas['DeploymentView'];
/** Why what is built would not be the work at hand; `details` say what helps. */
export type DeploymentProblem = Schemas['WorkProblemView'];
/** What a deployment would be, looked at before it is asked for. */
export type DeploymentCheck = Schemas['CheckAnswer'];
export type DeploymentWish = Partial<Omit<Schemas['NewDeployment'], 'sessionId' | 'environmentId'>>;
export type LogLine = Schemas['LogLineView'];
export type LogPart = Schemas['RunLogAnswer'];
export type ApplicationLog = Schemas['ApplicationLogAnswer'];
export type RollbackCommit = Schemas['RollbackCommitView'];
export type RememberedApplication = Schemas['RememberedAnswer'];

/** A session or an environment. */
export type Target = { kind: 'session' | 'environment'; id: string; environmentId: string };

/** What a deployment's event makes old begins with `deployments`; what is asked of Coolify does not. */
export const deploymentKeys = {
  all: ['deployments'] as const,
  list: (targetId: string) => ['deployments', 'list', targetId] as const,
  row: (id: string) => ['deployments', 'row', id] as const,
  application: (environmentId: string) => ['deployments', 'application', environmentId] as const,
  checks: ['deployment-check'] as const,
  check: (targetId: string, appId: string, worktree: string) =>
    ['deployment-check', targetId, appId, worktree] as const,
  commits: (targetId: string, appId: string) => ['deployment-commits', targetId, appId] as const,
  applicationLog: (id: string, lines: number) => ['deployment-application-log', id, lines] as const,
};

const CHECK_FRESH_MS = 5_000;
/** The first step is taken before the answer: the server asks Coolify several things. */
const DEPLOY_DEADLINE_MS = 2 * 60_000;

/** A session's deployments, or all of an environment, newest first. */
export function useDeployments(targetId: string, enabled = true) {
  return useQuery({
    queryKey: deploymentKeys.list(targetId),
    enabled,
    queryFn: async ({ signal }) =>
      (await api.get<{ deployments: Deployment[] }>(at('/api/deployment/list/{id}', targetId), { signal }))
        .deployments,
  });
}

export function useDeployment(id: string) {
  return useQuery({
    queryKey: deploymentKeys.row(id),
    queryFn: ({ signal }) => api.get<Deployment>(at('/api/deployment/status/{id}', id), { signal }),
  });
}

/** The application that an environment's work goes to. */
export function useRememberedApplication(environmentId: string) {
  return useQuery({
    queryKey: deploymentKeys.application(environmentId),
    queryFn: ({ signal }) =>
      api.get<RememberedApplication>(at('/api/deployment/application/{id}', environmentId), { signal }),
  });
}

export function useRememberApplication(environmentId: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (appId: string | null) => {
      const path = at('/api/deployment/application/{id}', environmentId);
      return appId === null
        ? api.delete<unknown>(path)
        : api.put<unknown>(path, { body: { appId }, deadlineMs: COOLIFY_DEADLINE_MS });
    },
    onSettled: () => queries.invalidateQueries({ queryKey: deploymentKeys.application(environmentId) }),
  });
}

/**
 * What would be deployed, and what stands in the way. `worktree` names the state of the worktree that
 * is known: with another one it is looked at anew.
 */
export function useDeploymentCheck(target: Target, appId: string, worktree: string) {
  return useQuery({
    queryKey: deploymentKeys.check(target.id, appId, worktree),
    staleTime: CHECK_FRESH_MS,
    placeholderData: keepPreviousData,
    queryFn: ({ signal }) =>
      api.get<DeploymentCheck>(at('/api/deployment/check/{id}', target.id), {
        query: { appId },
        signal,
        deadlineMs: COOLIFY_DEADLINE_MS,
      }),
  });
}

const named = ({ kind, id }: Target) => (kind === 'session' ? { sessionId: id } : { environmentId: id });

type Started = Schemas['StartedDeployment'];

async function askFor(path: string, body: Record<string, unknown>): Promise<Deployment> {
  return (await api.post<Started>(path, { body, deadlineMs: DEPLOY_DEADLINE_MS })).deployment;
}

export function useDeploy(target: Target) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (wish: DeploymentWish) => askFor('/api/deployment/deploy', { ...named(target), ...wish }),
    onSuccess: (row) => putDeployment(queries, row),
    onSettled: () => stale(queries),
  });
}

export function useRollback(target: Target) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (wish: { appId: string; commit: string }) =>
      askFor('/api/deployment/rollback', { ...named(target), ...wish }),
    onSuccess: (row) => putDeployment(queries, row),
    onSettled: () => stale(queries),
  });
}

export function useCancelDeployment() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (id: string) =>
      api.post<Deployment>(at('/api/deployment/cancel/{id}', id), { deadlineMs: DEPLOY_DEADLINE_MS }),
    onSuccess: (row) => putDeployment(queries, row),
    onSettled: () => queries.invalidateQueries({ queryKey: deploymentKeys.all }),
  });
}

/** The commits that Coolify keeps an image of. */
export function useRollbackCommits(target: Target, appId: string) {
  return useQuery({
    queryKey: deploymentKeys.commits(target.id, appId),
    queryFn: async ({ signal }) =>
      (
        await api.get<{ commits: RollbackCommit[] }>(at('/api/deployment/commits/{id}', target.id), {
          query: { appId },
          signal,
          deadlineMs: COOLIFY_DEADLINE_MS,
        })
      ).commits,
  });
}

export function useApplicationLog(id: string, lines: number) {
  return useQuery({
    queryKey: deploymentKeys.applicationLog(id, lines),
    queryFn: ({ signal }) =>
      api.get<ApplicationLog>(at('/api/deployment/application-logs/{id}', id), {
        query: { lines },
        signal,
        deadlineMs: COOLIFY_DEADLINE_MS,
      }),
  });
}

/** Asks once for what a build has printed after a line. */
export function readDeploymentLog(id: string, after: number, signal: AbortSignal): Promise<LogPart> {
  return api.get<LogPart>(at('/api/deployment/logs/{id}', id), {
    query: { after },
    signal,
    deadlineMs: COOLIFY_DEADLINE_MS,
  });
}

function putDeployment(queries: QueryClient, row: Deployment): void {
  queries.setQueryData(deploymentKeys.row(row.id), row);
  for (const target of [row.session_id, row.environment_id]) {
    if (target === null) continue;
    queries.setQueryData<Deployment[]>(deploymentKeys.list(target), (list) => {
      if (!list) return list;
      const known = list.some((one) => one.id === row.id);
      return known ? list.map((one) => (one.id === row.id ? row : one)) : [row, ...list];
    });
  }
}

async function stale(queries: QueryClient): Promise<void> {
  await Promise.all([
    queries.invalidateQueries({ queryKey: deploymentKeys.all }),
    queries.invalidateQueries({ queryKey: deploymentKeys.checks }),
  ]);
}
