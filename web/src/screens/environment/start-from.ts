import { ApiError } from '@/api/errors';
import type { Branch } from '@/api/git';
import type { NewSession } from '@/api/types';

/** What a session's branch begins with. */
export type StartFrom = 'new' | 'existing' | 'pull' | 'commit';

export type SessionForm = {
  from: StartFrom;
  name: string;
  /** What was typed for the branch; empty means: as the name says. */
  branch: string;
  /** The branch that a new one begins at. */
  base: string;
  /** The branch that is gone on with. */
  existing: string;
  pull: string;
  commit: string;
};

export type FormField = 'name' | 'branch' | 'base' | 'existing' | 'pull' | 'commit';
export type Problems = Partial<Record<FormField, string>>;

const MAX_BRANCH = 100;
const MAX_NAME = 64;

const SPELT: Readonly<Record<string, string>> = {
  ß: 'ss',
  æ: 'ae',
  œ: 'oe',
  ø: 'o',
  ł: 'l',
  đ: 'd',
  ð: 'd',
  þ: 'th',
};

/**
 * A branch's name for what somebody calls a piece of work: `Fix the cart` is `fix-the-cart`. Only
 * names that have no Latin letters keep their own. Pure.
 */
export function branchFromName(name: string): string {
  const plain = name
    .normalize('NFKD')
    .replace(/\p{Mark}+/gu, '')
    .toLowerCase()
    .replace(/[ßæœøłđðþ]/gu, (letter) => SPELT[letter] ?? letter);
  const latin = joined(plain, /[^a-z0-9._/-]+/gu);
  return /[a-z]/u.test(latin) ? latin : joined(plain.normalize('NFC'), /[^\p{Letter}\p{Number}._/-]+/gu);
}

function joined(text: string, foreign: RegExp): string {
  const dashed = text
    .replace(foreign, '-')
    .replace(/\.{2,}/gu, '.')
    .replace(/-{2,}/gu, '-');
  return Array.from(dashed)
    .slice(0, MAX_BRANCH)
    .join('')
    .split('/')
    .map((part) => part.replace(/^[.-]+|[.-]+$/gu, '').replace(/(?:\.lock)+$/u, ''))
    .filter((part) => part !== '')
    .join('/');
}

/** What is plainly wrong with a branch's name, before the server is asked. Pure. */
export function branchProblem(branch: string): string | undefined {
  if (branch === '') return 'Give the branch a name.';
  // eslint-disable-next-line no-control-regex -- controls are what is looked for
  if (/[\s~^:?*[\\\u0000-\u001f\u007f]/u.test(branch)) {
    return 'A branch has no spaces and none of ~ ^ : ? * [ \\ in its name.';
  }
  const parts = branch.split('/');
  const wrong = parts.some((part) => part === '' || part.startsWith('.') || part.endsWith('.lock'));
  if (wrong || branch.startsWith('-') || branch.endsWith('.') || /\.\.|@\{/u.test(branch) || branch === '@') {
    return 'This is not a name that git allows for a branch.';
  }
  return undefined;
}

/** The branch that the session will be on. Pure. */
export function branchOf(form: SessionForm): string {
  if (form.from === 'existing') return form.existing;
  if (form.branch !== '') return form.branch;
  if (form.from === 'pull' && form.name === '') return `pr-${pullNumber(form.pull) ?? 'number'}`;
  return branchFromName(form.name);
}

/** The session's name: what was typed, else what its start says. Pure. */
export function nameOf(form: SessionForm): string {
  if (form.name !== '') return form.name;
  if (form.from === 'existing') return Array.from(form.existing).slice(0, MAX_NAME).join('');
  if (form.from === 'pull') {
    const number = pullNumber(form.pull);
    return number === undefined ? '' : `pr-${number}`;
  }
  return '';
}

/** The number of a pull request, from `12`, `#12` or its address. Pure. */
export function pullNumber(text: string): number | undefined {
  const found =
    /^#?(\d{1,10})$/u.exec(text.trim()) ??
    /\/(?:pull|pulls|merge_requests|pull-requests)\/(\d{1,10})(?:[/?#]|$)/u.exec(text.trim());
  const number = Number(found?.[1] ?? NaN);
  return Number.isSafeInteger(number) && number >= 1 && number < 2 ** 31 ? number : undefined;
}

/** What has to be mended before the form can be sent. Pure. */
export function problemsOf(form: SessionForm, withRepository: boolean): Problems {
  const problems: Problems = {};
  const name = nameOf(form);
  if (name.trim() === '') problems.name = 'Give the session a name.';
  else if (name !== name.trim()) problems.name = 'A name does not begin or end with a space.';
  else if (Array.from(name).length > MAX_NAME) problems.name = `A name has at most ${MAX_NAME} characters.`;
  if (!withRepository) return problems;
  if (form.from === 'existing') {
    if (form.existing === '') problems.existing = 'Choose the branch to go on with.';
    return problems;
  }
  if (form.from === 'pull' && pullNumber(form.pull) === undefined) {
    problems.pull = 'Give the number of a pull request, such as 42.';
  }
  if (form.from === 'commit' && !/^[0-9a-f]{7,64}$/iu.test(form.commit.trim())) {
    problems.commit = 'Give at least 7 digits of the commit’s id.';
  }
  const branch =
    problems.name === undefined || form.branch !== '' ? branchProblem(branchOf(form)) : undefined;
  if (branch !== undefined) problems.branch = branch;
  return problems;
}

/** What is sent. Pure. */
export function wanted(form: SessionForm, environmentId: string, withRepository: boolean): NewSession {
  const common = { environmentId, name: nameOf(form), sessionType: 'terminal' as const };
  if (!withRepository) return common;
  const branch = branchOf(form);
  switch (form.from) {
    case 'new':
      return { ...common, branch, baseBranch: form.base };
    case 'existing':
      return { ...common, branch };
    case 'pull':
      return { ...common, branch, pullRequest: pullNumber(form.pull) ?? null };
    case 'commit':
      return { ...common, branch, baseCommit: form.commit.trim().toLowerCase() };
  }
}

/** Which field the server's refusal is about. Pure. */
export function problemsFrom(error: unknown, from: StartFrom): Problems {
  if (!(error instanceof ApiError)) return {};
  const text = [error.message, error.details].filter((part) => part !== undefined).join(' ');
  if (error.code === 'SESSION_NAME_IN_USE' || error.code === 'NAME_INVALID') return { name: text };
  const start = { new: 'base', existing: 'existing', pull: 'pull', commit: 'commit' } as const;
  if (error.code.startsWith('BASE_')) return { [start[from]]: text };
  if (error.code.startsWith('BRANCH_')) return { [from === 'existing' ? 'existing' : 'branch']: text };
  return {};
}

/** What a search leaves of the branches: those that begin with it first. Pure. */
export function branchesFitting(branches: readonly Branch[], search: string): Branch[] {
  const text = search.trim().toLowerCase();
  if (text === '') return [...branches];
  const fitting = branches.filter(({ name }) => name.toLowerCase().includes(text));
  const begins = ({ name }: Branch) => name.toLowerCase().startsWith(text);
  return [...fitting.filter(begins), ...fitting.filter((one) => !begins(one))];
}
