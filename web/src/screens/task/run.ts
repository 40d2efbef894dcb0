import { hashKey, useQueryClient, type QueryClient, type QueryKey } from '@tanstack/react-query';
import { useState } from 'react';
import { api, at } from '@/api/client';
import { ApiError } from '@/api/errors';
import { gitKeys } from '@/api/git';
import {
  keys,
  useCreateEnvironment,
  useCreateSession,
  useEnvironments,
  useRetryEnvironment,
} from '@/api/queries';
import type { Environment, ListedEnvironment, Session } from '@/api/types';
import { branchFromName } from '../environment/start-from';
import { nameFromUrl } from '../environments/naming';
import { isReady, startFailure } from '../environments/steps';
import { freeName, taskName, wantedEnvironment, wantedSession, type TaskForm } from './words';

const LIST = hashKey(keys.environments);
const BRANCHES_DEADLINE_MS = 20_000;
/** Somebody else may take a name between the look and the making. */
const MOST_TRIES = 5;

export type Stage = 'form' | 'environment' | 'session';

export type TaskRun = {
  stage: Stage;
  /** Whether an environment had to be made or waited for. */
  fromScratch: boolean;
  /** The environment that is being made, as far as it is there. */
  environment: Environment | undefined;
  /** Why it does not go on. */
  error: unknown;
  /** Goes on from where it failed. */
  retry: (() => void) | undefined;
  retrying: boolean;
  start: (form: TaskForm) => void;
  /** Back to the form, with what was written. */
  back: () => void;
};

/** Waits until an environment of the list is ready; raises where its start has failed. */
export function whenReady(queries: QueryClient, id: string): Promise<Environment> {
  const look = () =>
    queries.getQueryData<ListedEnvironment[]>(keys.environments)?.find((one) => one.id === id);
  return new Promise((resolve, reject) => {
    const settle = (): boolean => {
      const one = look();
      if (!one) return false;
      const failure = startFailure(one);
      if (failure !== undefined) reject(new StartFailed(failure));
      else if (isReady(one)) resolve(one);
      else return false;
      return true;
    };
    if (settle()) return;
    const stop = queries.getQueryCache().subscribe((event) => {
      if (event.type === 'updated' && hashKey(event.query.queryKey as QueryKey) === LIST && settle()) stop();
    });
  });
}

/** What the list of steps says by itself, with a button of its own. */
export class StartFailed extends Error {
  override readonly name = 'StartFailed';
}

/** Makes what a task needs, one after the other; `onDone` is called with the session. */
export function useTaskRun(onDone: (session: Session) => void): TaskRun {
  const queries = useQueryClient();
  const environments = useEnvironments();
  const createEnvironment = useCreateEnvironment();
  const retryEnvironment = useRetryEnvironment();
  const createSession = useCreateSession();
  const [stage, setStage] = useState<Stage>('form');
  const [error, setError] = useState<unknown>();
  const [form, setForm] = useState<TaskForm>();
  const [wanted, setWanted] = useState<string>();
  const [fromScratch, setFromScratch] = useState(false);
  const made = createEnvironment.data;

  const session = async (of: TaskForm, environment: Environment) => {
    setStage('session');
    const taken = await takenNames(queries, environment);
    for (let tries = 1; ; tries += 1) {
      const name = freeName(taskName(of), taken);
      try {
        onDone(await createSession.mutateAsync(wantedSession(of, environment, name)));
        setStage('form');
        return;
      } catch (refusal) {
        if (!isTaken(refusal) || tries === MOST_TRIES) throw refusal;
        taken.add(name);
      }
    }
  };
  const attempt = (steps: () => Promise<void>) => {
    setError(undefined);
    steps().catch((reason: unknown) => setError(reason));
  };
  const start = (of: TaskForm) => {
    setForm(of);
    attempt(async () => {
      const list = environments.data ?? [];
      if (of.source === 'environment') {
        const chosen = list.find((one) => one.id === of.environmentId);
        if (!chosen) throw new StartFailed('The environment is not there any more.');
        setWanted(undefined);
        const waits = chosen.status !== 'stopped' && !isReady(chosen);
        setFromScratch(waits);
        if (waits) {
          setStage('environment');
          await whenReady(queries, chosen.id);
        }
        await session(of, chosen);
        return;
      }
      setFromScratch(true);
      setStage('environment');
      const name = freeName(
        of.environmentName.trim() || nameFromUrl(of.url) || 'task',
        new Set(list.map((one) => one.name)),
      );
      setWanted(name);
      const { id } = await createEnvironment.mutateAsync(wantedEnvironment(of, name));
      await session(of, await whenReady(queries, id));
    });
  };

  const growing = environments.data?.find((one) =>
    wanted === undefined ? one.id === form?.environmentId : made ? one.id === made.id : one.name === wanted,
  );
  const environment = growing ?? made;
  const again = () => {
    if (!form) return;
    if (stage === 'environment' && environment && startFailure(environment) !== undefined) {
      attempt(async () => {
        await retryEnvironment.mutateAsync(environment.id);
        await session(form, await whenReady(queries, environment.id));
      });
    } else if (stage === 'session' && environment) attempt(() => session(form, environment));
    else start(form);
  };
  return {
    stage,
    fromScratch,
    environment,
    error,
    retry: error === undefined ? undefined : again,
    retrying: retryEnvironment.isPending,
    start,
    back: () => {
      setError(undefined);
      setStage('form');
    },
  };
}

function isTaken(error: unknown): boolean {
  return (
    error instanceof ApiError &&
    (error.code === 'SESSION_NAME_IN_USE' || error.code === 'BRANCH_IN_USE' || error.code === 'BRANCH_EXISTS')
  );
}

/** The names that a new session and its new branch cannot have. */
async function takenNames(queries: QueryClient, environment: Environment): Promise<Set<string>> {
  const listed = queries
    .getQueryData<ListedEnvironment[]>(keys.environments)
    ?.find((one) => one.id === environment.id);
  const taken = new Set(
    (listed?.sessions ?? []).flatMap((one) => [one.name, ...(one.gitBranch === null ? [] : [one.gitBranch])]),
  );
  if (!environment.repositoryUrl || environment.status !== 'running') return taken;
  try {
    const { data } = await queries.query({
      queryKey: [...gitKeys.branches(environment.id), 'names'],
      queryFn: ({ signal }) =>
        api.get<{ data: { branches: { name: string }[] } }>(
          at('/api/git/branches/{environment}', environment.id),
          { signal, deadlineMs: BRANCHES_DEADLINE_MS },
        ),
    });
    for (const { name } of data.branches) taken.add(branchFromName(name));
  } catch {
    // The server says what is taken when it is asked to make it.
  }
  return taken;
}
