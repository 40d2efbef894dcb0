import type { SessionLine } from '@/api/types';
import type { Attention } from './inbox';

const KEY = 'craftastic.notifications';
const MOST_TEXT = 200;
/** More at once would be noise: the page's own list has them all. */
const MOST_AT_ONCE = 4;
/** Held by each tab that somebody looks at. */
const VISIBLE_LOCK = 'craftastic-visible';

export type Notice = { tag: string; title: string; body: string; to: string };
/** What there was to tell of at one moment. */
export type Moment = { waiting: readonly Attention[]; finished: readonly SessionLine[] };

function short(text: string): string {
  const line = text.replace(/\s+/gu, ' ').trim();
  const letters = Array.from(line);
  return letters.length > MOST_TEXT ? `${letters.slice(0, MOST_TEXT - 1).join('')}…` : line;
}

function noticesOf({ waiting, finished }: Moment): Notice[] {
  return [
    ...waiting.map((one) => ({
      tag: one.id,
      title: short(`${one.title}: ${one.why.charAt(0).toLowerCase()}${one.why.slice(1)}`),
      body: short(one.approval?.input ?? one.details ?? ''),
      to: one.to,
    })),
    ...finished.map((one) => ({
      tag: `finished:${one.id}:${one.agentStateSince ?? ''}`,
      title: short(`${one.name}: finished`),
      body: short(one.agentMessage ?? ''),
      to: `/s/${one.id}`,
    })),
  ];
}

/** What is new since a moment; nothing is where there was none before: a page that opens is silent. Pure. */
export function news(before: Moment | undefined, now: Moment): Notice[] {
  if (!before) return [];
  const known = new Set(noticesOf(before).map((one) => one.tag));
  return noticesOf(now)
    .filter((one) => !known.has(one.tag))
    .slice(0, MOST_AT_ONCE);
}

/** Whether a notification is to be shown: only when asked for, and when nobody looks at the page. Pure. */
export function mayNotify({
  on,
  permission,
  hidden,
  seenElsewhere,
}: {
  on: boolean;
  permission: NotificationPermission | 'unsupported';
  hidden: boolean;
  /** Another tab of the page is in view. */
  seenElsewhere: boolean;
}): boolean {
  return on && permission === 'granted' && hidden && !seenElsewhere;
}

export function notificationPermission(): NotificationPermission | 'unsupported' {
  return 'Notification' in window ? Notification.permission : 'unsupported';
}

export function notificationsOn(): boolean {
  try {
    return localStorage.getItem(KEY) === 'true';
  } catch {
    return false;
  }
}

/** Keeps the choice in this browser. */
export function setNotifications(on: boolean): void {
  try {
    localStorage.setItem(KEY, String(on));
  } catch {
    // Storage is closed or full: then they stay off.
  }
}

/** Tells other tabs as long as this one is in view. Returns what ends it. */
export function sayWhenVisible(): () => void {
  const locks = navigator.locks as LockManager | undefined;
  let release: (() => void) | undefined;
  const update = () => {
    if (document.visibilityState === 'visible') {
      if (release || !locks) return;
      const held = new Promise<void>((resolve) => {
        release = resolve;
      });
      locks.request(VISIBLE_LOCK, { mode: 'shared' }, () => held).catch(() => undefined);
    } else {
      release?.();
      release = undefined;
    }
  };
  update();
  document.addEventListener('visibilitychange', update);
  return () => {
    document.removeEventListener('visibilitychange', update);
    release?.();
    release = undefined;
  };
}

/** Whether some tab of the page is in view. */
export async function anyTabVisible(): Promise<boolean> {
  const locks = navigator.locks as LockManager | undefined;
  try {
    return (await locks?.query())?.held?.some(({ name }) => name === VISIBLE_LOCK) === true;
  } catch {
    return false;
  }
}

/** Shows notices; `open` is called where somebody clicks one. */
export async function notify(notices: readonly Notice[], open: (to: string) => void): Promise<void> {
  if (notices.length === 0) return;
  const may = mayNotify({
    on: notificationsOn(),
    permission: notificationPermission(),
    hidden: document.visibilityState === 'hidden',
    seenElsewhere: await anyTabVisible(),
  });
  if (!may) return;
  for (const { tag, title, body, to } of notices) {
    try {
      // The same tag of several tabs is one notification.
      const shown = new Notification(title, { body, tag, icon: '/favicon.svg' });
      shown.onclick = () => {
        window.focus();
        open(to);
        shown.close();
      };
    } catch {
      // Some browsers on phones only let workers show them.
      return;
    }
  }
}
