import {
  queryOptions,
  useMutation,
  useQueries,
  useQuery,
  useQueryClient,
  type QueryClient,
} from '@tanstack/react-query';
import { useUserId } from '@/auth/session';
import { api, at } from './client';
import { ApiError } from './errors';

/** What the agent of a session does, as far as the server knows. Later servers may have more words. */
export type AgentState =
  | 'starting'
  | 'idle'
  | 'working'
  | 'waiting_permission'
  | 'waiting_question'
  | 'done'
  | 'exited'
  | 'error'
  | 'unknown';

/** What sessions with an agent have beside what all have; absent in terminal sessions. */
export type AgentFields = {
  agentState?: AgentState | null;
  agentStateSince?: string | null;
  /** The last thing that it said: text from a sandbox, shown as text only. */
  agentMessage?: string | null;
  agentWaitsFor?: string | null;
};

/** How a credential reaches the agent: by the gateway it stays outside; the others enter the sandbox. */
export type Delivery = 'gateway' | 'file' | 'env';

export type CredentialKind = {
  type: string;
  title: string;
  delivery: Delivery;
  entersSandbox: boolean;
  /** Who could read it, in a sentence. */
  readableBy: string;
  aliases: string[];
  takesBaseUrl: boolean;
};

export type AgentType = {
  name: string;
  title: string;
  version: string | null;
  credentials: CredentialKind[];
  /** Whether the server can install it; where not, `missing` says how to get it. */
  installable?: boolean;
  missing?: string | null;
};

/** What is wrong with a type that somebody added; told to administrators only. */
export type TypeProblem = { file: string; place: string; message: string };

export type Agent = {
  id: string;
  name: string;
  type: string;
  credential_type?: string | null;
  base_url?: string | null;
  model?: string | null;
  created_at: string;
  updated_at: string;
};

export type CredentialWish = { type: string; value: string };
export type AgentWish = {
  name: string;
  type: string;
  credential?: CredentialWish;
  baseUrl?: string | null;
  model?: string | null;
};
export type AgentChanges = Partial<Omit<AgentWish, 'type'>>;
/** `ok` is null where only the agent itself can find out. */
export type CheckResult = { ok: boolean | null; message: string };

export type Approval = {
  id: string;
  sessionId: string;
  sessionName: string;
  environmentId: string;
  agentId: string | null;
  kind: 'permission' | 'limit';
  tool?: string | null;
  input?: string | null;
  createdAt: string;
};
export type Decision = 'allow' | 'deny';

/** `unknown`: the server was cut short while it typed; it is not typed again. */
export type PromptStatus = 'queued' | 'blocked' | 'delivering' | 'delivered' | 'unknown';
export type Prompt = {
  id: string;
  text: string;
  status: PromptStatus;
  reason?: string | null;
  createdAt: string;
};
export type Receipt = Pick<Prompt, 'id' | 'status' | 'reason'>;
export type Interruption = { interrupted: boolean; reason?: string | null };

/** What a session's agent was given and has used; only what goes through the gateway is counted. */
export type AgentRun = {
  sessionId: string;
  agentId: string | null;
  type: string;
  title: string;
  credential?: {
    type: string;
    delivery: Delivery;
    entersSandbox: boolean;
    /** Who could read it, in a sentence. */
    readableBy: string;
  } | null;
  usage: { requests: number; inputTokens: number; outputTokens: number };
  /** How many more tokens it is given each time that its owner is asked; null: nobody is asked. */
  limitTokens: number | null;
  /** How many tokens it may have used when its owner is asked next. */
  allowedTokens: number | null;
};

/** Asking a provider whether it takes a key goes out to the network. */
const TEST_DEADLINE_MS = 60_000;
export const MAX_PROMPT = 100_000;

export const agentKeys = {
  all: ['agents'] as const,
  list: ['agents', 'list'] as const,
  types: ['agents', 'types'] as const,
  approvals: ['approvals'] as const,
  run: (sessionId: string) => ['agent-run', sessionId] as const,
  prompts: (sessionId: string) => ['prompts', sessionId] as const,
};

// ---- agents --------------------------------------------------------------------------------

export function useAgents() {
  const userId = useUserId();
  return useQuery({
    queryKey: agentKeys.list,
    queryFn: async ({ signal }) =>
      (await api.get<{ agents: Agent[] }>(at('/api/agents/user/{user}', userId), { signal })).agents,
  });
}

export function useAgentTypes() {
  return useQuery({
    queryKey: agentKeys.types,
    queryFn: ({ signal }) =>
      api.get<{ types: AgentType[]; problems?: TypeProblem[] | null }>('/api/agents/types', { signal }),
    staleTime: 5 * 60_000,
  });
}

export function useCreateAgent() {
  const userId = useUserId();
  const queries = useQueryClient();
  return useMutation({
    // What was sent has a credential in it: nothing of it is kept.
    gcTime: 0,
    mutationFn: (wish: AgentWish) => api.post<Agent>('/api/agents', { body: { userId, ...wish } }),
    onSettled: () => queries.invalidateQueries({ queryKey: agentKeys.list }),
  });
}

export function useUpdateAgent(id: string) {
  const queries = useQueryClient();
  return useMutation({
    gcTime: 0,
    mutationFn: (changes: AgentChanges) => api.patch<Agent>(at('/api/agents/{id}', id), { body: changes }),
    onSettled: () => queries.invalidateQueries({ queryKey: agentKeys.list }),
  });
}

export function useDeleteAgent() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (id: string) => api.delete<unknown>(at('/api/agents/{id}', id)),
    onSuccess: (_, id) =>
      queries.setQueryData<Agent[]>(agentKeys.list, (list) => list?.filter((one) => one.id !== id)),
    onSettled: () => queries.invalidateQueries({ queryKey: agentKeys.list }),
  });
}

/** Asks the provider whether it takes the agent's credential. */
export function useTestAgent(id: string) {
  return useMutation({
    mutationFn: () =>
      api.post<CheckResult>(at('/api/agents/{id}/test', id), { deadlineMs: TEST_DEADLINE_MS }),
  });
}

// ---- what waits ----------------------------------------------------------------------------

export function useApprovals() {
  return useQuery({
    queryKey: agentKeys.approvals,
    queryFn: async ({ signal }) =>
      (await api.get<{ approvals: Approval[] }>('/api/approvals', { signal })).approvals,
  });
}

/** Whether somebody else, the terminal included, has answered before, or it waits no more. Pure. */
export function answeredBefore(error: unknown): boolean {
  return (
    error instanceof ApiError &&
    (error.status === 404 || (error.status === 409 && error.code.includes('ANSWERED')))
  );
}

/** Allows or denies; what was answered meanwhile leaves the list as well. */
export function useDecide() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ id, decision, message }: { id: string; decision: Decision; message?: string }) =>
      api.post<{ id: string; status: string }>(at('/api/approvals/{id}', id), {
        body: { decision, ...(message === undefined || message === '' ? {} : { message }) },
      }),
    onSuccess: (_, { id }) => withoutApproval(queries, id),
    onError: (error, { id }) => {
      if (answeredBefore(error)) withoutApproval(queries, id);
    },
    onSettled: () => queries.invalidateQueries({ queryKey: agentKeys.approvals }),
  });
}

function withoutApproval(queries: QueryClient, id: string): void {
  queries.setQueryData<Approval[]>(agentKeys.approvals, (list) => list?.filter((one) => one.id !== id));
}

// ---- one session ---------------------------------------------------------------------------

function promptsQuery(sessionId: string) {
  return queryOptions({
    queryKey: agentKeys.prompts(sessionId),
    queryFn: async ({ signal }) =>
      (await api.get<{ prompts: Prompt[] }>(at('/api/sessions/{id}/prompts', sessionId), { signal })).prompts,
  });
}

/** The prompts that were sent to a session's agent, with what became of them. */
export function usePrompts(sessionId: string) {
  return useQuery(promptsQuery(sessionId));
}

/** Those of some sessions that cannot be delivered, by session. */
export function useBlockedPrompts(sessionIds: readonly string[]): ReadonlyMap<string, Prompt> {
  return useQueries({
    queries: sessionIds.map((id) => promptsQuery(id)),
    combine: (answers) =>
      new Map(
        answers.flatMap(({ data }, index) => {
          const blocked = data?.find((one) => one.status === 'blocked');
          const id = sessionIds[index];
          return blocked && id !== undefined ? [[id, blocked] as const] : [];
        }),
      ),
  });
}

export function useSendPrompt(sessionId: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (text: string) =>
      api.post<Receipt>(at('/api/sessions/{id}/prompt', sessionId), { body: { text } }),
    onSettled: () => queries.invalidateQueries({ queryKey: agentKeys.prompts(sessionId) }),
  });
}

/** Takes a prompt back that is not delivered yet. */
export function useTakeBackPrompt(sessionId: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (id: string) => api.delete<unknown>(at('/api/sessions/{id}/prompts/{prompt}', sessionId, id)),
    onSuccess: (_, id) =>
      queries.setQueryData<Prompt[]>(agentKeys.prompts(sessionId), (list) =>
        list?.filter((one) => one.id !== id),
      ),
    onSettled: () => queries.invalidateQueries({ queryKey: agentKeys.prompts(sessionId) }),
  });
}

/** What a session's agent was given, and what it has used when it was asked last. */
export function useAgentRun(sessionId: string, enabled = true) {
  return useQuery({
    queryKey: agentKeys.run(sessionId),
    enabled,
    queryFn: ({ signal }) => api.get<AgentRun>(at('/api/sessions/{id}/agent', sessionId), { signal }),
  });
}

/** After how many tokens from now on the owner is asked; null for never. */
export function useLimitAgent(sessionId: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (limitTokens: number | null) =>
      api.patch<AgentRun>(at('/api/sessions/{id}/agent', sessionId), { body: { limitTokens } }),
    onSuccess: (run) => queries.setQueryData(agentKeys.run(sessionId), run),
  });
}

export function useInterrupt(sessionId: string) {
  return useMutation({
    mutationFn: () => api.post<Interruption>(at('/api/sessions/{id}/interrupt', sessionId)),
  });
}
