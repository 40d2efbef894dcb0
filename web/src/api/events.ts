import { useEffect } from 'react';
import { tokens } from '@/auth/tokens';
import { api } from './client';
import { EventsClient } from './event-stream';
import { SharedEvents, type Channel, type Lead, type Message } from './shared-events';

export type { ConnectionState, ServerEvent } from './event-stream';

/** Tabs of another version of the page say other things. */
const PROTOCOL = 1;

/** Names what the tabs of one user share in this browser. */
function scope(): string {
  return `craftastic-events.${PROTOCOL}.${tokens.read()?.user.id ?? ''}`;
}

function openChannel(): Channel | undefined {
  if (!('BroadcastChannel' in window)) return undefined;
  const channel = new BroadcastChannel(scope());
  let open = true;
  return {
    post: (message) => {
      if (open) channel.postMessage(message);
    },
    listen: (listener) => {
      channel.onmessage = ({ data }: MessageEvent<Message>) => {
        if (open) listener(data);
      };
    },
    close: () => {
      open = false;
      channel.close();
    },
  };
}

function lead(): Lead | undefined {
  // Missing outside secure contexts, whatever the type says.
  const locks = navigator.locks as LockManager | undefined;
  if (!locks) return undefined;
  return async (held, options) => {
    await locks.request(scope(), options, held);
  };
}

const timers = {
  now: () => Date.now(),
  random: () => Math.random(),
  setTimer: (run: () => void, ms: number) => window.setTimeout(run, ms),
  clearTimer: (timer: number) => window.clearTimeout(timer),
};

const stream = new EventsClient({
  open: (lastEventId, watched, signal) =>
    api.open('GET', '/api/events', {
      signal,
      deadlineMs: Infinity,
      query: { watch: watched },
      headers: {
        Accept: 'text/event-stream',
        ...(lastEventId === undefined ? {} : { 'Last-Event-ID': lastEventId }),
      },
    }),
  ...timers,
});

/** What the server tells, in every tab, by one stream for all of them. */
export const events = new SharedEvents({
  client: stream,
  tab: Array.from(crypto.getRandomValues(new Uint32Array(3)), (one) => one.toString(36)).join('-'),
  openChannel,
  lead,
  ...timers,
});

const seen = () => events.setVisible(document.visibilityState === 'visible');
seen();
document.addEventListener('visibilitychange', seen);
document.addEventListener('freeze', () => events.pause());
document.addEventListener('resume', () => events.resume());
window.addEventListener('pagehide', () => events.pause());
window.addEventListener('pageshow', ({ persisted }) => {
  if (persisted) events.resume();
});

/** Hears what happens in a session's sandbox as long as it is shown, and `enabled`. */
export function useLookAt(sessionId: string, enabled = true): void {
  useEffect(() => (enabled ? events.look(sessionId) : undefined), [sessionId, enabled]);
}
