import { useSyncExternalStore } from 'react';
import { ago, exactTime } from '@/app/time';

const TICK_MS = 30_000;
const listeners = new Set<() => void>();
let now = Date.now();
let timer: number | undefined;

function subscribe(listener: () => void): () => void {
  if (listeners.size === 0) now = Date.now();
  listeners.add(listener);
  timer ??= window.setInterval(() => {
    now = Date.now();
    for (const one of listeners) one();
  }, TICK_MS);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) {
      window.clearInterval(timer);
      timer = undefined;
    }
  };
}

/** How long ago something was; the exact time on hovering. */
export function Ago({ at, className }: { at: string; className?: string | undefined }) {
  const shown = useSyncExternalStore(subscribe, () => now);
  return (
    <time dateTime={at} title={exactTime(at)} className={className}>
      {ago(at, shown)}
    </time>
  );
}
