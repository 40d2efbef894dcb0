import { useQuery } from '@tanstack/react-query';
import { api } from './client';
import { ApiError } from './errors';
import type { components } from './schema';

type Schemas = components['schemas'];

export type Health = Schemas['HealthView'];
export type Finding = Schemas['FindingView'];
export type RuntimeHealth = Schemas['RuntimeHealthView'];
export type IsolationHealth = Schemas['IsolationHealthView'];
export type RepeatedStep = Schemas['RepeatedStepView'];

const FRESH_MS = 60_000;

/** How the server is, for administrators. */
export function useHealth() {
  return useQuery({
    queryKey: ['health'],
    queryFn: ({ signal }) => api.get<Health>('/api/admin/health', { signal }),
  });
}

export type Readiness = { ready: boolean; checks: Readonly<Record<string, string>> };

/** What the server answered when asked whether it is ready; undefined where that was no such answer. Pure. */
export function readinessOf(body: unknown): Readiness | undefined {
  if (typeof body !== 'object' || body === null) return undefined;
  const { status, checks } = body as { status?: unknown; checks?: unknown };
  if (typeof status !== 'string' || typeof checks !== 'object' || checks === null) return undefined;
  const read = Object.fromEntries(
    Object.entries(checks).filter((pair): pair is [string, string] => typeof pair[1] === 'string'),
  );
  return { ready: status === 'ok', checks: read };
}

/** The same from a refusal, which carries the reasons. Pure. */
export function readinessFrom(error: unknown): Readiness | undefined {
  return error instanceof ApiError ? readinessOf(error.body) : undefined;
}

/** Whether the server can do what it is for, as it tells everybody. */
export function useReadiness(staleTime = FRESH_MS) {
  return useQuery<Readiness>({
    queryKey: ['readiness'],
    retry: false,
    staleTime,
    queryFn: async ({ signal }) => {
      try {
        const answer = readinessOf(await api.get<unknown>('/readyz', { signal, anonymous: true }));
        if (answer) return answer;
      } catch (error) {
        const refused = readinessFrom(error);
        if (refused) return refused;
        throw error;
      }
      throw new Error('The server did not say whether it is ready.');
    },
  });
}
