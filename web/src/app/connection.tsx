import { CloudOff, RefreshCw } from 'lucide-react';
import { useEffect, useState, useSyncExternalStore } from 'react';
import { events, type ConnectionState } from '@/api/events';

export function useConnection(): ConnectionState {
  return useSyncExternalStore(events.watch, events.getState);
}

function subscribeOnline(listener: () => void): () => void {
  window.addEventListener('online', listener);
  window.addEventListener('offline', listener);
  return () => {
    window.removeEventListener('online', listener);
    window.removeEventListener('offline', listener);
  };
}

export function useOnline(): boolean {
  return useSyncExternalStore(subscribeOnline, () => navigator.onLine);
}

/** Seconds until the next try, counted down. */
function useCountdown(at: number | undefined): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    if (at === undefined) return;
    const timer = setInterval(() => setNow(Date.now()), 250);
    return () => clearInterval(timer);
  }, [at]);
  return at === undefined ? 0 : Math.max(0, Math.ceil((at - now) / 1000));
}

/** Said only where the page may be out of date: a first cut that heals at once is not worth a word. */
export function ConnectionBanner() {
  const connection = useConnection();
  const online = useOnline();
  const waiting = connection.state === 'waiting';
  const seconds = useCountdown(waiting ? connection.at : undefined);
  // While a try is under way after a cut, the banner stays, so that it does not blink.
  const [cut, setCut] = useState(false);
  if (waiting && !cut && connection.attempt > 1) setCut(true);
  if (cut && (connection.state === 'live' || connection.state === 'idle')) setCut(false);

  useEffect(() => {
    const now = () => events.retryNow();
    const seen = () => {
      if (document.visibilityState === 'visible') events.retryNow();
    };
    window.addEventListener('online', now);
    document.addEventListener('visibilitychange', seen);
    return () => {
      window.removeEventListener('online', now);
      document.removeEventListener('visibilitychange', seen);
    };
  }, []);

  if (online && !cut) return <div role="status" className="sr-only" />;
  return (
    <div className="flex shrink-0 items-center justify-center gap-2 border-b border-line bg-warn-soft px-4 py-1.5 text-sm text-fg">
      {online ? (
        <RefreshCw aria-hidden className="size-4 shrink-0 text-warn" />
      ) : (
        <CloudOff aria-hidden className="size-4 shrink-0 text-warn" />
      )}
      <span role="status" className="sr-only">
        {online ? 'The connection to the server is cut. Reconnecting.' : 'You are offline.'}
      </span>
      <span aria-hidden>
        {online
          ? waiting
            ? `Reconnecting in ${seconds} s`
            : 'Reconnecting…'
          : 'You are offline. What you see may be out of date.'}
      </span>
      {online && waiting && (
        <button
          type="button"
          onClick={events.retryNow}
          className="rounded-sm font-medium text-accent-fg underline underline-offset-2 hover:no-underline pointer-coarse:min-h-11"
        >
          Retry now
        </button>
      )}
    </div>
  );
}
