import type { AgentFields, Prompt } from '@/api/agents';
import type { Shown } from '@/app/status';

/** The longest pause between two presses that are meant as one, in milliseconds. */
const TWICE_MS = 800;
const MOST_SHOWN = 6;

/** Whether there is something to interrupt. Pure. */
export function busy(state: AgentFields['agentState']): boolean {
  return (
    state === 'working' ||
    state === 'starting' ||
    state === 'waiting_permission' ||
    state === 'waiting_question'
  );
}

/** Those that are not delivered, and the one that was sent last from here; oldest first. Pure. */
export function promptsShown(prompts: readonly Prompt[], sent: string | undefined): Prompt[] {
  return [...prompts]
    .filter((one) => waits(one) || one.id === sent)
    .sort((a, b) => Date.parse(a.createdAt) - Date.parse(b.createdAt))
    .slice(-MOST_SHOWN);
}

/** Whether a prompt was not typed yet, so that it can be taken back. Pure. */
export function waits({ status }: Pick<Prompt, 'status'>): boolean {
  return status === 'queued' || status === 'blocked';
}

/** What became of a prompt, in words. Pure. */
export function receiptWord({ status, reason }: Pick<Prompt, 'status' | 'reason'>): Shown {
  const why = reason === undefined || reason === null || reason === '' ? '' : `: ${reason}`;
  switch (status) {
    case 'queued':
      return { kind: 'idle', word: `Queued${why === '' ? ', until the agent is done' : why}` };
    case 'delivering':
      return { kind: 'working', word: 'Being given to the agent' };
    case 'delivered':
      return why === '' ? { kind: 'ready', word: 'Delivered' } : { kind: 'unknown', word: `Delivered${why}` };
    case 'blocked':
      return { kind: 'attention', word: `Blocked${why}` };
    default:
      return { kind: 'unknown', word: `Not known whether it was delivered${why}` };
  }
}

/** A number of tokens as somebody writes it: null where it is empty, undefined where it is none. Pure. */
export function limitFrom(text: string): number | null | undefined {
  const digits = text.replace(/[\s,._’']/gu, '');
  if (digits === '') return text.trim() === '' ? null : undefined;
  const number = /^\d{1,12}$/u.test(digits) ? Number(digits) : 0;
  return number > 0 ? number : undefined;
}

/** Notices Escape pressed twice in a row. */
export class EscapeTwice {
  #at = -Infinity;

  /** Takes a key; says whether it was the second Escape of two. */
  press(key: string, at: number): boolean {
    if (key !== 'Escape') {
      this.#at = -Infinity;
      return false;
    }
    const second = at - this.#at <= TWICE_MS;
    this.#at = second ? -Infinity : at;
    return second;
  }
}
