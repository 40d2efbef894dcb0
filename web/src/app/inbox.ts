import type { Approval, Prompt } from '@/api/agents';
import type { ListedEnvironment, SessionLine } from '@/api/types';
import type { StatusKind } from '@/ui/status';
import { environmentStatus } from './status';
import { whyOf } from './why';

/** Something that waits for the person. */
export type Attention = {
  /** Another time of the same has another id. */
  id: string;
  what: 'approval' | 'permission' | 'question' | 'failed' | 'prompt' | 'environment';
  title: string;
  /** Why, in a few words. */
  why: string;
  details?: string | undefined;
  kind: StatusKind;
  to: string;
  environmentId: string;
  sessionId?: string | undefined;
  /** What can be allowed or denied here. */
  approval?: Approval | undefined;
  /** Since when, as the server says; empty where it does not. */
  since: string;
};

export type Placed = { session: SessionLine; environment: ListedEnvironment };

const ORDER: readonly Attention['what'][] = [
  'approval',
  'permission',
  'question',
  'failed',
  'prompt',
  'environment',
];
/** A prompt for an agent that cannot take it now is looked for in this many sessions. */
const MOST_ASKED = 12;

function placed(environments: readonly ListedEnvironment[]): Placed[] {
  return environments.flatMap((environment) =>
    environment.sessions
      .filter(({ status }) => status !== 'dead')
      .map((session) => ({ session, environment })),
  );
}

/** What an approval is for, in a few words. Pure. */
export function approvalWord({ kind, tool }: Pick<Approval, 'kind' | 'tool'>): string {
  if (kind === 'limit') return 'Has reached its limit';
  return tool === undefined || tool === null || tool === '' ? 'Asks for permission' : `Wants to use ${tool}`;
}

/** Sessions whose agent may have a prompt that it cannot be given. Pure. */
export function mayBeBlocked(environments: readonly ListedEnvironment[]): string[] {
  return placed(environments)
    .filter(({ session }) => session.agentState === 'exited' || session.agentState === 'unknown')
    .sort((a, b) => changedAt(b.session) - changedAt(a.session))
    .slice(0, MOST_ASKED)
    .map(({ session }) => session.id);
}

/**
 * What waits for the person, the most pressing first: who is asked for a permission before who has a
 * question, then what failed; of the same, what waits the longest. Pure.
 */
export function attention(
  environments: readonly ListedEnvironment[],
  approvals: readonly Approval[] = [],
  blocked: ReadonlyMap<string, Pick<Prompt, 'id' | 'text' | 'reason' | 'createdAt'>> = new Map(),
): Attention[] {
  const asked = new Set(approvals.filter(({ kind }) => kind === 'permission').map((one) => one.sessionId));
  const list: Attention[] = approvals.map((approval) => ({
    id: `approval:${approval.id}`,
    what: 'approval',
    title: approval.sessionName,
    why: approvalWord(approval),
    kind: 'attention',
    to: `/s/${approval.sessionId}`,
    environmentId: approval.environmentId,
    sessionId: approval.sessionId,
    approval,
    since: approval.createdAt,
  }));
  for (const { session, environment } of placed(environments)) {
    const one = ofSession(session, asked.has(session.id)) ?? ofPrompt(session, blocked.get(session.id));
    if (one) list.push({ ...one, environmentId: environment.id });
  }
  list.push(...environments.flatMap(ofEnvironment));
  return list.sort(
    (a, b) => ORDER.indexOf(a.what) - ORDER.indexOf(b.what) || timeOf(a.since) - timeOf(b.since),
  );
}

type OfSession = Omit<Attention, 'environmentId'>;

function ofSession(session: SessionLine, asked: boolean): OfSession | undefined {
  const since = session.agentStateSince ?? '';
  const common = { title: session.name, to: `/s/${session.id}`, sessionId: session.id, since };
  const waitsFor = session.agentWaitsFor ?? undefined;
  switch (session.agentState) {
    case 'waiting_permission':
      // Where it can be answered here, it is in the list already.
      if (asked) return undefined;
      return {
        ...common,
        id: `permission:${session.id}:${since}`,
        what: 'permission',
        why: 'Asks in its terminal',
        details: waitsFor,
        kind: 'attention',
      };
    case 'waiting_question':
      return {
        ...common,
        id: `question:${session.id}:${since}`,
        what: 'question',
        why: 'Has a question',
        details: waitsFor ?? session.agentMessage ?? undefined,
        kind: 'attention',
      };
    case 'error':
      return {
        ...common,
        id: `failed:${session.id}:${since}`,
        what: 'failed',
        why: 'Failed',
        details: waitsFor ?? session.agentMessage ?? undefined,
        kind: 'failed',
      };
    default:
      return undefined;
  }
}

function ofPrompt(
  session: SessionLine,
  prompt: Pick<Prompt, 'id' | 'text' | 'reason' | 'createdAt'> | undefined,
): OfSession | undefined {
  if (!prompt) return undefined;
  return {
    id: `prompt:${prompt.id}`,
    what: 'prompt',
    title: session.name,
    why: 'Prompt not delivered',
    details: prompt.reason ?? prompt.text,
    kind: 'attention',
    to: `/s/${session.id}`,
    sessionId: session.id,
    since: prompt.createdAt,
  };
}

function ofEnvironment(one: ListedEnvironment): Attention[] {
  const { kind, word } = environmentStatus(one);
  if (kind !== 'failed') return [];
  return [
    {
      id: one.id,
      what: 'environment',
      title: one.name,
      why: word,
      details: whyOf(one)?.reason,
      kind,
      to: `/e/${one.id}`,
      environmentId: one.id,
      since: one.statusSince,
    },
  ];
}

function timeOf(iso: string): number {
  const at = Date.parse(iso);
  return Number.isNaN(at) ? 0 : at;
}

function changedAt(session: SessionLine): number {
  return timeOf(session.agentStateSince ?? session.lastActivity ?? session.createdAt);
}

/** The sessions under three headings; what waits for the person is in none of them. */
export type Groups = { running: Placed[]; finished: Placed[]; rest: Placed[] };

/**
 * Sorts the living sessions: whose agent works, the latest change first; who has finished and was not
 * looked at since; then the others, those in use first, then the ones used last. Pure.
 */
export function grouped(
  environments: readonly ListedEnvironment[],
  waiting: readonly Attention[],
  isUnseen: (session: SessionLine) => boolean,
): Groups {
  const waits = new Set(waiting.map((one) => one.sessionId));
  const groups: Groups = { running: [], finished: [], rest: [] };
  for (const one of placed(environments)) {
    const { session } = one;
    if (waits.has(session.id)) continue;
    if (session.agentState === 'working' || session.agentState === 'starting') groups.running.push(one);
    else if (isUnseen(session)) groups.finished.push(one);
    else groups.rest.push(one);
  }
  const latest = (a: Placed, b: Placed) => changedAt(b.session) - changedAt(a.session);
  groups.running.sort(latest);
  groups.finished.sort(latest);
  const used = ({ session }: Placed) => session.lastActivity ?? session.createdAt;
  const active = ({ session }: Placed) => (session.status === 'active' ? 1 : 0);
  groups.rest.sort((a, b) => active(b) - active(a) || used(b).localeCompare(used(a)));
  return groups;
}
