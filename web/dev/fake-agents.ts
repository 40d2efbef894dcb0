/** Agents of the fake server: a run goes from its prompt over a question to its end, by itself but for the answer. */
import { randomUUID } from 'node:crypto';
import type { Agent, AgentRun, AgentType, Approval, CredentialKind, Prompt } from '../src/api/agents.ts';
import type { ListedEnvironment, SessionLine, User } from '../src/api/types.ts';

type Answer = { status: number; body: unknown };
type Body = Record<string, unknown>;
type Line = SessionLine & { agentId?: string | null };
type Tell = (event: Body & { type: string }) => void;
type Desk = { agents: Agent[]; approvals: Approval[]; prompts: Map<string, Prompt[]> };

export type AgentCall = {
  method: string;
  /** Of the address, after `/api/`. */
  part: readonly string[];
  body: Body;
  user: User;
  environments: readonly ListedEnvironment[];
  tell: Tell;
};

const STEP_MS = 2_500;
const desks = new Map<string, Desk>();

const ok = (body: unknown, status = 200): Answer => ({ status, body });
const refuse = (status: number, code: string, error: string): Answer => ({
  status,
  body: { error, code, requestId: randomUUID().slice(0, 8) },
});
const text = (value: unknown) => (typeof value === 'string' ? value : '');
const ago = (minutes: number) => new Date(Date.now() - minutes * 60_000).toISOString();

const WORDS = {
  gateway:
    'It stays on the server and never enters a sandbox; the server adds it to what the agent sends to its model.',
  file: 'While the agent runs, its login file is in the memory of the sandbox: every program there can read it.',
  env: 'While the agent runs, the key is a variable of its process: every program in the sandbox can read it.',
};

function kind(type: string, title: string, delivery: CredentialKind['delivery'] = 'gateway'): CredentialKind {
  return {
    type,
    title,
    delivery,
    entersSandbox: delivery !== 'gateway',
    readableBy: WORDS[delivery],
    aliases: [],
    takesBaseUrl: delivery === 'gateway',
  };
}

const TYPES: AgentType[] = [
  {
    name: 'claude-code',
    title: 'Claude Code',
    version: '2.1.332',
    installable: true,
    credentials: [kind('anthropic_api_key', 'API key'), kind('claude_cli_json', 'Login file', 'file')],
  },
  {
    name: 'codex',
    title: 'Codex',
    version: '0.169.0',
    installable: true,
    credentials: [kind('openai_api_key', 'API key'), kind('codex_auth_json', 'Login file', 'file')],
  },
  {
    name: 'cursor-cli',
    title: 'Cursor',
    version: null,
    installable: false,
    missing:
      'It comes from its maker only: follow the steps on its site inside the sandbox, or build an image with it.',
    credentials: [kind('cursor_api_key', 'API key', 'env')],
  },
];

function deskOf(user: User): Desk {
  const known = desks.get(user.id);
  if (known) return known;
  const made = (fields: Partial<Agent> & Pick<Agent, 'name' | 'type'>): Agent => ({
    id: randomUUID(),
    credential_type: null,
    base_url: null,
    model: null,
    created_at: ago(9_000),
    updated_at: ago(300),
    ...fields,
  });
  const desk: Desk = {
    agents: user.email.startsWith('empty')
      ? []
      : [
          made({ name: 'Claude', type: 'claude-code', credential_type: 'anthropic_api_key' }),
          made({ name: 'Codex of the team', type: 'codex', credential_type: 'codex_auth_json' }),
          made({ name: 'Cursor', type: 'cursor-cli' }),
        ],
    approvals: [],
    prompts: new Map(),
  };
  desks.set(user.id, desk);
  return desk;
}

function become(call: AgentCall, line: Line, fields: Partial<Line>): void {
  Object.assign(line, { agentStateSince: new Date().toISOString() }, fields);
  call.tell({ type: 'session.changed', id: line.id, environmentId: line.environmentId });
}

function ask(call: AgentCall, line: Line, tool: string, input: string): void {
  const approval: Approval = {
    id: randomUUID(),
    sessionId: line.id,
    sessionName: line.name,
    environmentId: line.environmentId,
    agentId: line.agentId ?? null,
    kind: 'permission',
    tool,
    input,
    createdAt: new Date().toISOString(),
  };
  deskOf(call.user).approvals.push(approval);
  become(call, line, { agentState: 'waiting_permission', agentWaitsFor: `${tool}: ${input}` });
  call.tell({ type: 'approval.changed', id: approval.id, sessionId: line.id });
}

/** One turn: it works, asks for a permission, and waits. */
export function beginTurn(call: AgentCall, line: Line): void {
  become(call, line, { agentState: 'working', agentWaitsFor: null });
  setTimeout(() => {
    become(call, line, { agentMessage: 'I will look at how the total is rounded first.' });
  }, STEP_MS / 2);
  setTimeout(() => ask(call, line, 'Bash', '{\n  "command": "npm test -- --run cart"\n}'), STEP_MS);
}

const limits = new Map<string, number | null>();

function runOf(call: AgentCall, line: Line): AgentRun {
  const agent = deskOf(call.user).agents.find((one) => one.id === line.agentId);
  const type = TYPES.find((one) => one.name === agent?.type);
  const kindGiven = type?.credentials.find((one) => one.type === agent?.credential_type);
  if (call.method === 'PATCH') {
    const { limitTokens } = call.body;
    limits.set(line.id, typeof limitTokens === 'number' ? limitTokens : null);
  }
  const limitTokens = limits.get(line.id) ?? null;
  return {
    sessionId: line.id,
    agentId: line.agentId ?? null,
    type: type?.name ?? '',
    title: type?.title ?? '',
    credential: kindGiven ?? null,
    usage: { requests: 14, inputTokens: 182_340, outputTokens: 9_121 },
    limitTokens,
    allowedTokens: limitTokens === null ? null : limitTokens + 191_461,
  };
}

/** Gives some of the sessions that an account begins with an agent. */
export function seedAgents(user: User, environments: readonly ListedEnvironment[], tell: Tell): void {
  const desk = deskOf(user);
  const call: AgentCall = { method: '', part: [], body: {}, user, environments, tell };
  const find = (name: string): Line | undefined =>
    environments.flatMap((one) => one.sessions).find((one) => one.name === name);
  const give = (name: string, fields: Partial<Line>, agent = 0) => {
    const line = find(name);
    if (line) Object.assign(line, { agentId: desk.agents[agent]?.id ?? null, ...fields });
    return line;
  };
  const asking = give('checkout-redesign', {
    agentState: 'working',
    agentMessage: 'The new summary needs a migration.',
  });
  if (asking)
    ask(
      call,
      asking,
      'Bash',
      '{\n  "command": "npm run db:migrate -- --name add_summary",\n  "description": "Adds the column for the summary"\n}',
    );
  give('fix-cart-rounding', {
    agentState: 'working',
    agentStateSince: ago(4),
    agentMessage:
      'Three tests fail because the total is rounded twice. I am moving the rounding to one place.',
  });
  give(
    'invoice-export',
    {
      agentState: 'done',
      agentStateSince: new Date(Date.now() + 60_000).toISOString(),
      agentMessage: 'The export now streams its rows. All 48 tests pass.',
    },
    1,
  );
  give('feature-store', {
    agentState: 'waiting_question',
    agentStateSince: ago(12),
    agentWaitsFor: 'Which of the two stores should keep the history?',
  });
}

export function agentAnswer(call: AgentCall): Answer | undefined {
  const [area, first = '', second = '', third = ''] = call.part;
  if (area === 'agents') return agents(call, first, second);
  if (area === 'approvals') return approvals(call, first);
  if (
    area !== 'sessions' ||
    (second !== 'prompt' && second !== 'prompts' && second !== 'interrupt' && second !== 'agent')
  )
    return undefined;
  const line = call.environments.flatMap((one) => one.sessions).find((one) => one.id === first);
  if (!line) return refuse(404, 'SESSION_NOT_FOUND', 'Session not found');
  const prompts = deskOf(call.user).prompts;
  if (second === 'prompts' && call.method === 'DELETE') {
    prompts.set(
      first,
      (prompts.get(first) ?? []).filter((one) => one.id !== third),
    );
    return ok({});
  }
  if (second === 'prompts') return ok({ prompts: prompts.get(first) ?? [] });
  if (second === 'agent') return ok(runOf(call, line));
  if (second === 'interrupt') {
    become(call, line, { agentState: 'idle', agentWaitsFor: null });
    return ok({ interrupted: true });
  }
  const free = line.agentState === 'idle' || line.agentState === 'done';
  const sent: Prompt = {
    id: randomUUID(),
    text: text(call.body.text),
    status: free ? 'delivered' : 'queued',
    reason: free ? null : 'The agent is working.',
    createdAt: new Date().toISOString(),
  };
  prompts.set(first, [...(prompts.get(first) ?? []), sent]);
  if (free) beginTurn(call, line);
  return ok(sent, 202);
}

function agents(call: AgentCall, first: string, second: string): Answer {
  const { method, body, user } = call;
  const desk = deskOf(user);
  if (first === 'types') return ok({ types: TYPES });
  if (first === 'user') return ok({ agents: desk.agents });
  const given = body.credential as { type: string } | undefined;
  if (method === 'POST' && first === '') {
    const now = new Date().toISOString();
    const agent: Agent = {
      id: randomUUID(),
      name: text(body.name),
      type: text(body.type),
      credential_type: given?.type ?? null,
      base_url: text(body.baseUrl) || null,
      model: text(body.model) || null,
      created_at: now,
      updated_at: now,
    };
    desk.agents.push(agent);
    return ok(agent, 201);
  }
  const agent = desk.agents.find((one) => one.id === first);
  if (!agent) return refuse(404, 'AGENT_NOT_FOUND', 'Agent not found');
  if (second === 'test') {
    return agent.credential_type === 'codex_auth_json'
      ? ok({ ok: null, message: 'Only the agent itself can find out whether this login still holds.' })
      : ok({
          ok: agent.model !== 'wrong',
          message:
            agent.model === 'wrong' ? 'The provider refused the key (401).' : 'The provider takes the key.',
        });
  }
  if (method === 'DELETE') {
    desk.agents = desk.agents.filter((one) => one !== agent);
    return ok({ message: 'Agent deleted successfully' });
  }
  if (method === 'PATCH') {
    Object.assign(agent, {
      updated_at: new Date().toISOString(),
      ...(body.name === undefined ? {} : { name: body.name }),
      ...(body.model === undefined ? {} : { model: body.model }),
      ...(body.baseUrl === undefined ? {} : { base_url: body.baseUrl }),
      ...(given ? { credential_type: given.type } : {}),
    });
  }
  return ok(agent);
}

function approvals(call: AgentCall, id: string): Answer {
  const desk = deskOf(call.user);
  if (id === '') return ok({ approvals: desk.approvals });
  const approval = desk.approvals.find((one) => one.id === id);
  if (!approval) return refuse(409, 'APPROVAL_ANSWERED', 'It was answered in the terminal.');
  desk.approvals = desk.approvals.filter((one) => one !== approval);
  const line = call.environments.flatMap((one) => one.sessions).find((one) => one.id === approval.sessionId);
  call.tell({ type: 'approval.changed', id, sessionId: approval.sessionId });
  if (line) {
    become(call, line, { agentState: 'working', agentWaitsFor: null });
    setTimeout(
      () =>
        become(call, line, {
          agentState: 'done',
          agentMessage: 'Done: the total is rounded once, and tested.',
        }),
      STEP_MS,
    );
  }
  return ok({ id, status: call.body.decision === 'allow' ? 'allowed' : 'denied' });
}
