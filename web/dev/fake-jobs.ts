/** Setups, commands and recorded pushes of the fake server. A command called `test` fails after a while. */
import type { RecordedPush } from '../src/api/environment.ts';
import type { Command, JobState, Setup } from '../src/api/sessions.ts';

type Answer = { status: number; body: unknown };
type Job = { status: JobState; startedAt: number; stoppedAt?: number };

export type JobCall = { method: string; area: string; part: readonly string[] };

const COMMANDS: Readonly<Record<string, string>> = {
  dev: 'npm run dev',
  test: 'npm test',
  lint: 'npm run lint',
};
const ENDS_AFTER_MS = 6_000;
const jobs = new Map<string, Job>();

const ok = (body: unknown): Answer => ({ status: 200, body });
const time = (ms: number) => new Date(ms).toISOString();

function look(key: string, ends: boolean): Job {
  const job = jobs.get(key) ?? { status: 'none', startedAt: 0 };
  if (job.status !== 'running' || !ends || Date.now() - job.startedAt < ENDS_AFTER_MS) return job;
  const ended: Job = {
    status: key.endsWith(' test') ? 'failed' : 'succeeded',
    startedAt: job.startedAt,
    stoppedAt: job.startedAt + ENDS_AFTER_MS,
  };
  jobs.set(key, ended);
  return ended;
}

function times({ startedAt, stoppedAt }: Job) {
  return {
    ...(startedAt > 0 ? { startedAt: time(startedAt) } : {}),
    ...(stoppedAt === undefined ? {} : { finishedAt: time(stoppedAt) }),
  };
}

function output({ startedAt, stoppedAt }: Job, word: string): string {
  if (startedAt === 0) return '';
  const lines = Math.min(400, Math.floor(((stoppedAt ?? Date.now()) - startedAt) / 250));
  return Array.from({ length: lines }, (_, line) => `\u001b[32m✓\u001b[0m ${word} ${line + 1}\n`).join('');
}

function setup(session: string, run: boolean): Answer {
  const key = `${session} setup`;
  if (run) jobs.set(key, { status: 'running', startedAt: Date.now() });
  const known = jobs.get(key) ?? {
    status: 'succeeded' as const,
    startedAt: Date.now() - 300_000,
    stoppedAt: Date.now() - 280_000,
  };
  jobs.set(key, known);
  const job = look(key, true);
  const answer: Setup = {
    status: job.status,
    command: 'npm ci',
    ...times(job),
    ...(job.status === 'succeeded' ? { exitCode: 0 } : {}),
    log: `$ npm ci\n${output(job, 'package')}`,
    truncated: false,
    copied: ['.env', 'config/ada.local.json'],
    warnings: [],
  };
  return ok(answer);
}

function command(session: string, name: string): Command {
  const key = `${session} ${name}`;
  const job = look(key, name !== 'dev');
  return {
    name,
    command: COMMANDS[name] ?? name,
    status: job.status,
    ...times(job),
    ...(job.status === 'failed' ? { exitCode: 1 } : {}),
    log: output(job, name),
    truncated: false,
  };
}

const PUSHES: readonly RecordedPush[] = [
  {
    ref: 'refs/heads/ada/checkout-redesign',
    old: '7c1f0b4f4b8f9f0f9d1f1f0b4f4b8f9f0f9d1f1f',
    new: '9fceb02d0ae598e95dc970b74767f19372d61af8',
    outcome: 'ok',
    createdAt: time(Date.now() - 240_000),
  },
  {
    ref: 'refs/tags/v2.4.0',
    old: '0'.repeat(40),
    new: '9fceb02d0ae598e95dc970b74767f19372d61af8',
    outcome: 'refused',
    reason:
      "this environment allows pushes to its sessions' branches and to new branches; change its push policy to push tags",
    createdAt: time(Date.now() - 3_000_000),
  },
  {
    ref: 'refs/heads/main',
    old: '1d3b0b4f4b8f9f0f9d1f1f0b4f4b8f9f0f9d1f1f',
    new: '5aceb02d0ae598e95dc970b74767f19372d61af8',
    outcome: 'rejected',
    reason: 'protected branch hook declined',
    createdAt: time(Date.now() - 90_000_000),
  },
];

/** Answers for jobs and pushes; undefined for what others know. */
export function jobAnswer({ method, area, part }: JobCall): Answer | undefined {
  const [id = '', what = '', name = ''] = part;
  if (area === 'git' && id === 'pushes') return ok({ success: true, data: { pushes: PUSHES } });
  if (area !== 'sessions') return undefined;
  if (what === 'setup') return setup(id, method === 'POST');
  if (what !== 'commands') return undefined;
  if (name === '') {
    const commands = Object.keys(COMMANDS).map((one) => command(id, one));
    return ok({ commands, warnings: [] });
  }
  const key = `${id} ${name}`;
  if (method === 'POST') jobs.set(key, { status: 'running', startedAt: Date.now() });
  const job = jobs.get(key);
  if (method === 'DELETE' && job) jobs.set(key, { ...job, status: 'interrupted', stoppedAt: Date.now() });
  return ok(command(id, name));
}
