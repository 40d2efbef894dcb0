import { queryOptions, useMutation, useQuery, useQueryClient, type QueryClient } from '@tanstack/react-query';
import { useUserId } from '@/auth/session';
import { api, at } from './client';
import { ApiError } from './errors';
import type {
  BranchAvailability,
  DeletedEnvironment,
  DeletedSession,
  Environment,
  ListedEnvironment,
  NameAnswer,
  NameAvailability,
  NewEnvironment,
  NewSession,
  Session,
  SessionChanges,
  SessionLine,
  User,
} from './types';

/** Making a sandbox may fetch an image first. */
export const CREATE_DEADLINE_MS = 15 * 60_000;
const DELETE_DEADLINE_MS = 2 * 60_000;

/** The names of the page's copies of what the server has; events make them old by these. */
export const keys = {
  me: ['me'] as const,
  environments: ['environments'] as const,
  environment: (id: string) => ['environment', id] as const,
  sessions: (environmentId: string) => ['sessions', environmentId] as const,
  session: (id: string) => ['session', id] as const,
  environmentName: (name: string) => ['check', 'environment-name', name] as const,
  sessionName: (environmentId: string, name: string) =>
    ['check', 'session-name', environmentId, name] as const,
  branch: (environmentId: string, branch: string) => ['check', 'branch', environmentId, branch] as const,
};

/** Only what may pass by itself is tried again: no answer, or a server that is busy or starting. */
export function worthRetry(failures: number, error: Error): boolean {
  if (failures >= 2) return false;
  return error instanceof ApiError && (error.status === 0 || error.status === 502 || error.status === 503);
}

const meQuery = queryOptions({
  queryKey: keys.me,
  queryFn: async ({ signal }) =>
    (await api.get<{ data: { user: User; isAdmin?: boolean } }>('/api/auth/me', { signal })).data,
});

export function useMe() {
  return useQuery({ ...meQuery, select: (me) => me.user });
}

/** Whether the signed-in user administers the server. */
export function useAdministration() {
  return useQuery({ ...meQuery, select: (me) => me.isAdmin === true });
}

/** The same as far as is known: no while it is not. */
export function useIsAdmin(): boolean {
  return useAdministration().data ?? false;
}

export function environmentsQuery(userId: string) {
  return queryOptions({
    queryKey: keys.environments,
    queryFn: async ({ signal }) =>
      (
        await api.get<{ environments: ListedEnvironment[] }>(at('/api/environments/user/{user}', userId), {
          signal,
        })
      ).environments,
  });
}

/** All environments with their sessions, newest first. */
export function useEnvironments() {
  return useQuery(environmentsQuery(useUserId()));
}

export function useEnvironment(id: string) {
  const queries = useQueryClient();
  return useQuery<Environment>({
    queryKey: keys.environment(id),
    queryFn: ({ signal }) => api.get<Environment>(at('/api/environments/{id}', id), { signal }),
    // The list has it already: shown at once, read again behind.
    placeholderData: (): Environment | undefined =>
      queries.getQueryData<ListedEnvironment[]>(keys.environments)?.find((one) => one.id === id),
  });
}

export function useSessions(environmentId: string) {
  return useQuery({
    queryKey: keys.sessions(environmentId),
    queryFn: async ({ signal }) =>
      (
        await api.get<{ sessions: Session[] }>(at('/api/sessions/environment/{id}', environmentId), {
          signal,
        })
      ).sessions,
  });
}

export function useSession(id: string) {
  return useQuery({
    queryKey: keys.session(id),
    queryFn: ({ signal }) => api.get<Session>(at('/api/sessions/{id}', id), { signal }),
  });
}

/** Whether a name is free; asks only for a name that could be one. */
export function useEnvironmentName(name: string) {
  const userId = useUserId();
  return useQuery({
    queryKey: keys.environmentName(name),
    enabled: name !== '',
    staleTime: 5_000,
    queryFn: ({ signal }) =>
      api.get<NameAnswer>(at('/api/environments/check-name/{user}/{name}', userId, name), { signal }),
  });
}

export function useSessionName(environmentId: string, name: string) {
  return useQuery({
    queryKey: keys.sessionName(environmentId, name),
    enabled: name !== '',
    staleTime: 5_000,
    queryFn: ({ signal }) =>
      api.get<NameAvailability>(at('/api/sessions/check-name/{env}/{name}', environmentId, name), { signal }),
  });
}

export function useSessionBranch(environmentId: string, branch: string) {
  return useQuery({
    queryKey: keys.branch(environmentId, branch),
    enabled: branch !== '',
    staleTime: 5_000,
    queryFn: ({ signal }) =>
      api.get<BranchAvailability>(at('/api/sessions/check-branch/{env}/{branch}', environmentId, branch), {
        signal,
      }),
  });
}

/** Answers when the sandbox runs; until then the list shows how far it is. */
export function useCreateEnvironment() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (wanted: NewEnvironment) =>
      api.post<Environment>('/api/environments', { body: wanted, deadlineMs: CREATE_DEADLINE_MS }),
    onSuccess: (created) => putEnvironment(queries, created),
    onSettled: () => queries.invalidateQueries({ queryKey: keys.environments }),
  });
}

export function useRetryEnvironment() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (id: string) =>
      api.post<Environment>(at('/api/environments/{id}/retry', id), { deadlineMs: CREATE_DEADLINE_MS }),
    onSuccess: (started) => putEnvironment(queries, started),
    onSettled: () => queries.invalidateQueries({ queryKey: keys.environments }),
  });
}

export function useDeleteEnvironment() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (id: string) =>
      api.delete<DeletedEnvironment>(at('/api/environments/{id}', id), { deadlineMs: DELETE_DEADLINE_MS }),
    onSuccess: (_, id) => {
      queries.setQueryData<ListedEnvironment[]>(keys.environments, (list) =>
        list?.filter((one) => one.id !== id),
      );
      queries.removeQueries({ queryKey: keys.sessions(id), type: 'inactive' });
      queries.removeQueries({ queryKey: keys.environment(id), type: 'inactive' });
    },
    onSettled: () => queries.invalidateQueries({ queryKey: keys.environments }),
  });
}

export function useCreateSession() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (wanted: NewSession) =>
      api.post<Session>('/api/sessions', { body: wanted, deadlineMs: CREATE_DEADLINE_MS }),
    onSuccess: (created) => putSession(queries, created),
    onSettled: (_, __, wanted) => staleSessions(queries, wanted.environmentId),
  });
}

/** Renames at once, and takes it back where the server refuses. */
export function useRenameSession() {
  return useUpdateSession();
}

/** A new name, `dead` to end it, `active` or `inactive` to bring it back. */
export function useUpdateSession() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ id, changes }: { id: string; environmentId: string; changes: SessionChanges }) =>
      api.patch<Session>(at('/api/sessions/{id}', id), { body: changes }),
    onMutate: ({ id, changes }) => {
      const before = queries.getQueryData<ListedEnvironment[]>(keys.environments);
      const { name } = changes;
      if (name !== undefined && name !== null) changeLine(queries, id, (line) => ({ ...line, name }));
      return { before };
    },
    onError: (_, __, context) => {
      if (context?.before) queries.setQueryData(keys.environments, context.before);
    },
    onSuccess: (changed) => putSession(queries, changed),
    onSettled: (_, __, { environmentId }) => staleSessions(queries, environmentId),
  });
}

export function useDeleteSession() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ id }: { id: string; environmentId: string }) =>
      api.delete<DeletedSession>(at('/api/sessions/{id}', id), { deadlineMs: DELETE_DEADLINE_MS }),
    onSuccess: (_, { id, environmentId }) => {
      changeLine(queries, id, () => undefined);
      queries.setQueryData<Session[]>(keys.sessions(environmentId), (list) =>
        list?.filter((one) => one.id !== id),
      );
      queries.removeQueries({ queryKey: keys.session(id), type: 'inactive' });
    },
    onSettled: (_, __, { environmentId }) => staleSessions(queries, environmentId),
  });
}

export function putEnvironment(queries: QueryClient, environment: Environment): void {
  queries.setQueryData(keys.environment(environment.id), environment);
  queries.setQueryData<ListedEnvironment[]>(keys.environments, (list) => {
    if (!list) return list;
    const known = list.some((one) => one.id === environment.id);
    return known
      ? list.map((one) => (one.id === environment.id ? { ...one, ...environment } : one))
      : [{ ...environment, sessions: [] }, ...list];
  });
}

export function putSession(queries: QueryClient, session: Session): void {
  queries.setQueryData(keys.session(session.id), session);
  queries.setQueryData<Session[]>(keys.sessions(session.environmentId), (list) => {
    if (!list) return list;
    const known = list.some((one) => one.id === session.id);
    return known ? list.map((one) => (one.id === session.id ? session : one)) : [session, ...list];
  });
}

function changeLine(
  queries: QueryClient,
  id: string,
  change: (line: SessionLine) => SessionLine | undefined,
): void {
  queries.setQueryData<ListedEnvironment[]>(keys.environments, (list) =>
    list?.map((environment) => ({
      ...environment,
      sessions: environment.sessions.flatMap((line) => (line.id === id ? (change(line) ?? []) : [line])),
    })),
  );
}

export async function staleSessions(queries: QueryClient, environmentId: string): Promise<void> {
  await Promise.all([
    queries.invalidateQueries({ queryKey: keys.environments }),
    queries.invalidateQueries({ queryKey: keys.sessions(environmentId) }),
  ]);
}
