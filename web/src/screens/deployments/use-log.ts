import { useEffect, useEffectEvent, useRef, useState } from 'react';
import { readDeploymentLog } from '@/api/deployments';
import { grown, nextLook, NO_LOG, type BuildLog } from './log';

/** Waits; at once over when it is aborted. While nobody can see the page it waits for that too. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = window.setTimeout(() => {
      if (document.visibilityState === 'visible') end();
      else document.addEventListener('visibilitychange', end);
    }, ms);
    const end = () => {
      window.clearTimeout(timer);
      document.removeEventListener('visibilitychange', end);
      signal.removeEventListener('abort', end);
      resolve();
    };
    signal.addEventListener('abort', end);
  });
}

/**
 * A build's log as it grows. Coolify tells nobody of a new line, so it is asked for again and again:
 * as long as the log is shown, somebody can see the page, and more may come. With another `moment`
 * (the deployment's state) it is looked at without waiting.
 */
export function useBuildLog(
  id: string,
  moment: string,
  enabled: boolean,
): { log: BuildLog; read: boolean; error: unknown } {
  const [log, setLog] = useState(NO_LOG);
  const [read, setRead] = useState(false);
  const [error, setError] = useState<unknown>(undefined);
  const newest = useRef(NO_LOG);
  const take = useEffectEvent((next: BuildLog) => {
    newest.current = next;
    setLog(next);
    setRead(true);
    setError(undefined);
  });
  const fail = useEffectEvent((failure: unknown) => setError(failure));
  useEffect(() => {
    if (!enabled) return;
    const leaving = new AbortController();
    const { signal } = leaving;
    const follow = async () => {
      let failures = 0;
      while (!signal.aborted) {
        let wait: number | undefined;
        try {
          const part = await readDeploymentLog(id, newest.current.next, signal);
          const log = grown(newest.current, part);
          failures = 0;
          take(log);
          wait = nextLook(log, failures);
        } catch (failure) {
          if (leaving.signal.aborted) return;
          failures += 1;
          fail(failure);
          wait = nextLook(newest.current, failures);
        }
        if (wait === undefined) return;
        await pause(wait, signal);
      }
    };
    void follow();
    return () => leaving.abort();
  }, [id, moment, enabled]);
  return { log, read, error };
}
