import type { NewEnvironment, NewSession } from '@/api/types';
import { branchFromName } from '../environment/start-from';

export type Source = 'environment' | 'url' | 'github';

export type TaskForm = {
  prompt: string;
  source: Source;
  environmentId: string;
  url: string;
  /** The branch that the work begins at; empty: the environment's own. */
  base: string;
  agentId: string;
  /** What was typed for the session's and its environment's name; empty: as the prompt and the address say. */
  name: string;
  environmentName: string;
};

const MAX_WORDS = 6;
const MAX_LENGTH = 40;

/** A session's name for what it is asked to do: the first words, as a branch spells them. Pure. */
export function nameFromPrompt(prompt: string): string {
  const line = prompt.trim().split('\n')[0] ?? '';
  const words = line
    .replace(/[/\\]+/gu, ' ')
    .split(/\s+/u)
    .slice(0, MAX_WORDS)
    .join(' ');
  let name = branchFromName(words);
  while (Array.from(name).length > MAX_LENGTH) {
    const shorter = name.replace(/-[^-]*$/u, '');
    if (shorter === name) return Array.from(name).slice(0, MAX_LENGTH).join('');
    name = shorter;
  }
  return name;
}

/** The name itself, or with the first number behind it that makes it free. Pure. */
export function freeName(name: string, taken: ReadonlySet<string>): string {
  if (!taken.has(name)) return name;
  let number = 2;
  while (taken.has(`${name}-${number}`)) number += 1;
  return `${name}-${number}`;
}

/** What the session will be called. Pure. */
export function taskName(form: Pick<TaskForm, 'name' | 'prompt'>): string {
  return form.name.trim() || nameFromPrompt(form.prompt) || 'task';
}

export type TaskField = 'prompt' | 'agent' | 'environment' | 'url';
export type TaskProblems = Partial<Record<TaskField, string>>;

/** What has to be mended before the task can begin. Pure. */
export function taskProblems(
  form: TaskForm,
  known: { agents: ReadonlySet<string>; environments: ReadonlySet<string> },
  urlProblem: (url: string) => string | undefined,
): TaskProblems {
  const problems: TaskProblems = {};
  if (form.prompt.trim() === '') problems.prompt = 'Say what the agent should do.';
  if (!known.agents.has(form.agentId)) problems.agent = 'Choose who should do it.';
  if (form.source === 'environment') {
    if (!known.environments.has(form.environmentId)) problems.environment = 'Choose where it should be done.';
  } else {
    const url = urlProblem(form.url);
    if (url !== undefined) problems.url = url;
  }
  return problems;
}

/** The environment that is made for a repository. Pure. */
export function wantedEnvironment(form: TaskForm, name: string): NewEnvironment {
  return { name, repositoryUrl: form.url.trim(), branch: form.base.trim() || 'main' };
}

/** The session that the agent works in. Pure. */
export function wantedSession(
  form: TaskForm,
  environment: { id: string; branch: string; repositoryUrl?: string | null | undefined },
  name: string,
): NewSession {
  const common = {
    environmentId: environment.id,
    name,
    sessionType: 'agent' as const,
    agentId: form.agentId,
    prompt: form.prompt,
  };
  if (!environment.repositoryUrl) return common;
  return {
    ...common,
    branch: branchFromName(name) || 'task',
    baseBranch: form.base.trim() || environment.branch,
  };
}
