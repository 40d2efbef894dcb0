import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { api, at } from './client';
import { useLookAt } from './events';
import { CREATE_DEADLINE_MS, putSession, staleSessions } from './queries';
import type { components } from './schema';
import type { Session } from './types';

type Schemas = components['schemas'];

export type JobState = Schemas['JobStatus'];
export type Setup = Schemas['SetupView'];
export type CommandLine = Schemas['CommandLine'];
export type Command = Schemas['CommandView'];
export type Commands = Schemas['CommandList'];

/** How much of a log is asked for to be read, in bytes. */
const LOG_BYTES = 128 << 10;
const STATE_FRESH_MS = 60_000;

export const sessionKeys = {
  setup: (id: string) => ['setup', id] as const,
  setupState: (id: string) => ['setup', id, 'state'] as const,
  setupLog: (id: string) => ['setup', id, 'log'] as const,
  commands: (id: string) => ['commands', id] as const,
  command: (id: string, name: string) => ['commands', id, name] as const,
};

/**
 * Jobs run inside the sandbox: events tell of their output and their end as long as the session is
 * looked at, which it is where one of them runs and is shown.
 */
function useLookWhileRunning(sessionId: string, state: JobState | undefined): void {
  useLookAt(sessionId, state === 'running');
}

/** How a session's worktree was prepared, without the output. */
export function useSetupState(sessionId: string, enabled = true) {
  const setup = useQuery({
    queryKey: sessionKeys.setupState(sessionId),
    enabled,
    staleTime: STATE_FRESH_MS,
    queryFn: ({ signal }) => askSetup(sessionId, 0, signal),
  });
  useLookWhileRunning(sessionId, setup.data?.status);
  return setup;
}

/** The same with the newest output, kept up to date while it runs. */
export function useSetup(sessionId: string) {
  const setup = useQuery({
    queryKey: sessionKeys.setupLog(sessionId),
    queryFn: ({ signal }) => askSetup(sessionId, LOG_BYTES, signal),
  });
  useLookWhileRunning(sessionId, setup.data?.status);
  return setup;
}

function askSetup(sessionId: string, logBytes: number, signal: AbortSignal): Promise<Setup> {
  return api.get<Setup>(at('/api/sessions/{id}/setup', sessionId), { query: { logBytes }, signal });
}

export function useRunSetup(sessionId: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: () => api.post<Setup>(at('/api/sessions/{id}/setup', sessionId)),
    onSuccess: (setup) => queries.setQueryData(sessionKeys.setupLog(sessionId), setup),
    onSettled: () => queries.invalidateQueries({ queryKey: sessionKeys.setup(sessionId) }),
  });
}

/** The commands that the repository offers, kept up to date while one of them runs. */
export function useSessionCommands(sessionId: string) {
  const commands = useQuery<Commands>({
    queryKey: sessionKeys.commands(sessionId),
    queryFn: ({ signal }) => api.get<Commands>(at('/api/sessions/{id}/commands', sessionId), { signal }),
  });
  const running = commands.data?.commands.some((one) => one.status === 'running') === true;
  useLookWhileRunning(sessionId, running ? 'running' : undefined);
  return commands;
}

/** One command with the newest of its output. */
export function useSessionCommand(sessionId: string, name: string, enabled: boolean) {
  const command = useQuery({
    queryKey: sessionKeys.command(sessionId, name),
    enabled,
    queryFn: ({ signal }) =>
      api.get<Command>(at('/api/sessions/{id}/commands/{name}', sessionId, name), {
        query: { logBytes: LOG_BYTES },
        signal,
      }),
  });
  useLookWhileRunning(sessionId, command.data?.status);
  return command;
}

/** Starts a command, or ends it with its processes. */
export function useControlCommand(sessionId: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ name, action }: { name: string; action: 'start' | 'stop' }) => {
      const path = at('/api/sessions/{id}/commands/{name}', sessionId, name);
      return action === 'start' ? api.post<Command>(path) : api.delete<Command>(path);
    },
    onSettled: () => queries.invalidateQueries({ queryKey: sessionKeys.commands(sessionId) }),
  });
}

/** Brings an ended session back in its worktree; may wait for a sandbox to start. */
export function useReviveSession() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ id }: Pick<Session, 'id' | 'environmentId'>) =>
      api.patch<Session>(at('/api/sessions/{id}', id), {
        body: { status: 'inactive' },
        deadlineMs: CREATE_DEADLINE_MS,
      }),
    onSuccess: (revived) => putSession(queries, revived),
    onSettled: (_, __, { environmentId }) => staleSessions(queries, environmentId),
  });
}
