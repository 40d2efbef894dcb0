import { describe, expect, it, vi } from 'vitest';
import type { SessionLine } from '@/api/types';
import type { Attention } from './inbox';
import { mayNotify, news, notify, setNotifications, type Moment } from './notify';

function waiting(id: string, fields: Partial<Attention> = {}): Attention {
  return {
    id,
    what: 'question',
    title: 'rounding',
    why: 'Has a question',
    kind: 'attention',
    to: '/s/s1',
    environmentId: 'e1',
    since: '',
    ...fields,
  };
}

function done(id: string, since: string): SessionLine {
  return {
    id,
    environmentId: 'e1',
    name: id,
    tmuxSessionName: id,
    workingDirectory: '/w',
    status: 'active',
    gitBranch: null,
    createdAt: '',
    updatedAt: '',
    agentState: 'done',
    agentStateSince: since,
    agentMessage: 'All   tests\npass.',
  };
}

const nothing: Moment = { waiting: [], finished: [] };

describe('news', () => {
  it('is nothing for a page that has just opened', () => {
    expect(news(undefined, { waiting: [waiting('a')], finished: [done('s', '1')] })).toEqual([]);
  });

  it('is what was not there before, and never the same twice', () => {
    const first: Moment = { waiting: [waiting('a')], finished: [] };
    const second: Moment = { waiting: [waiting('a'), waiting('b')], finished: [done('s', '1')] };
    expect(news(first, second).map((one) => one.tag)).toEqual(['b', 'finished:s:1']);
    expect(news(second, second)).toEqual([]);
    expect(news(second, { ...second, finished: [done('s', '2')] }).map((one) => one.tag)).toEqual([
      'finished:s:2',
    ]);
  });

  it('is short, in one line, and a few at once', () => {
    const long = waiting('a', { details: 'x'.repeat(5_000) });
    expect(news(nothing, { waiting: [long], finished: [] })[0]?.body).toHaveLength(200);
    expect(news(nothing, { waiting: [], finished: [done('s', '1')] })[0]?.body).toBe('All tests pass.');
    const many = Array.from({ length: 30 }, (_, index) => waiting(`w${index}`));
    expect(news(nothing, { waiting: many, finished: [] })).toHaveLength(4);
  });
});

describe('a notification', () => {
  const right = { on: true, permission: 'granted', hidden: true, seenElsewhere: false } as const;

  it('is shown only when it was asked for, is allowed, and nobody looks at any tab', () => {
    expect(mayNotify(right)).toBe(true);
    expect(mayNotify({ ...right, on: false })).toBe(false);
    expect(mayNotify({ ...right, permission: 'default' })).toBe(false);
    expect(mayNotify({ ...right, permission: 'denied' })).toBe(false);
    expect(mayNotify({ ...right, permission: 'unsupported' })).toBe(false);
    expect(mayNotify({ ...right, hidden: false })).toBe(false);
    expect(mayNotify({ ...right, seenElsewhere: true })).toBe(false);
  });

  it('leads to its session when it is clicked, and is never shown by itself', async () => {
    const shown: { title: string; tag: string | undefined; onclick?: () => void; close: () => void }[] = [];
    class FakeNotification {
      static permission = 'granted';
      onclick?: () => void;
      readonly close = vi.fn();
      readonly title: string;
      readonly tag: string | undefined;
      constructor(title: string, options: NotificationOptions) {
        this.title = title;
        this.tag = options.tag;
        shown.push(this);
      }
    }
    vi.stubGlobal('Notification', FakeNotification);
    vi.spyOn(document, 'visibilityState', 'get').mockReturnValue('hidden');
    vi.spyOn(window, 'focus').mockImplementation(() => undefined);
    const open = vi.fn();
    const notice = { tag: 'a', title: 'rounding: has a question', body: '', to: '/s/s1' };
    await notify([notice], open);
    expect(shown).toHaveLength(0);
    setNotifications(true);
    await notify([notice], open);
    expect(shown.map((one) => one.tag)).toEqual(['a']);
    shown[0]?.onclick?.();
    expect(open).toHaveBeenCalledWith('/s/s1');
    expect(shown[0]?.close).toHaveBeenCalledOnce();
    setNotifications(false);
    vi.unstubAllGlobals();
  });
});
