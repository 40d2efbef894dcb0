import { describe, expect, it } from 'vitest';
import type { Approval } from '@/api/agents';
import type { ListedEnvironment, SessionLine } from '@/api/types';
import { approvalWord, attention, grouped, mayBeBlocked } from './inbox';
import { sessionStatus } from './status';

const NOON = '2026-01-01T12:00:00.000Z';
const at = (minutes: number) => new Date(Date.parse(NOON) + minutes * 60_000).toISOString();

function session(id: string, fields: Partial<SessionLine> = {}): SessionLine {
  return {
    id,
    environmentId: 'e1',
    name: id,
    tmuxSessionName: id,
    workingDirectory: '/w',
    status: 'inactive',
    gitBranch: null,
    createdAt: NOON,
    updatedAt: NOON,
    ...fields,
  };
}

function agent(
  id: string,
  agentState: SessionLine['agentState'],
  minutes = 0,
  fields: Partial<SessionLine> = {},
) {
  return session(id, { agentState: agentState ?? null, agentStateSince: at(minutes), ...fields });
}

function environment(sessions: SessionLine[], fields: Partial<ListedEnvironment> = {}): ListedEnvironment {
  return {
    id: 'e1',
    userId: 'u1',
    name: 'shop',
    branch: 'main',
    status: 'running',
    cloneStatus: 'ready',
    runtime: 'docker',
    desired: 'running',
    statusSince: '2026-11-24T10:00:00.000Z',
    pushPolicy: 'sessions',
    createdAt: NOON,
    updatedAt: NOON,
    sessions,
    ...fields,
  };
}

function approval(id: string, sessionId: string, minutes: number, fields: Partial<Approval> = {}): Approval {
  return {
    id,
    sessionId,
    sessionName: sessionId,
    environmentId: 'e1',
    agentId: 'a1',
    kind: 'permission',
    tool: 'Bash',
    input: 'rm -r build',
    createdAt: at(minutes),
    ...fields,
  };
}

const never = () => false;

describe('what needs the person', () => {
  it('has permissions first, the longest waiting on top, then questions, then what failed', () => {
    const environments = [
      environment([
        agent('broken', 'error', -9),
        agent('asks', 'waiting_question', -5),
        agent('younger', 'waiting_permission', -1),
        agent('older', 'waiting_permission', -3),
        agent('busy', 'working'),
        session('plain'),
      ]),
      environment([], { id: 'e2', name: 'other', status: 'error', reason: 'no disk' }),
    ];
    const list = attention(environments, [approval('p2', 'younger', -1), approval('p1', 'older', -3)]);
    expect(list.map((one) => [one.what, one.title])).toEqual([
      ['approval', 'older'],
      ['approval', 'younger'],
      ['question', 'asks'],
      ['failed', 'broken'],
      ['environment', 'other'],
    ]);
    expect(new Set(list.map((one) => one.id)).size).toBe(list.length);
  });

  it('counts a permission once, also where it can be answered in the terminal only', () => {
    const environments = [
      environment([agent('one', 'waiting_permission'), agent('two', 'waiting_permission')]),
    ];
    const list = attention(environments, [approval('p1', 'one', 0)]);
    expect(list.map((one) => [one.what, one.title])).toEqual([
      ['approval', 'one'],
      ['permission', 'two'],
    ]);
  });

  it('counts each of several permissions that one session asks for', () => {
    const environments = [environment([agent('one', 'waiting_permission')])];
    const list = attention(environments, [approval('p1', 'one', 0), approval('p2', 'one', 1)]);
    expect(list.map((one) => one.id)).toEqual(['approval:p1', 'approval:p2']);
  });

  it('does not count what has ended, nor an agent that is silent', () => {
    const environments = [
      environment([
        agent('dead', 'waiting_question', 0, { status: 'dead' }),
        agent('silent', 'unknown'),
        agent('done', 'done'),
      ]),
    ];
    expect(attention(environments)).toEqual([]);
  });

  it('names a prompt that could not be delivered, with the reason', () => {
    const environments = [environment([agent('gone', 'exited'), agent('fine', 'done')])];
    expect(mayBeBlocked(environments)).toEqual(['gone']);
    const prompt = { id: 'q1', text: 'go on', reason: 'The agent has ended.', createdAt: NOON };
    const list = attention(environments, [], new Map([['gone', prompt]]));
    expect(list.map((one) => [one.what, one.title, one.details])).toEqual([
      ['prompt', 'gone', 'The agent has ended.'],
    ]);
  });

  it('is another thing when the same session asks once more', () => {
    const first = attention([environment([agent('asks', 'waiting_question', 0)])]);
    const second = attention([environment([agent('asks', 'waiting_question', 5)])]);
    expect(first[0]?.id).not.toBe(second[0]?.id);
  });

  it('says what is wanted, with the tool where there is one', () => {
    expect(approvalWord({ kind: 'permission', tool: 'Bash' })).toBe('Wants to use Bash');
    expect(approvalWord({ kind: 'permission', tool: '' })).toBe('Asks for permission');
    expect(approvalWord({ kind: 'limit', tool: '' })).toBe('Has reached its limit');
  });
});

describe('the other sessions', () => {
  it('are running, finished and not seen, or the rest, and never in two groups', () => {
    const environments = [
      environment([
        agent('waits', 'waiting_question'),
        agent('slow', 'working', -30),
        agent('fresh', 'starting', -1),
        agent('seen', 'done', -2),
        agent('unseen', 'done', -3),
        session('terminal', { status: 'active' }),
        session('ended', { status: 'dead' }),
      ]),
    ];
    const groups = grouped(environments, attention(environments), (one) => one.id === 'unseen');
    const names = (placed: { session: SessionLine }[]) => placed.map((one) => one.session.id);
    expect(names(groups.running)).toEqual(['fresh', 'slow']);
    expect(names(groups.finished)).toEqual(['unseen']);
    expect(names(groups.rest)).toEqual(['terminal', 'seen']);
  });

  it('come with those in use first, then the ones used last', () => {
    const environments = [
      environment([
        session('old', { lastActivity: at(-50) }),
        session('new', { lastActivity: at(-5) }),
        session('used', { status: 'active', lastActivity: at(-90) }),
      ]),
    ];
    expect(grouped(environments, [], never).rest.map((one) => one.session.id)).toEqual([
      'used',
      'new',
      'old',
    ]);
  });
});

describe('the state that is shown', () => {
  it('is the agent’s where there is one, and the end where the session has ended', () => {
    const shown = (state: string, unseen = false) =>
      sessionStatus({ status: 'active', agentState: state as SessionLine['agentState'] & string }, unseen)
        .kind;
    expect(shown('working')).toBe('working');
    expect(shown('waiting_permission')).toBe('attention');
    expect(shown('waiting_question')).toBe('attention');
    expect(shown('done')).toBe('idle');
    expect(shown('done', true)).toBe('unseen');
    expect(shown('idle', true)).toBe('idle');
    expect(shown('exited')).toBe('ended');
    expect(shown('error')).toBe('failed');
    expect(shown('unknown')).toBe('unknown');
    expect(shown('a-word-of-a-later-server')).toBe('unknown');
    expect(sessionStatus({ status: 'dead', agentState: 'working' }).kind).toBe('ended');
    expect(sessionStatus({ status: 'active', agentState: null }).word).toBe('Active');
  });
});
